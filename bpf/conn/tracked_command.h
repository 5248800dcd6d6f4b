/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The outstanding commands whose replies say what becomes of the connection: transactions, subscriptions, RESET, and
 * who the client says it is. The other replies below conn->plain_until are only counted.
 */
#ifndef REPLYLOG_TURN_H
#define REPLYLOG_TURN_H

#include "bpf/conn/argv_log.h"

#define TURNS_NONE (~0ULL)

static __always_inline __u32 turns_outstanding(const struct connection *conn)
{
	return conn->turns_to - conn->turns_from;
}

/* The one that the reply at hand answers, or NULL when that answers a plain command. */
static __always_inline struct turn *turn_at_hand(struct connection *conn)
{
	struct turn *turn = &conn->next_turn;

	return turns_outstanding(conn) && turn->seq == (__u32)conn->reply_seq ? turn : NULL;
}

/* Sets plain_until: inside a transaction every reply is looked at, and so is the one that ends a doubt. */
static __always_inline void turns_arm(struct connection *conn)
{
	if (conn->talk.multi || conn->talk.doubtful)
		conn->plain_until = conn->reply_seq;
	else if (!turns_outstanding(conn))
		conn->plain_until = TURNS_NONE;
	else
		conn->plain_until = conn->reply_seq + (__u32)(conn->next_turn.seq - (__u32)conn->reply_seq);
}

static __always_inline __u32 turn_slot(__u32 n)
{
	return n / BLOCK_TURNS % TURN_BLOCKS;
}

/* Is turn n, which is outstanding, in a block? */
static __always_inline bool turn_is_paged(const struct connection *conn, __u32 n)
{
	return conn->turn_blocks && (__s32)(n - conn->turns_paged) >= 0;
}

/* Where turn n lies; NULL only for what the verifier can't know. */
static __always_inline struct turn *turn_place(struct connection *conn, __u32 n)
{
	struct argv_block *block;

	if (!turn_is_paged(conn, n))
		return &conn->turn[n % INLINE_TURNS];
	block = block_at(conn->turn_block[turn_slot(n)]);
	if (!block)
		return NULL;
	env_opaque(block); /* nothing is added to it before it is known not to be NULL */
	return (struct turn *)block + n % BLOCK_TURNS;
}

static __always_inline void turn_block_give(struct connection *conn, __u32 slot)
{
	slot %= TURN_BLOCKS;
	if (!(conn->turn_blocks >> slot & 1))
		return;
	conn->turn_blocks &= ~(1U << slot);
	block_give(conn->turn_block[slot]);
}

static long turn_blocks_step(__u32 slot, void *data)
{
	struct connection **conn = data;

	turn_block_give(*conn, slot);
	return 0;
}

/* No turn is outstanding any more. */
env_noinline void turn_blocks_give(struct connection *conn)
{
	env_loop(TURN_BLOCKS, turn_blocks_step, &conn); /* what a step is given must lie on the stack */
}

/* Sees to a place for one more turn. 0, or -1 when there is none. */
static __always_inline int turn_make_room(struct connection *conn)
{
	__u32 n = conn->turns_to, slot = turn_slot(n), index = 0;

	if (!conn->turn_blocks) {
		if (turns_outstanding(conn) < INLINE_TURNS)
			return 0;
		conn->turns_paged = n;
	}
	if (turns_outstanding(conn) >= TURNS_MAX)
		return -1;
	if (conn->turn_blocks >> slot & 1)
		return 0;
	if (block_take(&index))
		return -1;
	conn->turn_block[slot] = index;
	conn->turn_blocks |= 1U << slot;
	return 0;
}

/* The command at hand is one. 0, or -1 when there is no room for it. */
env_noinline int turn_add(struct connection *conn, __u8 class, __u32 number)
{
	struct turn turn = {
		.seq = conn->read_seq,
		.class = class,
		.number = number < TURN_NUMBER_MAX ? number : TURN_NUMBER_MAX,
	};
	struct turn *place;

	if (turn_make_room(conn))
		return -1;
	place = turn_place(conn, conn->turns_to);
	if (!place)
		return -1;
	*place = turn;
	if (!turns_outstanding(conn))
		conn->next_turn = turn;
	conn->turns_to++;
	if (command_subscribes(class))
		conn->subscriber = 1;
	turns_arm(conn);
	return 0;
}

/* The oldest one has its reply. */
env_noinline void turn_done(struct connection *conn)
{
	__u32 n = conn->turns_from++;
	const struct turn *next;

	if (!turns_outstanding(conn)) {
		if (conn->turn_blocks)
			turn_blocks_give(conn);
		return;
	}
	if (turn_is_paged(conn, n)) {
		conn->turns_paged = n + 1; /* never so far behind that it would seem to be ahead */
		if (turn_slot(n) != turn_slot(n + 1))
			turn_block_give(conn, turn_slot(n));
	}
	next = turn_place(conn, n + 1);
	if (next)
		conn->next_turn = *next;
}

static __always_inline void turns_forget(struct connection *conn)
{
	if (conn->turn_blocks)
		turn_blocks_give(conn);
	conn->turns_from = conn->turns_to = 0;
	conn->plain_until = TURNS_NONE;
}

#endif
