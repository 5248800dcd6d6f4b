/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The seam between taps and engine. A tap says: this connection, this direction, these bytes, this thread. Which tap
 * spoke matters only when a connection is met.
 */
#ifndef REPLYLOG_BPF_ENGINE_ENGINE_BPF_H
#define REPLYLOG_BPF_ENGINE_ENGINE_BPF_H

#include "bpf/server/syscall_conn.bpf.h"
#include "bpf/server/conn_type.bpf.h"
#include "bpf/engine/emit.bpf.h"
#include "bpf/server/join.bpf.h"
#include "bpf/engine/ledger.bpf.h"
#include "bpf/engine/pairing.bpf.h"
#include "bpf/conn/request.h"

/* What a tap calls a connection by: its key. */
enum tap {
	TAP_CONNECTION, /* the address of the server's struct connection */
	TAP_SOCKET,     /* the address of the kernel's struct sock */
};

/* This thread's scratch area and statistics, and who speaks. */
struct worker {
	struct scratch *scratch;
	struct thread_stats *stats;
	enum tap tap;
};

static __always_inline enum counter counter_of(__u8 class)
{
	switch (class) {
	case COMMAND_MONITOR:
		return COUNTER_MONITORS;
	case COMMAND_REPLICATION:
		return COUNTER_REPLICATION;
	case COMMAND_REPLY_MODE:
		return COUNTER_SILENCED;
	}
	return COUNTER_OTHERS;
}

/* Begins a session at the output's position, with nothing outstanding. */
static __always_inline void connection_reset(struct connection *conn)
{
	__builtin_memset(&conn->request, 0, sizeof(conn->request));
	__builtin_memset(&conn->reply, 0, sizeof(conn->reply));
	__builtin_memset(&conn->session, 0, sizeof(conn->session));
	conn->settled = conn->reply.reply.start = conn->written_bytes;
	conn->reply_seq = conn->read_seq;
	conn->subscriber = 0;
	conn->dispatch_known = DISPATCH_UNKNOWN;
	tracked_forget(conn);
}

/* Gives back all blocks of the pool. */
static __always_inline void connection_give_blocks(struct connection *conn)
{
	argv_release(conn, true);
	tracked_forget(conn);
}

/* Forgets all framing. What was outstanding can't be attributed any more. */
static __noinline void connection_unjoin(struct connection *conn)
{
	pairing_ends(conn, ATTRIBUTION_AMBIGUOUS);
	connection_give_blocks(conn);
	ledger_settle(conn, attribution_complete_until(conn));
	connection_reset(conn);
	conn->session.db = -1;
	conn->from_start = 0;
	conn->mode = MODE_UNJOINED;
	conn->attribution = ATTRIBUTION_AMBIGUOUS;
	counter_add(COUNTER_UNJOINED, 1);
}

/* What it is told from now on is no reply. It is counted once, whether it said so itself or the server's structs do. */
static __always_inline void connection_exclude(struct connection *conn, enum counter why)
{
	if (counter_of(conn->excluded_as) != why)
		counter_add(why, 1);
	conn->excluded_as = why == COUNTER_MONITORS ? COMMAND_MONITOR : COMMAND_REPLICATION;
	conn->mode = MODE_EXCLUDED;
}

/*
 * A link of the cluster bus points back like a client, but is read by another function. Where that is not known: its
 * messages begin with this signature (clusterMsg in valkey 9.1 src/cluster_legacy.h), and each is read from its beginning
 * (clusterReadHandler()). A client may send it, too, so that alone proves nothing where there is no cluster.
 */
static __always_inline bool is_cluster_bus(const struct conn_client *client, __u64 addr, __u64 len)
{
	__u32 signature = 0;

	if (cluster_read)
		return client->read_handler == cluster_read;
	return !not_in_cluster && len >= sizeof(signature) && !env_read_server(&signature, sizeof(signature), addr) &&
	       signature == WORD4('R', 'C', 'm', 'b');
}

/* At least it looks like the beginning of a command. */
static __always_inline bool begins_command(__u64 addr, __u64 len)
{
	__u8 start[2];

	return len >= sizeof(start) && !env_read_server(start, sizeof(start), addr) && start[0] == '*' && start[1] >= '1' &&
	       start[1] <= '9';
}

/* What an older connection is for that is not a client's, COUNTERS when that can't be told. */
static __always_inline enum counter connection_purpose(const struct conn_client *client, __u64 addr, __u64 len)
{
	if (is_cluster_bus(client, addr, len))
		return COUNTER_CLUSTER_LINKS;
	return client_layout.valid ? join_excludes(client) : COUNTERS;
}

/*
 * Is this a place to join? Without a layout: where a command seems to begin and no output waits (else the server would
 * have a write handler). That is no proof (a blocked command may be outstanding), so what follows is ambiguous.
 */
static __always_inline bool connection_join(struct connection *conn, __u64 addr, __u64 len)
{
	struct conn_client client;
	enum counter why;

	connection_client(conn->server_conn, &client);
	why = connection_purpose(&client, addr, len);
	if (why != COUNTERS) {
		counter_add(COUNTER_UNJOINED, -1);
		connection_exclude(conn, why);
		return false;
	}
	if (client_layout.valid) {
		if (!join_is_proven(&client, addr))
			return false;
		conn->attribution = ATTRIBUTION_EXACT;
	} else if (!client.at || client.write_handler || !begins_command(addr, len)) {
		return false;
	}
	ledger_passes(conn, 0);
	conn->mode = MODE_FOLLOWED;
	conn->lost_as = 0;
	counter_add(COUNTER_JOINED, 1);
	counter_add(COUNTER_UNJOINED, -1);
	return true;
}

static __always_inline struct recent *connection_recent(struct worker *worker, __u64 key)
{
	return &worker->scratch->recent[(key >> 4 ^ key >> 12) % RECENT];
}

static __noinline struct connection *connection_look_up(struct recent *recent, __u64 key)
{
	__u32 *number = bpf_map_lookup_elem(&connection_numbers, &key);
	struct connection *conn = number ? bpf_map_lookup_elem(&connections, number) : NULL;

	if (!conn || conn->key != key)
		return NULL;
	if (recent) {
		recent->key = key;
		recent->number = *number;
	}
	return conn;
}

/* The connection, if it is known. */
static __always_inline struct connection *connection_find(struct worker *worker, __u64 key)
{
	struct recent *recent = connection_recent(worker, key);
	struct connection *conn;

	if (recent->key == key) {
		conn = bpf_map_lookup_elem(&connections, &recent->number);
		if (conn && conn->key == key)
			return conn;
	}
	return connection_look_up(recent, key);
}

static __always_inline struct connection *connection_new(__u64 key)
{
	struct connection *conn;
	__u32 number = 0, generation;

	if (bpf_map_pop_elem(&free_connections, &number))
		return NULL;
	conn = bpf_map_lookup_elem(&connections, &number);
	if (!conn || bpf_map_update_elem(&connection_numbers, &key, &number, BPF_NOEXIST)) {
		bpf_map_push_elem(&free_connections, &number, BPF_ANY);
		return NULL;
	}
	generation = conn->id.generation + 1;
	__builtin_memset(conn, 0, offsetof(struct connection, argv) + sizeof(conn->argv.page));
	__builtin_memset(&conn->id, 0, sizeof(conn->id));
	conn->excluded_as = conn->lost_as = 0;
	conn->id.number = number;
	conn->id.generation = generation;
	conn->key = key;
	conn->server_conn = conn->client_at = 0;
	connection_reset(conn);
	return conn;
}

/* Its commands are executed for this struct connection of the server's. Without room they are not timed. */
static __always_inline void connection_watch(const struct connection *conn)
{
	if (probe_dispatch && conn->server_conn)
		bpf_map_update_elem(&dispatch_numbers, &conn->server_conn, &conn->id.number, BPF_ANY);
}

static __always_inline void connection_unwatch(const struct connection *conn)
{
	if (probe_dispatch && conn->server_conn)
		bpf_map_delete_elem(&dispatch_numbers, &conn->server_conn);
}

static __always_inline void connection_forget(struct connection *conn)
{
	__u64 key = conn->key;
	__u32 *number = bpf_map_lookup_elem(&connection_numbers, &key), freed;

	pairing_ends(conn, ATTRIBUTION_AMBIGUOUS);
	connection_give_blocks(conn);
	ledger_settle(conn, attribution_complete_until(conn));
	connection_unwatch(conn);
	conn->key = 0;
	if (!number)
		return;
	freed = *number;
	bpf_map_delete_elem(&connection_numbers, &key);
	bpf_map_push_elem(&free_connections, &freed, BPF_ANY);
}

/* Who is at both ends: the server's struct connection (0 when it can't be told) and the kernel's socket. */
struct ends {
	__u64 server_conn;
	struct sock *sk;
};

static __always_inline void connection_ends(struct worker *worker, __u64 key, struct ends *ends)
{
	if (worker->tap == TAP_CONNECTION) {
		ends->server_conn = key;
		ends->sk = connection_sock(key);
	} else {
		ends->server_conn = syscall_connection(&worker->scratch->work);
		ends->sk = (struct sock *)key;
	}
}

/* Notes who is there. Its struct client must exist: it is made before the first read. */
static __always_inline void connection_identify(struct connection *conn, const struct ends *ends)
{
	struct conn_client client;

	connection_client(ends->server_conn, &client);
	conn->server_conn = ends->server_conn;
	connection_watch(conn);
	conn->sk = (__u64)ends->sk;
	conn->client_at = client.at;
	conn->id.client_id = client.id;
	sock_address(ends->sk, &conn->id);
}

/* A connection whose beginning we don't know, in whatever state it is. */
static __always_inline void connection_mark_midstream(struct connection *conn, const struct ends *ends)
{
	connection_identify(conn, ends);
	connection_unjoin(conn);
}

static __always_inline struct connection *connection_add_midstream(__u64 key, const struct ends *ends)
{
	struct connection *conn = connection_new(key);

	if (conn)
		connection_mark_midstream(conn, ends);
	return conn;
}

/*
 * From here on every read and write of a TCP socket is checked against the kernel's own counters, so that none is
 * missed unnoticed. Of len bytes of a read that are counted by the kernel already, but not by us yet. Not for TLS,
 * whose plain text they don't count: its first read never has as many bytes as the socket had received.
 */
static __always_inline void connection_start_accounting(struct connection *conn, __u64 len)
{
	struct sock *sk = (struct sock *)conn->sk;

	conn->counted = is_tcp(sk);
	if (!conn->counted)
		return;
	conn->read_base = tcp_handed(sk) - tcp_fin(sk) - (__u32)(conn->read_bytes + len);
	conn->write_base = tcp_taken(sk) - (__u32)conn->written_bytes;
}

/* What begins here is followed from its start. */
static __always_inline void connection_follow(struct connection *conn)
{
	conn->mode = MODE_FOLLOWED;
	conn->attribution = ATTRIBUTION_EXACT;
	conn->from_start = 1;
	conn->session.db = 0;
}

/* These bytes are seen elsewhere in plain text: this connection is to be passed over. */
static __always_inline void connection_pass_over(struct worker *worker, __u64 key)
{
	struct connection *conn = connection_find(worker, key);

	if (conn)
		connection_forget(conn);
	conn = connection_new(key);
	if (conn)
		conn->mode = MODE_PASSED_OVER;
}

/* TLS records begin with their type (20 to 24) and version 3 (RFC 8446, 5.1). */
static __always_inline bool is_tls_record(__u64 addr, __u64 len)
{
	__u8 start[2];

	return len >= sizeof(start) && !env_read_server(start, sizeof(start), addr) && start[0] >= 20 && start[0] <= 24 &&
	       start[1] == 3;
}

/*
 * Does the socket tap see an older connection here whose plain text the connection tap sees? The bytes alone don't tell:
 * a client may send what it likes, and what we see first of it may be from the middle of a value.
 */
static __always_inline bool connection_is_tls(const struct worker *worker, const struct ends *ends, __u64 addr, __u64 len)
{
	return worker->tap == TAP_SOCKET && is_tls_record(addr, len) &&
	       !(ends->server_conn && conn_is_plain(ends->server_conn));
}

/* Who is at the ends of a connection that we don't know yet. False: it is passed over. */
static __always_inline bool connection_find_ends(struct worker *worker, __u64 key, __u64 addr, __u64 len, struct ends *ends)
{
	connection_ends(worker, key, ends);
	if (!connection_is_tls(worker, ends, addr, len))
		return true;
	connection_pass_over(worker, key);
	return false;
}

/* The first read of a connection that was not seen being accepted. */
static __noinline struct connection *connection_add_at_read(struct worker *worker, __u64 key, __u64 addr, __u64 len)
{
	struct conn_client client;
	struct connection *conn;
	struct ends ends;

	if (!connection_find_ends(worker, key, addr, len, &ends))
		return NULL;
	if (!ends.server_conn) /* a socket of another kind: a module's, Sentinel's, a file transfer */
		return NULL;
	conn = connection_add_midstream(key, &ends);
	if (!conn)
		count_loss(LOSS_CLIENTS_FULL);
	if (!conn || !first_read(ends.sk, len))
		return conn;
	connection_start_accounting(conn, len);
	counter_add(COUNTER_UNJOINED, -1);
	connection_client(ends.server_conn, &client);
	if (is_cluster_bus(&client, addr, len))
		connection_exclude(conn, COUNTER_CLUSTER_LINKS);
	else if (has_sent(ends.sk)) /* where the server spoke first, it is the client */
		connection_exclude(conn, COUNTER_OUTGOING);
	else
		connection_follow(conn);
	return conn;
}

/* The ends of a connection that was seen being accepted; to the connection tap its key is the server's struct itself. */
static __always_inline void connection_accepted_ends(const struct connection *conn, struct ends *ends)
{
	ends->server_conn = conn->server_conn;
	ends->sk = conn->key == conn->server_conn ? connection_sock(conn->server_conn) : (struct sock *)conn->key;
}

/* What was read of it first was not seen. */
static __noinline void connection_mark_begun_unseen(struct connection *conn)
{
	struct ends ends;

	connection_accepted_ends(conn, &ends);
	connection_mark_midstream(conn, &ends);
}

/*
 * The first read that we see of a connection that was. Of plain TCP it must be the first that there was; other sockets
 * don't tell.
 */
static __noinline void connection_first_read(struct worker *worker, struct connection *conn, __u64 len)
{
	struct ends ends;
	bool first;

	connection_accepted_ends(conn, &ends);
	first = first_read(ends.sk, len);
	if (worker->tap == TAP_SOCKET && !first && is_tcp(ends.sk)) {
		count_loss(LOSS_MISSED);
		return connection_mark_midstream(conn, &ends);
	}
	connection_identify(conn, &ends);
	if (worker->tap == TAP_SOCKET || first)
		connection_start_accounting(conn, len);
	connection_follow(conn);
}

/*
 * All that was asked before it left is answered. It is joined again when it is proven that it talks as others do: what
 * would have made it a MONITOR may have been refused.
 */
static __always_inline void connection_drained(struct connection *conn)
{
	if (client_layout.valid)
		return connection_unjoin(conn);
	pairing_ends(conn, ATTRIBUTION_AMBIGUOUS);
	connection_give_blocks(conn);
	ledger_settle(conn, attribution_complete_until(conn));
	conn->mode = MODE_EXCLUDED;
}

static __always_inline bool connection_followed(const struct connection *conn)
{
	return conn && (conn->mode == MODE_FOLLOWED || conn->mode == MODE_DRAINING);
}

/* Is anything still to be written that could be attributed? When a connection leaves, what comes after that is no reply. */
static __always_inline bool connection_owes(const struct connection *conn)
{
	return conn->mode != MODE_DRAINING || outstanding(conn) || conn->reply.owed;
}

/* What was awaited can't be attributed any more. The connection may be joined again. */
static __always_inline void connection_give_up(struct connection *conn)
{
	if (conn->mode == MODE_DRAINING)
		return connection_drained(conn);
	if (conn->mode == MODE_ACCEPTED)
		return connection_mark_begun_unseen(conn);
	connection_unjoin(conn);
}

/* Bytes that can't be framed, or were not seen. */
static __always_inline void connection_lost(struct connection *conn, enum loss loss)
{
	ledger_catch_up(conn);
	if (connection_owes(conn)) {
		count_loss(loss);
		ledger_blame(conn, loss, outstanding(conn));
	}
	connection_give_up(conn);
}

/* Replies and commands are out of step. What comes now is nobody's until the connection is joined again. */
static __always_inline void connection_out_of_step(struct connection *conn)
{
	ledger_catch_up(conn);
	if (connection_owes(conn)) {
		pairing_out_of_step(conn);
		ledger_blame(conn, LOSS_OUT_OF_STEP, outstanding(conn));
	}
	connection_give_up(conn);
}

/*
 * A link that was joined in mid-conversation and only ever reads: what a replica gets from its primary. It would hold
 * on to argv for replies that never come.
 */
static __always_inline bool connection_is_one_way(const struct connection *conn)
{
	return conn->attribution == ATTRIBUTION_AMBIGUOUS && outstanding(conn) >= max_pipeline;
}

/* A replica's link says several times what it is (REPLCONF, PSYNC), and is one. */
static __always_inline void connection_drain(struct connection *conn, __u8 class)
{
	if (class != COMMAND_REPLICATION || conn->excluded_as != class)
		counter_add(counter_of(class), 1);
	conn->excluded_as = class;
	conn->mode = MODE_DRAINING;
	conn->request.state = REQUEST_BOUNDARY; /* the half-read command needs no block any more */
}

/* The server refuses such a request, too, and closes. What was read before it still gets its replies. */
static __always_inline void connection_misframed(struct connection *conn)
{
	if (conn->attribution == ATTRIBUTION_AMBIGUOUS)
		return connection_lost(conn, LOSS_FRAMING);
	count_loss(LOSS_FRAMING);
	ledger_blame(conn, LOSS_FRAMING, 0);
	conn->excluded_as = COMMAND_OPAQUE;
	conn->mode = MODE_DRAINING;
	conn->request.state = REQUEST_BOUNDARY;
}

/* The kernel has counted more than these len bytes of a read: the input's end, or a byte of urgent data? */
static __noinline bool connection_has_no_more(struct connection *conn, __u64 len, __u32 more)
{
	struct sock *sk = (struct sock *)conn->sk;
	__u32 fin = tcp_fin(sk);

	if (more == fin)
		return true;
	if (more != fin + 1 || !tcp_passed_urgent(sk, len, fin))
		return false;
	conn->read_base++;
	return true;
}

/* Is what the kernel has handed to the server, these len bytes included, all that we have seen? */
static __always_inline bool connection_has_all_read(struct connection *conn, __u64 len)
{
	__u32 more;

	if (!conn->counted)
		return true;
	more = tcp_handed((struct sock *)conn->sk) - conn->read_base - (__u32)(conn->read_bytes + len);
	return !more || connection_has_no_more(conn, len, more);
}

/* Is what the kernel has taken from the server, these len bytes included, all that we have seen? */
static __always_inline bool connection_has_all_written(const struct connection *conn, __u64 len)
{
	return !conn->counted || tcp_taken((struct sock *)conn->sk) == conn->write_base + (__u32)(conn->written_bytes + len);
}

/* The server has answered and written everything, and we have not seen all of it. */
static __always_inline void connection_disproved(struct connection *conn)
{
	if (connection_has_all_written(conn, 0))
		connection_out_of_step(conn);
	else
		connection_lost(conn, LOSS_MISSED);
}

static __always_inline void connection_check_pairing(struct connection *conn, __u64 addr)
{
	switch (pairing_check(conn, addr)) {
	case PAIRING_UNKNOWN:
		connection_give_up(conn);
		break;
	case PAIRING_OUT_OF_STEP:
		connection_disproved(conn);
		break;
	default:
		break;
	}
}

static __always_inline void engine_read(struct worker *worker, __u64 key, __u64 addr, __u64 len)
{
	struct connection *conn = connection_find(worker, key);
	enum request_verdict verdict;

	if (!conn)
		conn = connection_add_at_read(worker, key, addr, len);
	if (!conn)
		return;
	if (conn->mode == MODE_ACCEPTED)
		connection_first_read(worker, conn, len);
	if (connection_followed(conn) && pairing_wants_proof(conn))
		connection_check_pairing(conn, addr);
	if (conn->mode == MODE_DRAINING && !outstanding(conn))
		connection_drained(conn);
	if (conn->mode >= MODE_DRAINING)
		return;
	if (conn->mode == MODE_UNJOINED) {
		if (!connection_join(conn, addr, len))
			return;
		if (worker->tap == TAP_SOCKET || conn->counted)
			connection_start_accounting(conn, len);
	}
	if (!connection_has_all_read(conn, len))
		return connection_lost(conn, LOSS_MISSED);
	/* Records that wait stand on the numbers so far. */
	if (probe_dispatch && argv_idle(conn) && !conn->held)
		dispatch_align(conn);
	verdict = request_frame(conn, &worker->scratch->work, addr, len, env_now());
	pairing_after_read(conn);
	switch (verdict) {
	case REQUEST_OK:
		if (connection_is_one_way(conn))
			connection_drain(conn, COMMAND_REPLICATION);
		break;
	case REQUEST_DRAINS:
		connection_drain(conn, conn->request.class);
		break;
	case REQUEST_TOO_MANY_TRACKED:
		count_loss(LOSS_TURNS);
		ledger_blame(conn, LOSS_TURNS, 1);
		connection_drain(conn, COMMAND_OPAQUE);
		break;
	case REQUEST_MALFORMED:
		connection_misframed(conn);
		break;
	case REQUEST_UNREADABLE:
		connection_lost(conn, LOSS_UNREADABLE);
		break;
	}
}

/* Is anything of it missed when a call is? */
static __always_inline bool connection_matters(const struct connection *conn)
{
	return connection_followed(conn) || (conn && conn->mode == MODE_ACCEPTED);
}

static __always_inline void engine_written(struct connection *conn, enum reply_verdict verdict)
{
	switch (verdict) {
	case REPLY_OK:
		argv_after_write(conn);
		break;
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

/* An older connection, on what is written to it first: who never asks is only met like that. */
static __always_inline struct connection *connection_add_at_write(__u64 key, const struct ends *ends, __u64 len)
{
	struct connection *conn;
	struct conn_client client;

	/* It may be no client's at all: a module's, Sentinel's; one that is refused, before there is a client. */
	if (!ends->server_conn || !connection_client(ends->server_conn, &client)) {
		counter_add(COUNTER_UNATTRIBUTED_BYTES, len);
		return NULL;
	}
	conn = connection_add_midstream(key, ends);
	if (!conn)
		count_lost(LOSS_CLIENTS_FULL, 0, len);
	return conn;
}

/* Is it for something that is not a client's? Then it is left out. */
static __always_inline void connection_classify(struct connection *conn, __u64 addr, __u64 len)
{
	struct conn_client client;
	enum counter why;

	connection_client(conn->server_conn, &client);
	why = connection_purpose(&client, addr, len);
	if (why == COUNTERS)
		return;
	counter_add(COUNTER_UNJOINED, -1);
	connection_exclude(conn, why);
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
static __always_inline void engine_written_missed(struct connection *conn, __u64 len)
{
	conn->written_bytes += len;
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
	engine_written(conn, reply_frame_buffer(conn, &worker->scratch->work, addr, len));
}

static __always_inline void engine_writev(struct worker *worker, __u64 key, __u64 iov, __u32 iovcnt, __u64 len)
{
	struct connection *conn = connection_find(worker, key);

	if (!connection_followed(conn))
		return engine_written_unfollowed(worker, conn, key, 0, len);
	worker->stats->reply_bytes += len;
	if (!connection_has_all_written(conn, len))
		return engine_written_missed(conn, len);
	engine_written(conn, reply_frame_iovec(conn, &worker->scratch->work, iov, iovcnt, len));
}

/* The server just accepted this connection for a client. */
static __always_inline void engine_accepted(struct worker *worker, __u64 key, __u64 server_conn)
{
	struct connection *conn = connection_find(worker, key);

	/* Its memory was another one's, whose close was missed; or accepting took several calls. Nothing was read yet. */
	if (conn)
		connection_forget(conn);
	/* Without room for it, its reads will be counted. */
	conn = connection_new(key);
	if (!conn)
		return;
	conn->server_conn = server_conn;
	connection_watch(conn);
	conn->mode = MODE_ACCEPTED;
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
	if (closed)
		connection_forget(conn);
	else if (connection_matters(conn))
		connection_give_up(conn);
	else
		ledger_settle(conn, conn->settled);
}

/* The client goes, or the server lets it go: what it was waiting for is logged, or at least counted. */
static __always_inline void connection_abort(struct connection *conn, struct work *work)
{
	__u64 unanswered = outstanding(conn), until = attribution_cut_at(conn);

	if (attribution_closes(conn, work))
		unanswered--;
	ledger_settle(conn, until);
	if (unanswered)
		counter_add(COUNTER_UNANSWERED, unanswered);
}

/* Bytes passed in a call that we know nothing of: the connection is nobody's that we follow, or it is lost. */
static __always_inline void engine_unknown_call(struct worker *worker, __u64 key, __u64 sent)
{
	struct connection *conn = connection_find(worker, key);

	if (!conn || conn->mode == MODE_PASSED_OVER)
		return;
	worker->stats->reply_bytes += sent;
	if (!connection_matters(conn))
		return ledger_passes(conn, sent);
	conn->written_bytes += sent;
	connection_lost(conn, LOSS_FRAMING);
}

/* The end of the output counts as a byte. While it has a child, the server sends it before it closes (unlinkClient()). */
#define FIN_BYTES 1

/* What was written to it last was not seen. */
static __noinline void connection_closed_unseen(struct connection *conn)
{
	if (connection_followed(conn))
		connection_lost(conn, LOSS_MISSED);
	else
		ledger_passes(conn, 0);
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
	connection_forget(conn);
}

#endif
