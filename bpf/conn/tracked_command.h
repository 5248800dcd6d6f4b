/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The outstanding commands whose replies say what becomes of the connection: transactions, subscriptions, RESET, and
 * who the client says it is. The other replies below conn->plain_until are only counted.
 */
#ifndef REPLYLOG_BPF_CONN_TRACKED_COMMAND_H
#define REPLYLOG_BPF_CONN_TRACKED_COMMAND_H

#include "bpf/conn/argv_log.h"

#define TRACKED_NONE (~0ULL)

static __always_inline __u32 tracked_outstanding(const struct connection *conn)
{
	return conn->tracked_to - conn->tracked_from;
}

/* The one that the current reply answers, or NULL when that answers a plain command. */
static __always_inline struct tracked_command *tracked_current(struct connection *conn)
{
	struct tracked_command *tracked = &conn->next_tracked;

	return tracked_outstanding(conn) && tracked->seq == (__u32)conn->reply_seq ? tracked : NULL;
}

/* Sets plain_until: inside a transaction every reply is looked at, and so is the one that ends a doubt. */
static __always_inline void tracked_arm(struct connection *conn)
{
	if (conn->session.multi || conn->session.doubtful)
		conn->plain_until = conn->reply_seq;
	else if (!tracked_outstanding(conn))
		conn->plain_until = TRACKED_NONE;
	else
		conn->plain_until = conn->reply_seq + (__u32)(conn->next_tracked.seq - (__u32)conn->reply_seq);
}

static __always_inline __u32 tracked_slot(__u32 n)
{
	return n / BLOCK_TRACKED % TRACKED_BLOCKS;
}

/* Is tracked command n, which is outstanding, in a block? */
static __always_inline bool tracked_is_paged(const struct connection *conn, __u32 n)
{
	return conn->tracked_blocks && (__s32)(n - conn->tracked_paged) >= 0;
}

/* Where tracked command n lies; NULL only for what the verifier can't know. */
static __always_inline struct tracked_command *tracked_at(struct connection *conn, __u32 n)
{
	struct argv_block *block;

	if (!tracked_is_paged(conn, n))
		return &conn->tracked[n % INLINE_TRACKED];
	block = block_at(conn->tracked_block[tracked_slot(n)]);
	if (!block)
		return NULL;
	env_opaque(block); /* nothing is added to it before it is known not to be NULL */
	return (struct tracked_command *)block + n % BLOCK_TRACKED;
}

static __always_inline void tracked_block_give(struct connection *conn, __u32 slot)
{
	slot %= TRACKED_BLOCKS;
	if (!(conn->tracked_blocks >> slot & 1))
		return;
	conn->tracked_blocks &= ~(1U << slot);
	block_give(conn->tracked_block[slot]);
}

static long tracked_blocks_step(__u32 slot, void *data)
{
	struct connection **conn = data;

	tracked_block_give(*conn, slot);
	return 0;
}

/* No tracked command is outstanding any more. */
env_noinline void tracked_blocks_give(struct connection *conn)
{
	env_loop(TRACKED_BLOCKS, tracked_blocks_step, &conn); /* what a step is given must lie on the stack */
}

/* Makes room for one more. 0, or -1 when there is none. */
static __always_inline int tracked_make_room(struct connection *conn)
{
	__u32 n = conn->tracked_to, slot = tracked_slot(n), index = 0;

	if (!conn->tracked_blocks) {
		if (tracked_outstanding(conn) < INLINE_TRACKED)
			return 0;
		conn->tracked_paged = n;
	}
	if (tracked_outstanding(conn) >= TRACKED_MAX)
		return -1;
	if (conn->tracked_blocks >> slot & 1)
		return 0;
	if (block_take(&index))
		return -1;
	conn->tracked_block[slot] = index;
	conn->tracked_blocks |= 1U << slot;
	return 0;
}

/* Tracks the current command. 0, or -1 when there is no room for it. */
env_noinline int tracked_add(struct connection *conn, __u8 class, __u32 number)
{
	struct tracked_command tracked = {
		.seq = conn->read_seq,
		.class = class,
		.number = number < TRACKED_NUMBER_MAX ? number : TRACKED_NUMBER_MAX,
	};
	struct tracked_command *place;

	if (tracked_make_room(conn))
		return -1;
	place = tracked_at(conn, conn->tracked_to);
	if (!place)
		return -1;
	*place = tracked;
	if (!tracked_outstanding(conn))
		conn->next_tracked = tracked;
	conn->tracked_to++;
	if (command_subscribes(class))
		conn->subscriber = 1;
	tracked_arm(conn);
	return 0;
}

/* The oldest one has its reply. */
env_noinline void tracked_done(struct connection *conn)
{
	__u32 n = conn->tracked_from++;
	const struct tracked_command *next;

	if (!tracked_outstanding(conn)) {
		if (conn->tracked_blocks)
			tracked_blocks_give(conn);
		return;
	}
	if (tracked_is_paged(conn, n)) {
		conn->tracked_paged = n + 1; /* kept close to n: the difference is compared with a sign */
		if (tracked_slot(n) != tracked_slot(n + 1))
			tracked_block_give(conn, tracked_slot(n));
	}
	next = tracked_at(conn, n + 1);
	if (next)
		conn->next_tracked = *next;
}

static __always_inline void tracked_forget(struct connection *conn)
{
	if (conn->tracked_blocks)
		tracked_blocks_give(conn);
	conn->tracked_from = conn->tracked_to = 0;
	conn->plain_until = TRACKED_NONE;
}

#endif
