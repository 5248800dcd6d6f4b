/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Pairing that checks itself. "The n-th reply answers the n-th command" is true of a correct server, and breaks with
 * bugs, modules and parser quirks. So it is believed only as far as it is checked:
 *
 *   - A reply whose command was the only one outstanding, by our own count, on a connection without doubt, is certain.
 *   - A burst is what is read and answered from one moment with nothing outstanding to the next. Its records wait in user
 *     space for a proof: the server's struct client shows nothing outstanding (proof.h), and we count the same. Then there
 *     were as many replies as commands.
 *   - As many replies as commands prove the order, with two exceptions. The server may have answered one command never and
 *     another one twice; or it may have written an error whose text looks like one more reply, followed by the beginning
 *     of a reply that swallows others. Where that can be is known: modules' commands (foreign.h), AUTH and HELLO of some
 *     versions (may_be_unanswered()), errors that echo what a client has sent (attribution_error()). With one of them in a
 *     burst there is a doubt, and its records are ambiguous.
 *   - What doesn't add up is out of step: a reply that nothing asked for, a reply of a form that its command can't have,
 *     commands outstanding here and none there. All that waits is ambiguous, that is counted, and the connection is
 *     joined anew.
 *
 * BPF asks for the proof at a read, when it is wanted or commands are outstanding; user space (user/session/verify.c)
 * asks from outside when records wait. A proof costs the same for small replies as for large ones. A command that is
 * alone needs none.
 */
#ifndef REPLYLOG_BPF_CONN_PAIRING_H
#define REPLYLOG_BPF_CONN_PAIRING_H

#include "bpf/conn/connection.h"
#include "bpf/port.h"

/* From here on, until the next proof, as many replies as commands prove nothing. */
static __always_inline void pairing_doubt(struct connection *conn, enum doubt why)
{
	conn->doubt = why;
	conn->unverified = 1;
}

/* Is a record that is sent now certain? */
static __always_inline bool pairing_is_certain(const struct connection *conn)
{
	return !conn->burst && !conn->unverified;
}

/* Before a read is framed: does it find something to prove? Most reads don't, and begin a new burst. */
static __always_inline bool pairing_wants_proof(struct connection *conn)
{
	if (!outstanding(conn)) {
		conn->burst = 0;
		conn->burst_from = conn->read_seq;
	}
	return conn->unverified || outstanding(conn) || conn->refuted;
}

/* After a read is framed. */
static __always_inline void pairing_after_read(struct connection *conn)
{
	conn->burst |= outstanding(conn) > 1;
}

/* Have we counted as many replies as commands, and has none begun? */
static __always_inline bool pairing_adds_up(const struct connection *conn)
{
	const struct reply_framing *r = &conn->reply;

	return !outstanding(conn) && !r->owed && !r->carried && !conn->session.exec_left && !conn->session.confirming &&
	       r->reply.start == conn->written_bytes;
}

/* May the current command, of this class, be left unanswered? Only when it is not the first of its burst. */
static __always_inline bool may_be_unanswered(const struct connection *conn, __u8 class, __u32 seq)
{
	return (class == COMMAND_AUTH || class == COMMAND_HELLO) && auth_may_be_silent() && seq != (__u32)conn->burst_from;
}

#endif
