/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Joining a session that is older than we are, or that we lost: only where it is proven that a command begins and
 * that nothing is outstanding. The proof reads the server's struct client and is written down in layout.h; without a
 * layout for this very server there is none, and what is joined is marked ambiguous.
 */
#ifndef REPLYLOG_BPF_SERVER_JOIN_BPF_H
#define REPLYLOG_BPF_SERVER_JOIN_BPF_H

#include "bpf/maps.bpf.h"
#include "bpf/server/conn_client.bpf.h"
#include "bpf/server/sock.bpf.h"
#include "bpf/server/proof.h"

/* Is it proven that a command begins at addr, with nothing outstanding? */
static __noinline bool join_is_proven(const struct conn_client *client, __u64 addr)
{
	__u64 at = client->at;

	if (client_field(at, &client_layout.conn, 0) != client->conn)
		return false;
	return client_is_plain(at) && client_has_consumed(at, addr) && client_has_written(at);
}

/* What a connection is for that is not a client's, COUNTERS when that can't be told. */
static __always_inline enum counter join_excludes(const struct conn_client *client)
{
	if (!client->at)
		return COUNTERS;
	if (client_flag(client->at, FLAG_MONITOR))
		return COUNTER_MONITORS;
	if (client_flag(client->at, FLAG_REPLICA) || client_flag(client->at, FLAG_PRIMARY))
		return COUNTER_REPLICATION;
	return COUNTERS;
}

#endif
