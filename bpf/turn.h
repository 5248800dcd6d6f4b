/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The outstanding commands whose replies say what becomes of the connection: transactions, subscriptions, RESET, and
 * who the client says it is. The other replies below conn->plain_until are only counted.
 */
#ifndef REPLYLOG_TURN_H
#define REPLYLOG_TURN_H

#include "connection.h"

#define TURNS_NONE (~0ULL)

static __always_inline __u8 turns_outstanding(const struct connection *conn)
{
	return conn->turns_to - conn->turns_from;
}

static __always_inline bool turns_full(const struct connection *conn)
{
	return turns_outstanding(conn) >= TURNS;
}

/* The oldest one; only when there is one. */
static __always_inline struct turn *turn_oldest(struct connection *conn)
{
	return &conn->turn[conn->turns_from % TURNS];
}

/* The one that the reply at hand answers, or NULL when that answers a plain command. */
static __always_inline struct turn *turn_at_hand(struct connection *conn)
{
	struct turn *turn = turn_oldest(conn);

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
		conn->plain_until = conn->reply_seq + (__u32)(turn_oldest(conn)->seq - (__u32)conn->reply_seq);
}

/* The command at hand is one; turns_full() has been asked. */
static __always_inline void turn_add(struct connection *conn, __u8 class, __u32 number)
{
	struct turn *turn = &conn->turn[conn->turns_to % TURNS];

	turn->seq = conn->read_seq;
	turn->class = class;
	turn->number = number < TURN_NUMBER_MAX ? number : TURN_NUMBER_MAX;
	conn->turns_to++;
	if (command_subscribes(class))
		conn->subscriber = 1;
	turns_arm(conn);
}

static __always_inline void turns_forget(struct connection *conn)
{
	conn->turns_from = conn->turns_to = 0;
	conn->plain_until = TURNS_NONE;
}

#endif
