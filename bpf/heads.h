/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The heads of the last commands that a connection has had dispatched (--argv-from dispatch), in a ring of bytes. The
 * thread that executes commands adds to it while another may be sending an earlier reply's record: who reads asks,
 * after reading, whether what was read is still there. Only commands of the same client overwrite each other, so one
 * that waits while its reply drains is kept for as long as that takes.
 */
#ifndef REPLYLOG_HEADS_H
#define REPLYLOG_HEADS_H

#include "dispatch_head.h"

#define HEADS_RING 4096

struct heads {
	__u32 end; /* where the next one will be, modulo 2^32: in bytes[end % HEADS_RING] and on */
	__u32 pad;
	__u8 bytes[HEADS_RING + HEAD_MAX]; /* one that begins in the ring ends behind it, if need be */
};

/* A place in the ring is a number, or this. The others are a multiple of 8, plus 1. */
#define HEAD_NONE 0

static __always_inline __u32 heads_room(__u32 len)
{
	return (len + 7) & ~7U;
}

/* Adds a head of len bytes, and gives its place. */
env_noinline __u32 heads_keep(struct heads *heads, const struct head_work *work, __u64 len)
{
	__u32 at;
	__u64 off;

	/* What is there is taken back before it is overwritten. */
	at = env_add(&heads->end, heads_room(len));
	off = at % HEADS_RING;
	env_opaque(off);
	env_opaque(len);
	if (!len || len > HEAD_MAX || off >= HEADS_RING || env_copy(heads->bytes + off, len, work->bytes))
		return HEAD_NONE;
	return at + 1;
}

/* Is the head of len bytes that was read there still whole? */
static __always_inline bool heads_hold(struct heads *heads, __u32 place, __u32 len)
{
	__u32 added = env_add(&heads->end, 0) - (place - 1);

	return added <= HEADS_RING || added == heads_room(len);
}

/* Copies a head's beginning. False when there is none. */
static __always_inline bool heads_read(const struct heads *heads, __u32 place, struct dispatch_head *out)
{
	return place != HEAD_NONE && !env_copy(out, sizeof(*out), heads->bytes + (place - 1) % HEADS_RING);
}

static __always_inline __u32 head_len(const struct dispatch_head *head)
{
	__u32 len = head->argv_len, i;

	for (i = 0; i < CLIENT_WORDS; i++)
		len += head->word[i];
	return len;
}

/* Copies what follows the beginning, len bytes, all of it still being there. to has room for HEAD_MAX. */
env_noinline bool heads_copy(struct heads *heads, __u32 place, __u64 len, __u8 *to)
{
	const __u64 begin = sizeof(struct dispatch_head);
	__u64 off = (place - 1) % HEADS_RING;

	env_opaque(off);
	env_opaque(len);
	return off < HEADS_RING && len <= HEAD_MAX - begin && !env_copy(to, len, heads->bytes + off + begin) &&
	       heads_hold(heads, place, begin + len);
}

#endif
