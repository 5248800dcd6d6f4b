/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The heads of the last commands that a connection has had dispatched (--argv-from dispatch), in a ring of bytes. The
 * thread that executes commands adds to it while another may be sending an earlier reply's record: who reads asks,
 * after reading, whether what was read is still there. Only commands of the same client overwrite each other, so one
 * that waits while its reply drains is kept for as long as that takes.
 */
#ifndef REPLYLOG_BPF_DISPATCH_SNAPSHOT_RING_H
#define REPLYLOG_BPF_DISPATCH_SNAPSHOT_RING_H

#include "bpf/dispatch/argv_snapshot.h"
#include "bpf/resp/resp.h"

#define SNAPSHOTS_RING 4096

struct snapshot_ring {
	__u32 end; /* where the next one will be, modulo 2^32: in bytes[end % SNAPSHOTS_RING] and on */
	__u32 pad;
	__u8 bytes[SNAPSHOTS_RING + SNAPSHOT_MAX]; /* one that begins in the ring ends behind it, if need be */
};

/* A place in the ring is a number, or this. The others are a multiple of 8, plus 1. */
#define SNAPSHOT_NONE 0

static __always_inline __u32 snapshots_room(__u32 len)
{
	return (len + 7) & ~7U;
}

/* Adds a head of len bytes, and gives its place. */
env_noinline __u32 snapshots_keep(struct snapshot_ring *snapshots, const struct snapshot_work *work, __u64 len)
{
	__u32 at;
	__u64 off;

	/* What is there is taken back before it is overwritten. */
	at = env_add(&snapshots->end, snapshots_room(len));
	off = at % SNAPSHOTS_RING;
	env_opaque(off);
	env_opaque(len);
	if (!len || len > SNAPSHOT_MAX || off >= SNAPSHOTS_RING || env_copy(snapshots->bytes + off, len, work->bytes))
		return SNAPSHOT_NONE;
	return at + 1;
}

/* Is the head of len bytes that was read there still whole? */
static __always_inline bool snapshots_hold(struct snapshot_ring *snapshots, __u32 place, __u32 len)
{
	__u32 added = env_add(&snapshots->end, 0) - (place - 1);

	return added <= SNAPSHOTS_RING || added == snapshots_room(len);
}

/* Copies a head's beginning. False when there is none. */
static __always_inline bool snapshots_read(const struct snapshot_ring *snapshots, __u32 place, struct argv_snapshot *out)
{
	return place != SNAPSHOT_NONE && !env_copy(out, sizeof(*out), snapshots->bytes + (place - 1) % SNAPSHOTS_RING);
}

static __always_inline __u32 snapshot_words_len(const struct argv_snapshot *head)
{
	__u32 len = 0, i;

	for (i = 0; i < CLIENT_WORDS; i++)
		len += head->word[i];
	return len;
}

static __always_inline __u32 snapshot_len(const struct argv_snapshot *head)
{
	return head->argv_len + snapshot_words_len(head);
}

/* Where argv begins in bytes; the words follow it. */
static __always_inline __u32 snapshots_argv(__u32 place)
{
	return (place - 1) % SNAPSHOTS_RING + sizeof(struct argv_snapshot);
}

/*
 * Copies len bytes at from to offset at of to, where size bytes are; most is a constant that len is not over. 0, or -1.
 * The caller then asks whether the head is still there.
 */
static __always_inline int snapshots_copy(const struct snapshot_ring *snapshots, __u64 from, __u64 len, __u8 *to, __u64 at,
					  const __u64 size, const __u64 most)
{
	env_opaque(from);
	env_opaque(len);
	env_opaque(at);
	if (from > sizeof(snapshots->bytes) - most || len > most || at > size - most)
		return -1;
	return env_copy(to + at, len, snapshots->bytes + from);
}

/* ---- is it the same command? ---- */

/*
 * How far the comparison of two heads has come. The request's may have an argument whole that is shortened in the other:
 * the true lengths must be equal, and what both have.
 */
struct snapshots_compare {
	__u32 asked, asked_end; /* in the request's head */
	__u32 kept, kept_end;   /* in heads->bytes */
	__u32 same;             /* so many of the next bytes must be equal; 0: a header follows */
	__u32 asked_skip;       /* then so many are passed over: what the other hasn't kept, and CRLF */
	__u32 kept_skip;
	__u32 equal; /* both have come to their ends */
};

/* A header and an argument's bytes, a word at a time. */
#define SNAPSHOTS_COMPARE_STEPS (2 + ARGV_MAX_ARGS * (1 + ARGV_MAX_ARG_BYTES / 8))
/* Where a header is read, two words behind its tag are. */
#define SNAPSHOTS_ASKED_MAX ARGV_HEAD_MAX
#define SNAPSHOTS_KEPT_MAX (SNAPSHOTS_RING + SNAPSHOT_MAX - 17)

struct snapshots_compare_frame {
	struct snapshots_compare *compare;
	const __u8 *asked; /* readable up to SNAPSHOTS_ASKED_MAX and a header */
	const struct snapshot_ring *snapshots;
};

static __always_inline long snapshots_compare_word(struct snapshots_compare *compare, const __u8 *asked, const __u8 *kept)
{
	__u32 same = compare->same, n = same < 8 ? same : 8;

	if (first_bytes(env_load64(asked) ^ env_load64(kept), n))
		return 1;
	compare->same -= n;
	compare->asked += n + (same > 8 ? 0 : compare->asked_skip);
	compare->kept += n + (same > 8 ? 0 : compare->kept_skip);
	return 0;
}

/* The size of a header, or 0 when it has none. */
static __always_inline __u32 snapshot_number_size(const __u8 *header)
{
	__u64 cr = bytes_equal(env_load64(header + 1), '\r');

	if (cr)
		return 1 + bytes_count(bytes_below(cr)) + 2;
	cr = bytes_equal(env_load64(header + 9), '\r');
	return cr ? 9 + bytes_count(bytes_below(cr)) + 2 : 0;
}

/* Are the numbers in two headers of that size the same? Both are as the server takes them: without needless zeros. */
static __always_inline bool head_numbers_differ(const __u8 *asked, const __u8 *kept, __u32 size)
{
	return first_bytes(env_load64(asked + 1) ^ env_load64(kept + 1), size - 1) ||
	       (size > 9 && first_bytes(env_load64(asked + 9) ^ env_load64(kept + 9), size - 9));
}

/* The number in a header, or -1 when it has more than seven digits: so long no argument is that is kept whole. */
static __always_inline __s64 head_number(const __u8 *header, __u32 size)
{
	__u64 word = env_load64(header + 1), cr = bytes_equal(word, '\r');

	return size <= 1 + 7 + 2 ? digits_parse(word, bytes_below(cr), size - 3) : -1;
}

/*
 * "*<argc>", or the header of an argument. Without a call of resp_number(): eight calls deep, the kernel's stack of 512
 * bytes has no room for one.
 */
static __always_inline long snapshots_compare_header(struct snapshots_compare *compare, const __u8 *asked, const __u8 *kept)
{
	__u32 size = snapshot_number_size(asked);
	__s64 n, same;

	if (size <= 3 || size != snapshot_number_size(kept) || head_numbers_differ(asked, kept, size) ||
	    (*asked == '*') != (*kept == '*'))
		return 1;
	compare->asked += size;
	compare->kept += size;
	if (*asked == '*')
		return 0;
	n = head_number(asked, size);
	if (n < 0 && (*asked == '$' || *kept == '$'))
		return 1;
	same = n >= 0 && n < ARGV_MAX_ARG_BYTES ? n : ARGV_MAX_ARG_BYTES;
	compare->same = same;
	compare->asked_skip = *asked == '$' ? n - same + 2 : 0;
	compare->kept_skip = *kept == '$' ? n - same + 2 : 0;
	compare->asked += same ? 0 : compare->asked_skip;
	compare->kept += same ? 0 : compare->kept_skip;
	return 0;
}

static long snapshots_compare_step(__u32 i, void *data)
{
	struct snapshots_compare_frame *frame = data;
	struct snapshots_compare *compare = frame->compare;
	__u64 asked = env_reload(compare->asked), kept = env_reload(compare->kept);

	if (asked >= compare->asked_end || kept >= compare->kept_end) {
		compare->equal = asked == compare->asked_end && kept == compare->kept_end;
		return 1;
	}
	env_opaque(asked);
	env_opaque(kept);
	if (asked > SNAPSHOTS_ASKED_MAX || kept > SNAPSHOTS_KEPT_MAX)
		return 1;
	if (compare->same)
		return snapshots_compare_word(compare, frame->asked + asked, frame->snapshots->bytes + kept) & 1;
	return snapshots_compare_header(compare, frame->asked + asked, frame->snapshots->bytes + kept) & 1;
}

/* Does the request's multibulk, len bytes, say another command than the head at place? If that is still there. */
env_noinline bool snapshots_differ(struct snapshots_compare *compare, const __u8 *asked, __u32 len,
				   const struct snapshot_ring *snapshots, __u32 place)
{
	struct snapshots_compare_frame frame = { .compare = compare, .asked = asked, .snapshots = snapshots };
	__u64 off = (place - 1) % SNAPSHOTS_RING;

	env_opaque(off);
	if (off >= SNAPSHOTS_RING)
		return true;
	__builtin_memset(compare, 0, sizeof(*compare));
	compare->asked_end = len;
	compare->kept = off + sizeof(struct argv_snapshot);
	compare->kept_end = compare->kept + ((const struct argv_snapshot *)(snapshots->bytes + off))->argv_len;
	env_loop(SNAPSHOTS_COMPARE_STEPS, snapshots_compare_step, &frame);
	return !env_reload(compare->equal);
}

#endif
