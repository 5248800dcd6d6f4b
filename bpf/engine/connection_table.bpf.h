/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The connections that are known, by what the tap calls them by. */
#ifndef REPLYLOG_BPF_ENGINE_CONNECTION_TABLE_BPF_H
#define REPLYLOG_BPF_ENGINE_CONNECTION_TABLE_BPF_H

#include "bpf/engine/ledger.bpf.h"
#include "bpf/engine/pairing.bpf.h"

/* What a tap calls a connection by: its key. */
enum tap {
	TAP_CONNECTION, /* the address of the server's struct connection */
	TAP_SOCKET,     /* the address of the kernel's struct sock */
};

/* This thread's scratch area and statistics, and which tap calls. */
struct worker {
	struct scratch *scratch;
	struct thread_stats *stats;
	enum tap tap;
};

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

static __always_inline void connection_forget(struct connection *conn, enum debug_why why)
{
	__u64 key = conn->key;
	__u32 *number = bpf_map_lookup_elem(&connection_numbers, &key), freed;

	debug_moves(conn, why, DEBUG_UNKNOWN, 0);
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

/* A connection that begins here; NULL without room for it. The close of another one that has its key was missed. */
static __always_inline struct connection *connection_begin(struct worker *worker, __u64 key)
{
	struct connection *former = connection_find(worker, key);

	if (former)
		connection_forget(former, WHY_KEY_REUSED);
	return connection_new(key);
}

#endif
