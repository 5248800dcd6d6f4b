/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Transactions: what is queued after MULTI, and the array that answers EXEC, whose elements answer what was queued. */
#ifndef REPLYLOG_BPF_CONN_TRANSACTION_H
#define REPLYLOG_BPF_CONN_TRANSACTION_H

#include "bpf/conn/execution.h"
#include "bpf/conn/piece.h"

/* The bit of struct session's scripts for the n-th command queued, from 0 on. */
static __always_inline __u64 script_bit(__u64 n)
{
	return 1ULL << (n < 63 ? n : 63);
}

/*
 * The header of EXEC's array. When each command since MULTI was queued, the n-th element answers the n-th of them.
 * Otherwise (a nested MULTI, or WATCH: they are refused, but the transaction goes on) EXEC is logged as a whole.
 */
static __always_inline bool exec_begins(struct connection *conn, struct work *work, __u64 n)
{
	struct session *session = &conn->session;

	conn->reply.exec_header = 0;
	if (!n || n != session->queued || n != conn->reply_seq - session->first_queued)
		return false;
	session->exec = conn->reply.reply;
	session->exec_left = n;
	session->exec_logged = 0;
	piece_begin(&conn->reply.reply, reply_position(conn, work));
	conn->reply.owed = 0;
	return true;
}

/* The current command was queued. What it does when EXEC runs it is not followed: that makes the connection vaguer. */
static __always_inline long transaction_queued(struct connection *conn, struct work *work, __u8 class)
{
	if (class == COMMAND_SCRIPTING)
		conn->session.scripts |= script_bit(conn->session.queued);
	conn->session.queued++;
	dispatch_queued(conn);
	if (class == COMMAND_SELECT || class == COMMAND_FOREIGN)
		conn->session.db = -1;
	if (class == COMMAND_HELLO)
		conn->session.resp = 0;
	if (command_identifies(class))
		identity_lost(conn, work);
	if (class == COMMAND_FOREIGN)
		conn->from_start = 0;
	if (class == COMMAND_FOREIGN || (auth_may_be_silent() && (class == COMMAND_AUTH || class == COMMAND_HELLO)))
		conn->session.risky = 1;
	return command_subscribes(class) ? reply_verdict(work, REPLY_DRAINS) : 0;
}

#endif
