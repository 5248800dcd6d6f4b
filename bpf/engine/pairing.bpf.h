/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The checks of pairing.h, that read the server's structs. */
#ifndef REPLYLOG_BPF_ENGINE_PAIRING_BPF_H
#define REPLYLOG_BPF_ENGINE_PAIRING_BPF_H

#include "bpf/engine/debug.bpf.h"
#include "bpf/engine/emit.bpf.h"
#include "bpf/conn/pairing.h"
#include "bpf/server/conn_client.bpf.h"
#include "bpf/server/sock.bpf.h"
#include "bpf/server/proof.h"

/* Nothing more will be known of what waits. */
static __always_inline void pairing_ends(struct connection *conn, enum reply_attribution attribution)
{
	if (conn->held || conn->refuted)
		emit_checked(conn, attribution, false);
	else
		conn->unverified = conn->doubt = 0;
	conn->burst = conn->refuted = 0;
}

/*
 * The connection closes, and its struct client is no proof any more. With nothing outstanding by our count the server has
 * written as many replies as it has read commands; replies still missing would mostly have been written by now.
 */
static __always_inline void pairing_closes(struct connection *conn)
{
	pairing_ends(conn, pairing_adds_up(conn) && !conn->doubt ? ATTRIBUTION_EXACT : ATTRIBUTION_AMBIGUOUS);
}

/*
 * Replies and commands don't add up. User space always gets a record of that, which names the client, unless it has found
 * that out itself.
 */
static __noinline void pairing_out_of_step(struct connection *conn)
{
	if (conn->refuted)
		return;
	count_loss(LOSS_OUT_OF_STEP);
	emit_checked(conn, ATTRIBUTION_AMBIGUOUS, true);
}

/* What was read so far is proven. User space gets a record of that when records wait for it. */
static __always_inline void pairing_told(struct connection *conn, enum reply_attribution attribution)
{
	if (conn->held)
		emit_checked(conn, attribution, false);
	else
		conn->unverified = conn->doubt = 0;
}

/* The database that the client has selected, by its struct; -1 when that can't be read. */
static __always_inline __s32 client_db(__u64 client)
{
	__u64 db = client_field(client, &client_layout.db, 0), id = client_field(db, &client_layout.db_id, ~0ULL);

	return id <= 0x7fffffff ? (__s32)id : -1;
}

/*
 * As many replies as commands, but in doubt. That proves nothing of them, nor of what they have made of the connection:
 * that is asked of the server. False: it is not what we take it for.
 */
static __always_inline bool pairing_starts_anew(struct connection *conn, __u64 client)
{
	__u64 resp = client_field(client, &client_layout.resp, 0);

	debug_notes(conn, WHY_DOUBT_ENDS);
	pairing_told(conn, ATTRIBUTION_AMBIGUOUS);
	conn->session.db = client_db(client);
	conn->session.resp = resp == 2 || resp == 3 ? resp : 0;
	return !conn->session.multi && !client_flag(client, FLAG_MULTI) &&
	       client_flag(client, FLAG_PUBSUB) == session_is_subscribed(conn);
}

enum pairing {
	PAIRING_GOES_ON = 0,
	PAIRING_UNKNOWN, /* what the connection is has to be found out anew */
	PAIRING_OUT_OF_STEP,
};

/* Quickly: does the server still have something to write? */
static __always_inline bool pairing_server_owes(const struct connection *conn)
{
	return conn->client_at && client_field(conn->client_at, &client_layout.bufpos, 1) &&
	       !client_write_is_completed(conn->client_at);
}

/*
 * At the return of a read to addr, before it is framed: is everything before it proven to be answered, and by as many
 * replies as there were commands?
 */
static __noinline enum pairing pairing_check(struct connection *conn, __u64 addr)
{
	struct conn_client client;

	if (conn->refuted)
		return PAIRING_OUT_OF_STEP;
	if (!client_layout.valid || conn->request.state != REQUEST_BOUNDARY || conn->request.carried ||
	    pairing_server_owes(conn))
		return PAIRING_GOES_ON;
	connection_client(conn->server_conn, &client);
	conn->client_at = client.at;
	if (!client.at || !client_is_idle_at_read(client.at, client.conn, addr))
		return PAIRING_GOES_ON;
	if (!pairing_adds_up(conn))
		return PAIRING_OUT_OF_STEP;
	if (conn->doubt)
		return pairing_starts_anew(conn, client.at) ? PAIRING_GOES_ON : PAIRING_UNKNOWN;
	pairing_told(conn, ATTRIBUTION_EXACT);
	return PAIRING_GOES_ON;
}

#endif
