/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The ledger: each byte that the server writes to a client is attributed (to a reply or push that was framed),
 * unattributed, or left out because no client asked for it. Framing itself counts nothing: a connection's
 * positions say how much of its output is attributed when it is lost, left or closed, and only then that is added up.
 */
#ifndef REPLYLOG_BPF_ENGINE_LEDGER_BPF_H
#define REPLYLOG_BPF_ENGINE_LEDGER_BPF_H

#include "bpf/maps.bpf.h"
#include "bpf/server/conn_client.bpf.h"
#include "bpf/server/sock.bpf.h"
#include "bpf/conn/attribution.h"

/* From here on what is written to it is lost because of this, until it is joined again. */
static __always_inline void ledger_blame(struct connection *conn, enum loss loss, __u64 replies)
{
	conn->lost_as = 1 + loss;
	count_lost(loss, replies, 0);
}

/* Are bytes written to it left out (MONITOR, replication)? Not while it is followed. */
static __always_inline bool ledger_excludes(const struct connection *conn)
{
	return conn->mode != MODE_FOLLOWED &&
	       (conn->excluded_as == COMMAND_MONITOR || conn->excluded_as == COMMAND_REPLICATION);
}

/* Bytes of no reply and no push that was framed. */
static __always_inline void ledger_unattributed(const struct connection *conn, __u64 bytes)
{
	if (conn->lost_as)
		count_lost(conn->lost_as - 1, 0, bytes);
	else
		counter_add(ledger_excludes(conn) ? COUNTER_EXCLUDED_BYTES : COUNTER_UNATTRIBUTED_BYTES, bytes);
}

/* The output is attributed until there, and what follows is not. */
static __always_inline void ledger_settle(struct connection *conn, __u64 until)
{
	__u64 attributed = until - conn->settled, rest = conn->written_bytes - until;

	if (attributed)
		counter_add(COUNTER_ATTRIBUTED_BYTES, attributed);
	if (rest)
		ledger_unattributed(conn, rest);
	conn->settled = conn->written_bytes;
	conn->reply.reply.start = conn->written_bytes;
}

/* Bytes that the kernel has taken of it and that we have not seen; 0 where that is not known. */
static __always_inline __u32 ledger_unseen(const struct connection *conn)
{
	return conn->counted ? tcp_taken((struct sock *)conn->sk) - conn->write_base - (__u32)conn->written_bytes : 0;
}

/* Counts the bytes that were not seen as written. */
static __always_inline void ledger_catch_up(struct connection *conn)
{
	__u32 unseen = ledger_unseen(conn);

	if (!unseen)
		return;
	conn->written_bytes += unseen;
	counter_add(COUNTER_REPLY_BYTES, unseen);
}

/* Bytes were written, maybe more than these, by a call that is not followed up. */
static __always_inline void ledger_unnoticed(struct connection *conn, __u64 sent)
{
	counter_add(COUNTER_REPLY_BYTES, sent);
	conn->written_bytes += sent;
	ledger_catch_up(conn);
}

/* Bytes are written to a connection that is not followed. */
static __always_inline void ledger_passes(struct connection *conn, __u64 len)
{
	conn->written_bytes += len;
	ledger_catch_up(conn);
	ledger_settle(conn, conn->settled);
}

#endif
