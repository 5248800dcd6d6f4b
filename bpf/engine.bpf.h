/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The seam between taps and engine. A tap says: this connection, this direction, these bytes, this thread. Nothing
 * below here knows which tap spoke.
 */
#ifndef REPLYLOG_ENGINE_BPF_H
#define REPLYLOG_ENGINE_BPF_H

#include "emit.bpf.h"
#include "request.h"

/* This thread's scratch area and statistics. */
struct worker {
	struct scratch *scratch;
	struct thread_stats *stats;
};

static __always_inline void not_followed(struct worker *worker, __u64 bytes)
{
	worker->stats->unattributed_bytes += bytes;
}

/* Forgets all framing. What was outstanding can't be attributed any more. */
static __noinline void connection_unjoin(struct connection *conn)
{
	argv_release(conn, true);
	__builtin_memset(&conn->request, 0, sizeof(conn->request));
	__builtin_memset(&conn->reply, 0, sizeof(conn->reply));
	conn->reply.start = conn->written_bytes;
	conn->reply_seq = conn->read_seq;
	conn->mode = MODE_UNJOINED;
	conn->attribution = ATTRIBUTION_AMBIGUOUS;
}

/*
 * Is this a place to join a conversation that is older than we are? The bytes begin a command, and no output waits
 * (else the server would have a write handler). That is not proof (a blocked command may be outstanding), so what
 * follows is marked ambiguous.
 */
static __always_inline bool connection_join(struct connection *conn, __u64 addr, __u64 len)
{
	struct conn_client client;
	__u8 start[2];

	if (len < sizeof(start) || env_read_server(start, sizeof(start), addr))
		return false;
	if (start[0] != '*' || start[1] < '1' || start[1] > '9')
		return false;
	if (!connection_client(conn->server_conn, &client) || client.write_handler)
		return false;
	conn->mode = MODE_FOLLOWED;
	count_tally(TALLY_JOINED, 1);
	return true;
}

static __always_inline struct recent *connection_recent(struct worker *worker, __u64 server_conn)
{
	return &worker->scratch->recent[(server_conn >> 4 ^ server_conn >> 12) % RECENT];
}

static __noinline struct connection *connection_look_up(struct recent *recent, __u64 server_conn)
{
	__u32 *number = bpf_map_lookup_elem(&connection_numbers, &server_conn);

	if (!number)
		return NULL;
	if (recent) {
		recent->server_conn = server_conn;
		recent->number = *number;
	}
	return bpf_map_lookup_elem(&connections, number);
}

/* The connection, if it is known. */
static __always_inline struct connection *connection_find(struct worker *worker, __u64 server_conn)
{
	struct recent *recent = connection_recent(worker, server_conn);
	struct connection *conn;

	if (recent->server_conn == server_conn) {
		conn = bpf_map_lookup_elem(&connections, &recent->number);
		if (conn && conn->server_conn == server_conn)
			return conn;
	}
	return connection_look_up(recent, server_conn);
}

static __always_inline struct connection *connection_new(__u64 server_conn)
{
	struct connection *conn;
	__u32 number = 0;

	if (bpf_map_pop_elem(&free_connections, &number))
		return NULL;
	conn = bpf_map_lookup_elem(&connections, &number);
	if (!conn || bpf_map_update_elem(&connection_numbers, &server_conn, &number, BPF_NOEXIST)) {
		bpf_map_push_elem(&free_connections, &number, BPF_ANY);
		return NULL;
	}
	__builtin_memset(conn, 0, offsetof(struct connection, argv) + sizeof(conn->argv.page));
	conn->server_conn = server_conn;
	return conn;
}

static __always_inline void connection_forget(struct connection *conn)
{
	__u64 server_conn = conn->server_conn;
	__u32 *number = bpf_map_lookup_elem(&connection_numbers, &server_conn), freed;

	argv_release(conn, true);
	conn->server_conn = 0;
	if (!number)
		return;
	freed = *number;
	bpf_map_delete_elem(&connection_numbers, &server_conn);
	bpf_map_push_elem(&free_connections, &freed, BPF_ANY);
}

/* Cluster bus links open with this signature (clusterMsg in src/cluster_legacy.h of valkey 9.1). */
static __always_inline bool is_cluster_bus(__u64 addr, __u64 len)
{
	__u32 signature = 0;

	return len >= sizeof(signature) && !env_read_server(&signature, sizeof(signature), addr) &&
	       signature == WORD4('R', 'C', 'm', 'b');
}

/* A connection's first read that we see. */
static __always_inline struct connection *connection_open(__u64 server_conn, __u64 addr, __u64 len)
{
	struct connection *conn = connection_new(server_conn);
	struct sock *sk;

	if (!conn) {
		count_loss(LOSS_CLIENTS_FULL);
		return NULL;
	}
	sk = connection_sock(server_conn);
	if (!first_read(sk, len)) {
		conn->attribution = ATTRIBUTION_AMBIGUOUS;
	} else if (has_sent(sk) || is_cluster_bus(addr, len)) {
		/* Where the server spoke first, it is the client. */
		count_tally(TALLY_NOT_CLIENTS, 1);
		conn->mode = MODE_LEFT_OUT;
	} else {
		conn->mode = MODE_FOLLOWED;
	}
	return conn;
}

/* Bytes that can't be framed. A connection that was exact says so once and may be joined again. */
static __always_inline void connection_lost(struct connection *conn, enum loss loss)
{
	if (conn->mode == MODE_LEAVING) {
		argv_release(conn, true);
		conn->mode = MODE_LEFT_OUT;
		return;
	}
	if (loss == LOSS_UNREADABLE || (loss == LOSS_FRAMING && conn->attribution == ATTRIBUTION_EXACT))
		count_loss(loss);
	connection_unjoin(conn);
}

/*
 * A link that was joined in mid-conversation and only ever reads: what a replica gets from its primary. It would hold
 * on to argv for replies that never come.
 */
static __always_inline bool connection_is_one_way(const struct connection *conn)
{
	return conn->attribution == ATTRIBUTION_AMBIGUOUS && outstanding(conn) >= max_pipeline;
}

static __always_inline void connection_leave(struct connection *conn)
{
	count_tally(TALLY_NOT_CLIENTS, 1);
	conn->mode = MODE_LEAVING;
	conn->request.state = REQUEST_BOUNDARY; /* the half-read command needs no block any more */
}

static __always_inline void engine_read(struct worker *worker, __u64 server_conn, __u64 addr, __u64 len)
{
	struct connection *conn = connection_find(worker, server_conn);

	if (!conn)
		conn = connection_open(server_conn, addr, len);
	if (!conn || conn->mode >= MODE_LEAVING)
		return;
	if (conn->mode == MODE_UNJOINED && !connection_join(conn, addr, len))
		return;
	switch (request_frame(conn, &worker->scratch->work, addr, len, env_now())) {
	case REQUEST_OK:
		if (connection_is_one_way(conn))
			connection_leave(conn);
		break;
	case REQUEST_LEAVES:
		connection_leave(conn);
		break;
	case REQUEST_MALFORMED:
		connection_lost(conn, LOSS_FRAMING);
		break;
	case REQUEST_UNREADABLE:
		connection_lost(conn, LOSS_UNREADABLE);
		break;
	}
}

static __always_inline bool connection_followed(const struct connection *conn)
{
	return conn && (conn->mode == MODE_FOLLOWED || conn->mode == MODE_LEAVING);
}

static __always_inline void engine_written(struct connection *conn, enum reply_verdict verdict)
{
	switch (verdict) {
	case REPLY_OK:
		argv_after_write(conn);
		break;
	case REPLY_UNREADABLE:
		connection_lost(conn, LOSS_UNREADABLE);
		break;
	default:
		connection_lost(conn, LOSS_FRAMING);
	}
}

static __always_inline void engine_write(struct worker *worker, __u64 server_conn, __u64 addr, __u64 len)
{
	struct connection *conn = connection_find(worker, server_conn);

	if (!connection_followed(conn))
		return not_followed(worker, len);
	engine_written(conn, reply_frame_buffer(conn, &worker->scratch->work, addr, len));
}

static __always_inline void engine_writev(struct worker *worker, __u64 server_conn, __u64 iov, __u32 iovcnt, __u64 len)
{
	struct connection *conn = connection_find(worker, server_conn);

	if (!connection_followed(conn))
		return not_followed(worker, len);
	engine_written(conn, reply_frame_iovec(conn, &worker->scratch->work, iov, iovcnt, len));
}

/* A read or write of this connection, or its close, was not seen: its framing can't be relied on. */
static __noinline void engine_missed(__u64 server_conn, bool closed)
{
	struct connection *conn = connection_look_up(NULL, server_conn);

	count_loss(LOSS_NO_SCRATCH);
	if (!conn)
		return;
	if (closed)
		connection_forget(conn);
	else if (connection_followed(conn))
		connection_lost(conn, LOSS_NO_SCRATCH);
}

static __always_inline void engine_close(struct worker *worker, __u64 server_conn)
{
	struct connection *conn = connection_find(worker, server_conn);
	struct reply_end end;

	if (!conn)
		return;
	if (connection_followed(conn) && reply_cut_off(conn, env_now(), &end) && end.bytes >= threshold)
		reply_emit(conn, &worker->scratch->work, &end);
	connection_forget(conn);
}

#endif
