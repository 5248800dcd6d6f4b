/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The checks of pairing.h, where the server's structs are at hand. */
#ifndef REPLYLOG_PAIRING_BPF_H
#define REPLYLOG_PAIRING_BPF_H

#include "emit.bpf.h"
#include "pairing.h"
#include "peer.bpf.h"
#include "proof.h"

/* Nothing more will be known of what waits. */
static __always_inline void pairing_ends(struct connection *conn, enum reply_attribution attribution)
{
	if (conn->unverified || conn->refuted)
		emit_checked(conn, attribution, false);
	/* What could not be said is not this connection's any more. */
	conn->unverified = conn->doubt = conn->burst = conn->refuted = 0;
}

/*
 * The connection closes, with nothing outstanding that we count. The server lets go only when its answers are written, or
 * when they can't be: either way it has not written more of them than we have seen commands.
 */
static __always_inline void pairing_closes(struct connection *conn)
{
	pairing_ends(conn, pairing_adds_up(conn) && !conn->doubt ? ATTRIBUTION_EXACT : ATTRIBUTION_AMBIGUOUS);
}

/* It doesn't add up. Always told, so that the loss has a client, unless it is user space that has found it out. */
static __noinline void pairing_out_of_step(struct connection *conn)
{
	if (conn->refuted)
		return;
	count_loss(LOSS_OUT_OF_STEP);
	emit_checked(conn, ATTRIBUTION_AMBIGUOUS, true);
	conn->unverified = conn->doubt = 0;
}

/* As many replies as commands. In doubt that proves nothing, but from here on all is known again. */
static __always_inline void pairing_proven(struct connection *conn)
{
	bool doubt = conn->doubt;

	if (!conn->unverified)
		return;
	if (doubt)
		conn->talk.db = -1;
	emit_checked(conn, doubt ? ATTRIBUTION_AMBIGUOUS : ATTRIBUTION_EXACT, false);
}

/* Quickly: does the server still have something to write? */
static __always_inline bool pairing_server_owes(const struct connection *conn)
{
	return conn->client_at && client_field(conn->client_at, &client_layout.bufpos, 1);
}

/*
 * At the return of a read to addr, before it is framed: is everything before it proven to be answered? False: it is out
 * of step.
 */
static __noinline bool pairing_check(struct connection *conn, __u64 addr)
{
	struct conn_client client;

	if (conn->refuted)
		return false;
	if (!client_layout.valid || conn->request.state != REQUEST_BOUNDARY || conn->request.carried ||
	    pairing_server_owes(conn))
		return true;
	connection_client(conn->server_conn, &client);
	conn->client_at = client.at;
	if (!client.at || !client_is_idle_at_read(client.at, client.conn, addr))
		return true;
	if (!pairing_adds_up(conn))
		return false;
	pairing_proven(conn);
	return true;
}

#endif
