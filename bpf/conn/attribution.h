/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What replies mean: which command each answers, and what the command then makes of the connection. The server writes
 * in the order in which it executed, so this side, and not that of the requests, knows when a transaction or a
 * subscription begins and ends, and whether the command succeeded at all.
 */
#ifndef REPLYLOG_BPF_CONN_ATTRIBUTION_H
#define REPLYLOG_BPF_CONN_ATTRIBUTION_H

#include "bpf/conn/execution.h"
#include "bpf/conn/pairing.h"
#include "bpf/conn/reply_form.h"
#include "bpf/conn/subscription.h"
#include "bpf/conn/transaction.h"

/* The number of the command that the current reply answers. */
static __always_inline __u64 attribution_seq(const struct connection *conn)
{
	const struct session *session = &conn->session;

	return session->exec_left ? session->first_queued + session->queued - session->exec_left : conn->reply_seq;
}

static __always_inline __u8 session_attribution(const struct connection *conn)
{
	return conn->session.doubtful ? ATTRIBUTION_AMBIGUOUS : conn->attribution;
}

/* Must this reply's first bytes be looked at, not only counted? */
static __always_inline bool attribution_looks_at(const struct connection *conn)
{
	return conn->reply_seq >= conn->plain_until && !conn->session.exec_left;
}

/* What the reply that begins may mean for those behind it. */
static __always_inline void attribution_weigh(struct connection *conn, const struct tracked_command *tracked,
					      const __u8 *bytes)
{
	if (conn->session.multi) {
		conn->reply.scripted = tracked->class == COMMAND_EXEC && conn->session.scripts;
		if (tracked->class == COMMAND_EXEC && conn->session.risky)
			pairing_doubt(conn, DOUBT_EXEC);
		return;
	}
	conn->reply.scripted = tracked->class == COMMAND_SCRIPTING;
	if (may_be_unanswered(conn, tracked->class, tracked->seq))
		pairing_doubt(conn, DOUBT_AUTH);
	else if (tracked->class == COMMAND_FOREIGN && !foreign_is_refused(bytes, tracked->number))
		pairing_doubt(conn, DOUBT_MODULE);
}

/*
 * An error, as a reply or inside one. Servers keep CR LF out of most errors, but not out of those that scripts raise, that
 * speak of a script's text, or that name a host (-REDIRECT: processCommand(), valkey 8.0 to 9.1 src/server.c). Such an
 * error may look like any number of replies, or like the beginning of one that swallows those behind it.
 */
static __always_inline void attribution_error(struct connection *conn)
{
	const struct session *session = &conn->session;

	if (session->exec_left ? session->scripts & script_bit(session->queued - session->exec_left) : conn->reply.scripted)
		pairing_doubt(conn, DOUBT_SCRIPT_ERROR);
}

static __always_inline int attribution_reply_begins(struct connection *conn, struct work *work, const __u8 *bytes)
{
	__u8 type = *bytes;
	struct tracked_command *tracked;

	if (!outstanding(conn))
		return reply_verdict(work, REPLY_UNASKED);
	if (conn->session.doubtful && !sunsubscribe_doubt_ends(conn, type))
		return reply_verdict(work, REPLY_DOUBTFUL);
	frame_begin(conn, FRAME_REPLY, type);
	dispatch_reply_begins(conn, type);
	conn->reply.scripted = 0;
	if (error_is_doubtful(bytes))
		pairing_doubt(conn, DOUBT_ERROR);
	if (!attribution_looks_at(conn))
		return STEP_ON;
	if (conn->session.confirming)
		return reply_refused(work, FORM_CONFIRMED_REPLY);
	tracked = tracked_current(conn);
	if (!reply_fits(conn, tracked ? tracked->class : COMMAND_PLAIN, bytes))
		return reply_verdict(work, REPLY_MISFIT);
	conn->reply.head = env_load64(bytes);
	conn->reply.foreign = tracked && tracked->class == COMMAND_FOREIGN && !foreign_is_refused(bytes, tracked->number);
	if (tracked)
		attribution_weigh(conn, tracked, bytes);
	conn->reply.exec_header = type == '*' && conn->session.multi && tracked && tracked->class == COMMAND_EXEC;
	return STEP_ON;
}

/* In doubt the error may be another command's, and this one may have changed who the client is. */
static __always_inline void refusal_is_doubtful(struct connection *conn)
{
	if (conn->doubt)
		conn->from_start = 0;
}

/* A transaction begins: what follows is queued. */
static __always_inline void attribution_multi(struct connection *conn)
{
	struct session *session = &conn->session;

	session->multi = 1;
	session->risky = 0;
	session->scripts = 0;
	session->queued = 0;
	session->first_queued = conn->reply_seq + 1;
}

/* RESET has taken back all that the client had made of the connection. */
static __always_inline void attribution_reset(struct connection *conn, struct work *work)
{
	__builtin_memset(&conn->session, 0, sizeof(conn->session));
	session_note_subscriber(conn);
	identity_emit(conn, work, EVENT_IDENTITY);
}

/* The client has said who it is, and was believed when ok. A HELLO that fails may have changed some of it all the same. */
static __always_inline void attribution_identity(struct connection *conn, struct work *work, __u8 class, bool ok)
{
	if (!ok && class == COMMAND_HELLO)
		identity_emit(conn, work, EVENT_IDENTITY_FAILED);
	if (!ok)
		return refusal_is_doubtful(conn);
	session_learn_resp(conn, conn->reply.type);
	identity_emit(conn, work, EVENT_IDENTITY);
}

/*
 * A module's command has run. Every later record says so, and not each such command: there may be as many of them as of
 * any.
 */
static __always_inline void attribution_foreign(struct connection *conn)
{
	conn->session.db = -1;
	conn->from_start = 0;
	module_has_run();
}

/* What the current command makes of the connection: its reply is complete, and no error when ok. */
static __always_inline void attribution_apply(struct connection *conn, struct work *work,
					      const struct tracked_command *tracked, bool ok)
{
	struct session *session = &conn->session;

	switch (tracked->class) {
	case COMMAND_MULTI:
		if (ok)
			attribution_multi(conn);
		break;
	case COMMAND_EXEC:
		session->multi = 0;
		conn->reply.exec_header = 0; /* a null has none */
		break;
	case COMMAND_DISCARD:
		session->multi &= !ok;
		break;
	case COMMAND_RESET:
		if (ok)
			attribution_reset(conn, work);
		else
			refusal_is_doubtful(conn);
		break;
	case COMMAND_SELECT:
		if (ok)
			session->db = tracked->number < TRACKED_NUMBER_MAX ? (__s32)tracked->number : -1;
		break;
	case COMMAND_IDENTITY:
	case COMMAND_AUTH:
	case COMMAND_HELLO:
		attribution_identity(conn, work, tracked->class, ok);
		break;
	case COMMAND_FOREIGN:
		if (conn->reply.foreign)
			attribution_foreign(conn);
		break;
	default:
		session_note_subscriber(conn);
	}
}

/* The reply to a command that is looked at is complete, and logged when it is large. */
static __always_inline long attribution_command_ends(struct connection *conn, struct work *work)
{
	struct tracked_command *tracked = tracked_current(conn);
	__u8 class = tracked ? tracked->class : COMMAND_PLAIN, type = conn->reply.type;
	long ends = 0;

	if (tracked && (!conn->session.multi || command_ends_queueing(class)))
		attribution_apply(conn, work, tracked, type != '-' && type != '!');
	else if (conn->session.multi && conn->reply.head == QUEUED_LINE)
		ends = transaction_queued(conn, work, class);
	if (tracked)
		tracked_done(conn);
	conn->reply_seq++;
	tracked_arm(conn);
	return ends;
}

static __always_inline long exec_element_ends(struct connection *conn, struct work *work, __u64 position, __u64 bytes)
{
	struct session *session = &conn->session;

	if (bytes >= reply_threshold()) {
		piece_emit(conn, work, &conn->reply.reply, attribution_seq(conn), KIND_MULTI);
		session->exec_logged = 1;
	}
	piece_begin(&conn->reply.reply, position);
	if (--session->exec_left)
		return 0;
	conn->reply.type = '*';
	if (!session->exec_logged && position - session->exec.start >= reply_threshold())
		piece_emit(conn, work, &session->exec, conn->reply_seq, KIND_MULTI);
	return attribution_command_ends(conn, work);
}

/* What is not the plain reply to a plain command. */
env_noinline long attribution_special_ends(struct connection *conn, struct work *work)
{
	struct session *session = &conn->session;
	__u64 position = reply_position(conn, work), bytes = position - conn->reply.reply.start;

	sunsubscribe_decide(conn);
	if (conn->reply.frame == FRAME_PUSH)
		return push_ends(conn, work, position, bytes);
	if (session->exec_left)
		return exec_element_ends(conn, work, position, bytes);
	if (conn->reply.frame == FRAME_CONFIRMATION) {
		conn->reply.frame = FRAME_REPLY;
		if (--session->unconfirmed)
			return 0;
		session->confirming = 0;
	}
	if (bytes >= reply_threshold())
		piece_emit(conn, work, &conn->reply.reply, conn->reply_seq, session->multi ? KIND_MULTI : KIND_SIMPLE);
	piece_begin(&conn->reply.reply, position);
	return attribution_command_ends(conn, work);
}

/* The last byte of a frame is parsed. */
static __always_inline long attribution_frame_ends(struct connection *conn, struct work *work)
{
	__u64 position, bytes;

	if (conn->reply_seq >= conn->plain_until || conn->reply.frame)
		return attribution_special_ends(conn, work);
	position = reply_position(conn, work);
	bytes = position - conn->reply.reply.start;
	if (bytes >= reply_threshold())
		piece_emit(conn, work, &conn->reply.reply, conn->reply_seq, KIND_SIMPLE);
	piece_begin(&conn->reply.reply, position);
	conn->reply_seq++;
	return 0;
}

/* At the end of a write: what is not complete remembers when it began. */
static __always_inline void attribution_pauses(struct connection *conn, struct work *work)
{
	struct session *session = &conn->session;

	if (conn->reply.reply.start != conn->written_bytes)
		piece_pause(&conn->reply.reply, work);
	if (session->exec_left)
		piece_pause(&session->exec, work);
	if (conn->reply.interrupts)
		piece_pause(&session->outer, work);
}

/* Logs a piece that is cut off at the output's position, if it is large or was going to be. */
static __always_inline bool attribution_cut(struct connection *conn, struct work *work, const struct piece *piece,
					    __u64 position, __u64 seq, __u8 kind)
{
	struct reply_end end = { .seq = seq, .kind = kind, .state = STATE_ABORTED };

	if (piece->start == position)
		return false;
	piece_end(piece, position, reply_now(work), &end);
	end.bytes_expected = end.bytes + conn->reply.skip;
	if (end.bytes_expected < reply_threshold())
		return false;
	reply_emit(conn, work, &end);
	return true;
}

/* Is a reply that is large, or is going to be, partly written? */
static __always_inline bool attribution_is_large(const struct connection *conn)
{
	const struct piece *piece = conn->reply.interrupts ? &conn->session.outer : &conn->reply.reply;
	__u64 bytes = conn->written_bytes - piece->start;

	return bytes && bytes + conn->reply.skip >= reply_threshold();
}

/* The last bytes, when they are the beginning of a frame of which it is not known yet whether it is a reply. */
static __always_inline __u32 attribution_undecided(const struct connection *conn)
{
	const struct reply_framing *r = &conn->reply;
	__u32 first = CARRY - r->carried;

	if (!r->carried || first >= CARRY)
		return 0;
	return !r->owed || ((const __u8 *)conn->reply_carry.words)[first % CARRY] == '>' ? r->carried : 0;
}

/* Where in the output the reply or push begins that is not complete: all before it is attributed. */
static __always_inline __u64 attribution_complete_until(const struct connection *conn)
{
	return conn->reply.interrupts ? conn->session.outer.start : conn->reply.reply.start;
}

/* Where in the output a close cuts off what it is part of: the rest is not attributed. */
static __always_inline __u64 attribution_cut_at(const struct connection *conn)
{
	return conn->reply.interrupts ? conn->reply.reply.start : conn->written_bytes - attribution_undecided(conn);
}

/* The connection closes: logs the reply, or the push, that it cuts off. True when a reply had begun, large or not. */
env_noinline bool attribution_closes(struct connection *conn, struct work *work)
{
	const struct reply_framing *r = &conn->reply;
	const struct session *session = &conn->session;
	__u8 kind = session->exec_left ? KIND_MULTI : KIND_SIMPLE;
	const struct piece *piece = &r->reply;
	__u64 position = attribution_cut_at(conn);

	work->now = 0;
	sunsubscribe_decide(conn);
	if (r->frame == FRAME_PUSH && !r->interrupts) {
		attribution_cut(conn, work, piece, position, 0, KIND_PUSH);
		return false;
	}
	if (r->interrupts)
		piece = &session->outer;
	if (!attribution_cut(conn, work, piece, position, attribution_seq(conn), kind) && session->exec_left &&
	    !session->exec_logged)
		attribution_cut(conn, work, &session->exec, position, conn->reply_seq, kind);
	return session->exec_left || piece->start != position;
}

#endif
