/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * --debug. Each of these asks debugging() before it does anything: that is a constant to the verifier, which removes what
 * follows when it is false. The question itself stays, two instructions, so it is asked only where something rare happens.
 */
#ifndef REPLYLOG_BPF_CONN_DEBUG_H
#define REPLYLOG_BPF_CONN_DEBUG_H

#include "bpf/abi/debug.h"
#include "bpf/conn/connection.h"
#include "bpf/port.h"

_Static_assert((int)DEBUG_UNJOINED == MODE_UNJOINED && (int)DEBUG_ACCEPTED == MODE_ACCEPTED &&
		       (int)DEBUG_FOLLOWED == MODE_FOLLOWED && (int)DEBUG_DRAINING == MODE_DRAINING &&
		       (int)DEBUG_EXCLUDED == MODE_EXCLUDED && (int)DEBUG_PASSED_OVER == MODE_PASSED_OVER,
	       "a mode is a state");

#define DEBUG_SEEN 0x1000000

static __always_inline __u32 debug_pack(__u32 state, __u32 form, __u32 seen)
{
	return state | form << 8 | seen << 16;
}

/* The connection is about to change to this state. number: of bytes that were not seen. */
static __always_inline void debug_moves(struct connection *conn, __u32 why, __u32 state, __u64 number)
{
	if (debugging())
		debug_send(conn, why, debug_pack(state, FORM_NONE, 0), DEBUG_NOWHERE, number);
}

/* The connection stays what it is. */
static __always_inline void debug_notes(struct connection *conn, __u32 why)
{
	if (debugging())
		debug_send(conn, why, debug_pack(conn->mode, FORM_NONE, 0), DEBUG_NOWHERE, 0);
}

/* The byte that a framer stopped at, with DEBUG_SEEN; 0 when there is none. */
static __always_inline __u32 debug_seen(const struct work *work)
{
	__u32 pos = work->cur.pos;

	if (pos >= work->cur.end)
		return 0;
	env_opaque(pos);
	return pos < WINDOW_END ? DEBUG_SEEN >> 16 | work->bytes[pos] : 0;
}

/* The same as debug_moves(), because of what a framer stopped at. total: bytes of the input or output so far. */
static __always_inline void debug_stops(struct connection *conn, struct work *work, __u32 why, __u32 state, __u64 total)
{
	if (debugging())
		debug_send(conn, why, debug_pack(state, VERDICT_FORM(work->verdict), debug_seen(work)),
			   total - cursor_unparsed(&work->cur), 0);
}

/* Is this the first that is heard of a connection? */
static __always_inline bool why_begins(__u32 why)
{
	return why == WHY_ACCEPTED || why == WHY_OLDER || why == WHY_TLS_BYTES;
}

/* Whose connection it is, as far as id says. */
static __always_inline void debug_fill_client(struct debug_event *event, const struct conn_id *id)
{
	event->client_id = id->client_id;
	event->client_port = id->port;
	event->client_family = id->family;
	__builtin_memcpy(event->client_addr, id->addr, sizeof(event->client_addr));
	event->connection = id->number;
	event->generation = id->generation;
}

/* What an event says of a connection. */
static __always_inline void debug_fill(struct debug_event *event, const struct connection *conn, __u32 why, __u32 what,
				       __u64 position, __u64 number)
{
	bool request = why == WHY_REQUEST_REFUSED || why == WHY_DRAINING_COMMAND;

	__builtin_memset(event, 0, sizeof(*event));
	event->ns = env_now();
	debug_fill_client(event, &conn->id);
	event->read_bytes = conn->read_bytes;
	event->written_bytes = conn->written_bytes;
	event->read_seq = conn->read_seq;
	event->reply_seq = conn->reply_seq;
	event->position = position;
	event->number = number;
	event->skip = request ? conn->request.skip : conn->reply.skip;
	event->owed = request ? conn->request.args_left : conn->reply.owed;
	event->why = why;
	event->from = why_begins(why) ? DEBUG_UNKNOWN : conn->mode;
	event->to = what;
	event->form = what >> 8;
	event->seen = what >> 16;
	event->has_seen = (what & DEBUG_SEEN) != 0;
	event->doubt = conn->doubt;
	event->exact = conn->attribution == ATTRIBUTION_EXACT;
}

#endif
