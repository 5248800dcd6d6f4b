/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Joining a conversation that is older than we are, or that we lost: only where it is proven that a command begins and
 * that nothing is outstanding. The proof reads the server's struct client and is written down in layout.h; without a
 * layout for this very server there is none, and what is joined is marked ambiguous.
 */
#ifndef REPLYLOG_JOIN_BPF_H
#define REPLYLOG_JOIN_BPF_H

#include "maps.bpf.h"
#include "peer.bpf.h"
#include "client.h"

/* How many a list that may be missing or NULL has; many when it can't be read. */
static __always_inline __u64 client_list(__u64 client, const volatile struct layout_field *field)
{
	__u64 list = client_field(client, field, 0);

	return list ? client_field(list, &client_layout.list_len, 1) : 0;
}

/*
 * Condition 5 of the proof: a plain client, of which nothing waits. In a transaction, what EXEC answers is not known.
 */
static __always_inline bool client_is_plain(__u64 client)
{
	__u64 words[2] = {};

	if (bpf_probe_read_user(words, sizeof(words), (void *)(client + client_layout.flags.offset)))
		return false;
	if (words[0] & client_layout.not_plain[0] || words[1] & client_layout.not_plain[1])
		return false;
	return !client_field(client, &client_layout.slot_migration_job, 0) && !client_flag(client, FLAG_MULTI);
}

/* Conditions 2 to 4: all that was read before is executed, and the bytes at addr begin a command. */
static __always_inline bool client_has_consumed(__u64 client, __u64 addr)
{
	return client_field(client, &client_layout.querybuf, 0) == addr &&
	       !client_field(client, &client_layout.reqtype, 1) &&
	       !client_field(client, &client_layout.argc, 1) &&
	       !client_field(client, &client_layout.queued, 0);
}

/* Condition 6: all that was answered is written. The list before bufpos, for the reason given there. */
static __always_inline bool client_has_written(__u64 client)
{
	return !client_list(client, &client_layout.reply) && !client_list(client, &client_layout.deferred_reply) &&
	       !client_field(client, &client_layout.bufpos, 1);
}

/* Is it proven that a command begins at addr, with nothing outstanding? */
static __noinline bool join_is_proven(const struct conn_client *client, __u64 addr)
{
	__u64 at = client->at;

	if (client_field(at, &client_layout.conn, 0) != client->conn)
		return false;
	return client_is_plain(at) && client_has_consumed(at, addr) && client_has_written(at);
}

/* What a connection is for that is not a client's, TALLIES when that can't be told. */
static __always_inline enum tally join_left_out(const struct conn_client *client)
{
	if (!client->at)
		return TALLIES;
	if (client_flag(client->at, FLAG_MONITOR))
		return TALLY_MONITORS;
	if (client_flag(client->at, FLAG_REPLICA) || client_flag(client->at, FLAG_PRIMARY))
		return TALLY_REPLICATION;
	return TALLIES;
}

#endif
