/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The states of a connection (enum connection_mode) and what leads from one to another: it is accepted, or found in
 * mid-conversation and joined; it drains, is excluded, lost, or closed.
 */
#ifndef REPLYLOG_BPF_ENGINE_LIFECYCLE_BPF_H
#define REPLYLOG_BPF_ENGINE_LIFECYCLE_BPF_H

#include "bpf/engine/byte_check.bpf.h"
#include "bpf/engine/connection_table.bpf.h"
#include "bpf/server/conn_type.bpf.h"
#include "bpf/server/join.bpf.h"
#include "bpf/server/syscall_conn.bpf.h"

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

static __always_inline enum debug_why why_excluded(enum counter why)
{
	switch (why) {
	case COUNTER_MONITORS:
		return WHY_MONITOR;
	case COUNTER_REPLICATION:
		return WHY_REPLICATION;
	case COUNTER_CLUSTER_LINKS:
		return WHY_CLUSTER_LINK;
	default:
		return WHY_OUTGOING;
	}
}

/*
 * What the server writes to it from now on is no reply. It is counted once, whether its own command or the server's
 * structs say so.
 */
static __always_inline void connection_exclude(struct connection *conn, enum counter why)
{
	debug_moves(conn, why_excluded(why), DEBUG_EXCLUDED, 0);
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
static __noinline bool connection_join(struct connection *conn, __u64 addr, __u64 len)
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
	debug_moves(conn, client_layout.valid ? WHY_JOIN_PROVEN : WHY_JOIN_UNPROVEN, DEBUG_FOLLOWED, 0);
	ledger_passes(conn, 0);
	conn->mode = MODE_FOLLOWED;
	conn->lost_as = 0;
	counter_add(COUNTER_JOINED, 1);
	counter_add(COUNTER_UNJOINED, -1);
	return true;
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

	if (!conn) {
		debug_clients_full(ends->sk);
		return NULL;
	}
	connection_mark_midstream(conn, ends);
	debug_notes(conn, WHY_OLDER);
	return conn;
}

/* What begins here is followed from its start. */
static __always_inline void connection_follow(struct connection *conn)
{
	debug_moves(conn, WHY_FIRST_READ, DEBUG_FOLLOWED, 0);
	conn->mode = MODE_FOLLOWED;
	conn->attribution = ATTRIBUTION_EXACT;
	conn->from_start = 1;
	conn->session.db = 0;
}

/* These bytes are seen elsewhere in plain text: this connection is to be passed over. */
static __always_inline void connection_pass_over(struct worker *worker, __u64 key)
{
	struct connection *conn = connection_begin(worker, key);

	if (!conn)
		return;
	conn->mode = MODE_PASSED_OVER;
	debug_notes(conn, WHY_TLS_BYTES);
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

/* Its first read was missed: it is taken for one found in mid-conversation. */
static __noinline void connection_mark_begun_unseen(struct connection *conn)
{
	struct ends ends;

	connection_accepted_ends(conn, &ends);
	connection_mark_midstream(conn, &ends);
}

/*
 * The first read that we see of a connection that we saw being accepted. Of plain TCP it must be the first that there
 * was; other sockets don't tell.
 */
static __noinline void connection_first_read(struct worker *worker, struct connection *conn, __u64 len)
{
	struct ends ends;
	bool first;

	connection_accepted_ends(conn, &ends);
	first = first_read(ends.sk, len);
	if (worker->tap == TAP_SOCKET && !first && is_tcp(ends.sk)) {
		count_loss(LOSS_MISSED);
		debug_moves(conn, WHY_FIRST_READ_MISSED, DEBUG_UNJOINED, 0);
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

/* What a connection becomes that is given up: see connection_give_up(). */
static __always_inline enum debug_state connection_given_up(const struct connection *conn)
{
	return conn->mode == MODE_DRAINING && !client_layout.valid ? DEBUG_EXCLUDED : DEBUG_UNJOINED;
}

/*
 * Is anything still to be written that could be attributed? Once a draining connection owes nothing, what is written to
 * it is no reply.
 */
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

/*
 * Replies and commands are out of step. What is written from now on is not attributed until the connection is joined
 * again.
 */
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
static __always_inline void connection_drain(struct connection *conn, __u8 class, enum debug_why why)
{
	if (class != COMMAND_REPLICATION || conn->excluded_as != class)
		counter_add(counter_of(class), 1);
	conn->excluded_as = class;
	debug_moves(conn, why, DEBUG_DRAINING, 0);
	conn->mode = MODE_DRAINING;
	conn->request.state = REQUEST_BOUNDARY; /* the half-read command needs no block any more */
}

/* The server refuses such a request, too, and closes. What was read before it still gets its replies. */
static __always_inline void connection_misframed(struct connection *conn, struct work *work)
{
	bool ambiguous = conn->attribution == ATTRIBUTION_AMBIGUOUS;

	debug_stops(conn, work, WHY_REQUEST_REFUSED, ambiguous ? connection_given_up(conn) : DEBUG_DRAINING,
		    conn->read_bytes);
	if (ambiguous)
		return connection_lost(conn, LOSS_FRAMING);
	count_loss(LOSS_FRAMING);
	ledger_blame(conn, LOSS_FRAMING, 0);
	conn->excluded_as = COMMAND_OPAQUE;
	conn->mode = MODE_DRAINING;
	conn->request.state = REQUEST_BOUNDARY;
}

/* The server has answered and written everything, and we have not seen all of it. */
static __always_inline void connection_disproved(struct connection *conn)
{
	if (connection_has_all_written(conn, 0)) {
		debug_moves(conn, conn->refuted ? WHY_REFUTED : WHY_COUNTS_DIFFER, connection_given_up(conn), 0);
		connection_out_of_step(conn);
	} else {
		debug_moves(conn, WHY_WRITE_MISSED, connection_given_up(conn), ledger_unseen(conn));
		connection_lost(conn, LOSS_MISSED);
	}
}

/* Does a call that is not seen lose anything of this connection? */
static __always_inline bool connection_matters(const struct connection *conn)
{
	return connection_followed(conn) || (conn && conn->mode == MODE_ACCEPTED);
}

/* An older connection, on what is written to it first: one that never sends a command is first seen here. */
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

/* The end of the output counts as a byte. While it has a child, the server sends it before it closes (unlinkClient()). */
#define FIN_BYTES 1

/* What was written to it last was not seen. */
static __noinline void connection_closed_unseen(struct connection *conn)
{
	if (connection_followed(conn)) {
		debug_moves(conn, WHY_WRITE_MISSED, connection_given_up(conn), ledger_unseen(conn));
		connection_lost(conn, LOSS_MISSED);
	} else {
		ledger_passes(conn, 0);
	}
}

#endif
