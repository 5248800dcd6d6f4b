/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The seam between taps and engine. A tap says: this connection, this direction, these bytes, this thread. Which tap
 * spoke matters only when a connection is first seen.
 */
#ifndef REPLYLOG_BPF_ENGINE_ENGINE_BPF_H
#define REPLYLOG_BPF_ENGINE_ENGINE_BPF_H

#include "bpf/conn/request.h"
#include "bpf/engine/lifecycle.bpf.h"

/* The server's structs contradict us: in the connection's state, or in the number of replies. */
static __noinline void connection_contradicted(struct connection *conn, enum pairing pairing)
{
	if (pairing == PAIRING_OUT_OF_STEP)
		return connection_disproved(conn);
	debug_moves(conn, WHY_STATE_DIFFERS, connection_given_up(conn), 0);
	connection_give_up(conn);
}

static __always_inline void connection_check_pairing(struct connection *conn, __u64 addr)
{
	enum pairing pairing = pairing_check(conn, addr);

	if (pairing != PAIRING_GOES_ON)
		connection_contradicted(conn, pairing);
}

/* Bytes passed unseen before these len ones were read. */
static __noinline void engine_read_missed(struct connection *conn, __u64 len)
{
	debug_moves(conn, WHY_READ_MISSED, connection_given_up(conn), connection_unread(conn, len));
	connection_lost(conn, LOSS_MISSED);
}

/* The commands read are not followed by more that can be framed. */
static __noinline void engine_read_stops(struct connection *conn, struct work *work, __u32 verdict)
{
	switch (VERDICT_KIND(verdict)) {
	case REQUEST_DRAINS:
		connection_drain(conn, conn->request.class, WHY_DRAINING_COMMAND);
		break;
	case REQUEST_TOO_MANY_TRACKED:
		count_loss(LOSS_TURNS);
		ledger_blame(conn, LOSS_TURNS, 1);
		connection_drain(conn, COMMAND_OPAQUE, WHY_TRACKED);
		break;
	case REQUEST_UNREADABLE:
		debug_moves(conn, WHY_REQUEST_UNREADABLE, connection_given_up(conn), 0);
		connection_lost(conn, LOSS_UNREADABLE);
		break;
	default:
		connection_misframed(conn, work);
	}
}

/* Everything that was asked before it drained is answered. */
static __noinline void engine_read_drained(struct connection *conn)
{
	debug_moves(conn, WHY_DRAINED, connection_given_up(conn), 0);
	connection_drained(conn);
}

static __always_inline void engine_read(struct worker *worker, __u64 key, __u64 addr, __u64 len)
{
	struct connection *conn = connection_find(worker, key);
	__u32 verdict;

	if (!conn)
		conn = connection_add_at_read(worker, key, addr, len);
	if (!conn)
		return;
	if (conn->mode == MODE_ACCEPTED)
		connection_first_read(worker, conn, len);
	if (connection_followed(conn) && pairing_wants_proof(conn))
		connection_check_pairing(conn, addr);
	if (conn->mode == MODE_DRAINING && !outstanding(conn))
		engine_read_drained(conn);
	if (conn->mode >= MODE_DRAINING)
		return;
	if (conn->mode == MODE_UNJOINED) {
		if (!connection_join(conn, addr, len))
			return;
		if (worker->tap == TAP_SOCKET || conn->counted)
			connection_start_accounting(conn, len);
	}
	if (!connection_has_all_read(conn, len))
		return engine_read_missed(conn, len);
	/* Held records rely on the numbering so far: it stays while there are any. */
	if (probe_dispatch && argv_idle(conn) && !conn->held)
		dispatch_align(conn);
	verdict = request_frame(conn, &worker->scratch->work, addr, len, env_now());
	pairing_after_read(conn);
	if (verdict != REQUEST_OK)
		engine_read_stops(conn, &worker->scratch->work, verdict);
	else if (connection_is_one_way(conn))
		connection_drain(conn, COMMAND_REPLICATION, WHY_ONE_WAY);
}

static __always_inline enum debug_why why_stopped(enum reply_verdict verdict)
{
	switch (verdict) {
	case REPLY_DRAINS:
		return WHY_QUEUED_SUBSCRIBE;
	case REPLY_UNREADABLE:
		return WHY_REPLY_UNREADABLE;
	case REPLY_UNASKED:
		return WHY_REPLY_UNASKED;
	case REPLY_MISFIT:
		return WHY_REPLY_MISFIT;
	case REPLY_DOUBTFUL:
		return WHY_REPLY_DOUBTFUL;
	default:
		return WHY_REPLY_REFUSED;
	}
}

/* The replies written are not followed by more that can be attributed. */
static __noinline void engine_written_stops(struct connection *conn, struct work *work, __u32 verdict)
{
	debug_stops(conn, work, why_stopped(VERDICT_KIND(verdict)), connection_given_up(conn), conn->written_bytes);
	switch (VERDICT_KIND(verdict)) {
	case REPLY_DRAINS:
		connection_unjoin(conn);
		break;
	case REPLY_UNREADABLE:
		connection_lost(conn, LOSS_UNREADABLE);
		break;
	case REPLY_UNASKED:
	case REPLY_MISFIT:
		connection_out_of_step(conn);
		break;
	default:
		connection_lost(conn, LOSS_FRAMING);
	}
}

static __always_inline void engine_written(struct connection *conn, struct work *work, __u32 verdict)
{
	if (verdict == REPLY_OK)
		argv_after_write(conn);
	else
		engine_written_stops(conn, work, verdict);
}

/* Bytes that are written to a connection that is not followed, or not known yet. */
static __noinline void engine_written_unfollowed(struct worker *worker, struct connection *conn, __u64 key, __u64 addr,
						 __u64 len)
{
	struct ends ends = {};

	if (conn ? conn->mode == MODE_PASSED_OVER : !connection_find_ends(worker, key, addr, len, &ends))
		return;
	worker->stats->reply_bytes += len;
	if (!conn)
		conn = connection_add_at_write(key, &ends, len);
	if (!conn)
		return;
	if (conn->mode == MODE_UNJOINED)
		connection_classify(conn, addr, len);
	ledger_passes(conn, len);
}

/* Bytes passed unseen before these len ones were written. */
static __noinline void engine_written_missed(struct connection *conn, __u64 len)
{
	conn->written_bytes += len;
	debug_moves(conn, WHY_WRITE_MISSED, connection_given_up(conn), ledger_unseen(conn));
	connection_lost(conn, LOSS_MISSED);
}

static __always_inline void engine_write(struct worker *worker, __u64 key, __u64 addr, __u64 len)
{
	struct connection *conn = connection_find(worker, key);

	if (!connection_followed(conn))
		return engine_written_unfollowed(worker, conn, key, addr, len);
	worker->stats->reply_bytes += len;
	if (!connection_has_all_written(conn, len))
		return engine_written_missed(conn, len);
	engine_written(conn, &worker->scratch->work, reply_frame_buffer(conn, &worker->scratch->work, addr, len));
}

static __always_inline void engine_writev(struct worker *worker, __u64 key, __u64 iov, __u32 iovcnt, __u64 len)
{
	struct connection *conn = connection_find(worker, key);

	if (!connection_followed(conn))
		return engine_written_unfollowed(worker, conn, key, 0, len);
	worker->stats->reply_bytes += len;
	if (!connection_has_all_written(conn, len))
		return engine_written_missed(conn, len);
	engine_written(conn, &worker->scratch->work, reply_frame_iovec(conn, &worker->scratch->work, iov, iovcnt, len));
}

/* The server just accepted this connection for a client. */
static __always_inline void engine_accepted(struct worker *worker, __u64 key, __u64 server_conn)
{
	/*
	 * Where accepting takes several calls the key is known from the one before, and nothing was read yet. Without room
	 * for it, its reads will be counted.
	 */
	struct connection *conn = connection_begin(worker, key);

	if (!conn)
		return;
	conn->server_conn = server_conn;
	connection_watch(conn);
	conn->mode = MODE_ACCEPTED;
	debug_notes(conn, WHY_ACCEPTED);
}

/*
 * A read or write of this connection, or its close, was not seen: its framing can't be relied on. sent: bytes written,
 * when they are known.
 */
static __noinline void engine_missed(__u64 key, bool closed, __u64 sent)
{
	struct connection *conn = connection_look_up(NULL, key);

	count_loss(LOSS_NO_SCRATCH);
	if (!conn)
		return;
	if (connection_matters(conn) && connection_owes(conn))
		ledger_blame(conn, LOSS_NO_SCRATCH, outstanding(conn));
	if (conn->mode != MODE_PASSED_OVER)
		ledger_unnoticed(conn, sent);
	if (closed) {
		connection_forget(conn, WHY_THREAD_NO_ROOM);
	} else if (connection_matters(conn)) {
		debug_moves(conn, WHY_THREAD_NO_ROOM, connection_given_up(conn), 0);
		connection_give_up(conn);
	} else {
		ledger_settle(conn, conn->settled);
	}
}

/* Bytes passed in a call that we know nothing of: if we follow the connection, it is lost. */
static __always_inline void engine_unknown_call(struct worker *worker, __u64 key, __u64 sent)
{
	struct connection *conn = connection_find(worker, key);

	if (!conn || conn->mode == MODE_PASSED_OVER)
		return;
	worker->stats->reply_bytes += sent;
	if (!connection_matters(conn))
		return ledger_passes(conn, sent);
	conn->written_bytes += sent;
	debug_moves(conn, WHY_UNKNOWN_CALL, connection_given_up(conn), sent);
	connection_lost(conn, LOSS_FRAMING);
}

static __always_inline void engine_close(struct worker *worker, __u64 key)
{
	struct connection *conn = connection_find(worker, key);

	if (!conn)
		return;
	if (ledger_unseen(conn) > FIN_BYTES)
		connection_closed_unseen(conn);
	if (connection_followed(conn)) {
		connection_abort(conn, &worker->scratch->work);
		pairing_closes(conn);
	}
	connection_forget(conn, WHY_CLOSED);
}

#endif
