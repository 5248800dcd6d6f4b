/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What is written, piece by piece: a reply, a push, or EXEC's reply as a whole. Where it starts, how many writes carried
 * it, and when; and the record that it becomes.
 */
#ifndef REPLYLOG_BPF_CONN_PIECE_H
#define REPLYLOG_BPF_CONN_PIECE_H

#include "bpf/conn/connection.h"
#include "bpf/port.h"

/* REPLY_MALFORMED comes with a form: see VERDICT_OF_FORM(). */
enum reply_verdict {
	REPLY_OK = 0,
	REPLY_MALFORMED,  /* not RESP, or a form that is refused */
	REPLY_UNASKED,    /* a reply although no command is outstanding */
	REPLY_MISFIT,     /* a reply that its command can't have */
	REPLY_UNREADABLE, /* the server's memory could not be read */
	REPLY_DOUBTFUL,   /* it can't be known which command it answers */
	REPLY_DRAINS,     /* from here on it can't be known which command a reply answers */
};

/* What is known of a reply whose last byte is there, or that will not get any further. */
struct reply_end {
	__u64 seq; /* of the command it answers */
	__u64 bytes;
	__u64 bytes_expected; /* aborted: at least this many it would have had */
	__u64 first_ns;
	__u64 last_ns;
	__u32 writes;
	__u8 kind;  /* enum reply_kind; what is simple may turn out pipelined */
	__u8 state; /* enum reply_state */
};

static __always_inline __u64 reply_now(struct work *work)
{
	if (!work->now)
		work->now = env_now();
	return work->now;
}

static __always_inline long reply_verdict(struct work *work, __u32 verdict)
{
	work->verdict = verdict;
	return 1;
}

/* Bytes that are not RESP, or of a form that is refused. */
static __always_inline long reply_refused(struct work *work, enum debug_form form)
{
	return reply_verdict(work, VERDICT_OF_FORM(REPLY_MALFORMED, form));
}

static __always_inline __u64 reply_position(struct connection *conn, struct work *work)
{
	return conn->written_bytes - cursor_unparsed(&work->cur);
}

static __always_inline void piece_begin(struct piece *piece, __u64 position)
{
	piece->start = position;
	piece->first_ns = 0;
	piece->writes = 0;
}

/* At the end of a write with bytes of it. */
static __always_inline void piece_pause(struct piece *piece, struct work *work)
{
	if (!piece->first_ns)
		piece->first_ns = reply_now(work);
	piece->writes++;
}

static __always_inline void piece_end(const struct piece *piece, __u64 position, __u64 now, struct reply_end *end)
{
	end->bytes = position - piece->start;
	end->first_ns = piece->first_ns ? piece->first_ns : now;
	end->last_ns = now;
	end->writes = piece->writes;
}

/* A piece ends in this write, complete. */
env_noinline void piece_emit(struct connection *conn, struct work *work, struct piece *piece, __u64 seq, __u32 kind)
{
	struct reply_end end = { .seq = seq, .kind = kind, .state = STATE_COMPLETE };

	piece_end(piece, reply_position(conn, work), reply_now(work), &end);
	end.writes++;
	reply_emit(conn, work, &end);
}

static __always_inline void frame_begin(struct connection *conn, __u8 frame, __u8 type)
{
	conn->reply.frame = frame;
	conn->reply.type = type;
	conn->reply.owed = 1;
}

#endif
