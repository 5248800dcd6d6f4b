/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What replies mean: which command each answers, and what the command then makes of the connection. The server writes
 * in the order in which it executed, so this side, and not that of the requests, knows when a transaction or a
 * subscription begins and ends, and whether the command succeeded at all.
 *
 *   MULTI .. EXEC     each element of EXEC's array is the reply to a queued command, and is logged as that
 *   [P|S][UN]SUBSCRIBE  the confirmations together are the reply, in RESP3 too, where they are push frames
 *   pushes, messages  answer no command, wherever they come; between the elements of a reply they are none of its bytes
 */
#ifndef REPLYLOG_BPF_CONN_ATTRIBUTION_H
#define REPLYLOG_BPF_CONN_ATTRIBUTION_H

#include "bpf/conn/argv_log.h"
#include "bpf/conn/execution.h"
#include "bpf/resp/foreign.h"
#include "bpf/conn/pairing.h"
#include "bpf/resp/pubsub.h"
#include "bpf/conn/tracked_command.h"
#include "bpf/conn/server_sunsubscribe.h"

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

/* The number of the command that the reply at hand answers. */
static __always_inline __u64 attribution_seq(const struct connection *conn)
{
	const struct session *session = &conn->session;

	return session->exec_left ? session->first_queued + session->queued - session->exec_left : conn->reply_seq;
}

static __always_inline __u8 session_attribution(const struct connection *conn)
{
	return conn->session.doubtful ? ATTRIBUTION_AMBIGUOUS : conn->attribution;
}

/* ---- a frame begins ---- */

/* How replies begin: "+OK\r\n", "+QUEUED\r\n". */
#define OK_LINE WORD8('+', 'O', 'K', '\r', '\n', 0, 0, 0)
#define QUEUED_LINE WORD8('+', 'Q', 'U', 'E', 'U', 'E', 'D', '\r')
/* So much of HELLO's reply shows that it is one. */
#define HELLO_PEEK 13

static __always_inline void frame_begin(struct connection *conn, __u8 frame, __u8 type)
{
	conn->reply.frame = frame;
	conn->reply.type = type;
	conn->reply.owed = 1;
}

/* How many confirmations a subscribing command gets: one per channel; when it names none, one per subscription. */
static __always_inline __u32 confirmations_expected(const struct connection *conn, const struct tracked_command *tracked)
{
	__u32 all = conn->session.subscribed[subscription_kind(tracked->class)];

	return tracked->number ? tracked->number : all ? all : 1;
}

/* Which protocol the client is spoken to in: HELLO's reply and confirmations have a type that tells. */
static __always_inline void session_learn_resp(struct connection *conn, __u8 type)
{
	if (type == '%' || type == '>')
		conn->session.resp = 3;
	else if (type == '*')
		conn->session.resp = 2;
}

static __always_inline int confirmation_begins(struct connection *conn, const struct tracked_command *tracked, __u8 type)
{
	if (!conn->session.confirming) {
		conn->session.unconfirmed = confirmations_expected(conn, tracked);
		conn->session.doubtful = 0; /* an error, or another sunsubscribe, would have come first */
	}
	conn->session.confirming = 1;
	session_learn_resp(conn, type);
	frame_begin(conn, FRAME_CONFIRMATION, type);
	return STEP_ON;
}

/*
 * Keeps how the push begins: its kind and channel. Out of the window or, where that ends too early, once more out of
 * the server's memory, unless a part of the bytes was carried over.
 */
static __always_inline void push_keep(struct connection *conn, struct work *work, const __u8 *bytes, __u32 avail)
{
	struct cursor *cur = &work->cur;
	__u64 n = avail + cur->left;
	__u32 i;

	env_opaque(n);
	if (n > PUSH_HEAD)
		n = PUSH_HEAD;
	if (avail < n && cur->pos >= CARRY && !env_read_server(conn->push_head, n, cur->addr - avail)) {
		conn->session.push_len = n;
		return;
	}
	for (i = 0; i < PUSH_HEAD; i += 8)
		env_store64(conn->push_head + i, env_load64(bytes + i));
	conn->session.push_len = avail < PUSH_HEAD ? avail : PUSH_HEAD;
}

/*
 * More bytes of a push are at hand, in a piece that nothing was taken of yet: what follows without a gap on those that
 * are kept is kept, too. Payload is not looked at otherwise.
 */
env_noinline void push_keep_more(struct connection *conn, struct work *work)
{
	const struct cursor *cur = &work->cur;
	__u64 seen = conn->written_bytes - cur->rest - cur->left - conn->reply.reply.start;
	__u64 kept = conn->session.push_len, n = cur->left;

	env_opaque(kept);
	if (seen != kept || kept >= PUSH_HEAD)
		return;
	if (n > PUSH_HEAD - kept)
		n = PUSH_HEAD - kept;
	env_opaque(n);
	if (n <= PUSH_HEAD && !env_read_server(conn->push_head + kept, n, cur->addr))
		conn->session.push_len = kept + n;
}

/* A push, or a message of RESP2. Between the elements of a reply (redis 6.0 does that) it is a frame of its own. */
static __always_inline int push_begins(struct connection *conn, struct work *work, const __u8 *bytes, __u32 avail,
				       __u32 kind)
{
	struct reply_framing *r = &conn->reply;

	if (r->owed) {
		conn->session.outer = r->reply;
		conn->session.outer_owed = r->owed;
		r->outer_type = r->type;
		r->interrupts = 1;
		piece_begin(&r->reply, reply_position(conn, work));
	}
	frame_begin(conn, FRAME_PUSH, *bytes);
	r->unsubscribes = kind == (__u32)PUBSUB_CONFIRMATIONS + COMMAND_SUNSUBSCRIBE;
	r->may_confirm = 0;
	push_keep(conn, work, bytes, avail);
	return STEP_ON;
}

/* Without any subscription an array in RESP2 is no message, whatever it says. */
static __always_inline bool session_is_subscribed(const struct connection *conn)
{
	const __u32 *n = conn->session.subscribed;

	return n[SUBSCRIBED_CHANNELS] || n[SUBSCRIBED_PATTERNS] || n[SUBSCRIBED_SHARDS];
}

/* What looks like the first confirmation of the command at hand is unasked only when there is a subscription to end. */
static __always_inline bool sunsubscribe_may_be_unasked(const struct connection *conn, const struct tracked_command *tracked)
{
	return server_has_slots() && tracked->class == COMMAND_SUNSUBSCRIBE && !conn->session.confirming &&
	       (conn->session.subscribed[SUBSCRIBED_SHARDS] || conn->session.doubtful);
}

/* Which of both it is will be decided when its channel is there. */
static __always_inline int sunsubscribe_begins(struct connection *conn, struct work *work, const __u8 *bytes, __u32 avail,
					       __u32 kind)
{
	push_begins(conn, work, bytes, avail, kind);
	conn->reply.may_confirm = 1;
	return STEP_ON;
}

/*
 * Does a confirmation that no command at hand asks for answer one that was not framed? Only a shard channel is taken away
 * unasked. When the connection has left and nothing is outstanding, even that is more likely asked for.
 */
static __always_inline bool confirmation_is_unasked(const struct connection *conn, __u32 kind)
{
	if (kind < PUBSUB_CONFIRMATIONS)
		return false;
	return kind != (__u32)PUBSUB_CONFIRMATIONS + COMMAND_SUNSUBSCRIBE || !server_has_slots() ||
	       (conn->mode == MODE_DRAINING && !outstanding(conn));
}

/* A frame that begins like a push or a message. kind: see pubsub_peek(). */
env_noinline int pubsub_begins(struct connection *conn, struct work *work, const __u8 *bytes, __u32 avail, __u32 kind)
{
	struct tracked_command *tracked = tracked_current(conn);

	if (conn->reply.owed && conn->reply.frame != FRAME_REPLY)
		return reply_verdict(work, REPLY_MALFORMED);
	if (!conn->reply.owed && tracked && kind == (__u32)PUBSUB_CONFIRMATIONS + tracked->class && !conn->session.multi) {
		if (sunsubscribe_may_be_unasked(conn, tracked))
			return sunsubscribe_begins(conn, work, bytes, avail, kind);
		return confirmation_begins(conn, tracked, *bytes);
	}
	if (conn->session.confirming)
		return reply_verdict(work, REPLY_MALFORMED);
	if (*bytes == '>')
		return confirmation_is_unasked(conn, kind) ? reply_verdict(work, REPLY_UNASKED)
							   : push_begins(conn, work, bytes, avail, kind);
	/* A subscriber of RESP3 may read lists that look like messages; those are pushes. */
	if (!session_is_subscribed(conn) || conn->session.resp == 3)
		return conn->session.doubtful && kind == (__u32)PUBSUB_CONFIRMATIONS + COMMAND_SUNSUBSCRIBE
			       ? reply_verdict(work, REPLY_DOUBTFUL)
			       : STEP_AGAIN;
	if (conn->session.resp != 2)
		return reply_verdict(work, REPLY_MALFORMED);
	if (confirmation_is_unasked(conn, kind))
		return reply_verdict(work, REPLY_UNASKED);
	return push_begins(conn, work, bytes, avail, kind);
}

/*
 * The reply behind a doubtful SUNSUBSCRIBE's. Its own one could be an error. Any other proves that the doubt was
 * needless.
 */
static __always_inline bool sunsubscribe_doubt_ends(struct connection *conn, __u8 type)
{
	if (type == '-')
		return false;
	conn->session.doubtful = 0;
	conn->subscriber = session_is_subscribed(conn) || tracked_outstanding(conn);
	return true;
}

/* Is the reply that begins one that is looked at? */
static __always_inline bool attribution_looks_at(const struct connection *conn)
{
	return conn->reply_seq >= conn->plain_until && !conn->session.exec_left;
}

/* Does a reply show all that may be looked at of it? A line does when it ends. */
static __always_inline bool attribution_has_enough(const __u8 *bytes, __u32 avail, __u8 class)
{
	__u32 i;

	if (*bytes != '+' && *bytes != '-')
		return class != COMMAND_HELLO || avail >= HELLO_PEEK;
	if (avail >= REFUSAL_PEEK)
		return true;
	for (i = 0; i < 4; i++)
		if (first_bytes(bytes_equal(env_load64(bytes + 8 * i), '\n'), avail > 8 * i ? avail - 8 * i : 0))
			return true;
	return false;
}

/* "%7\r\n$6\r\nserver" or, in RESP2, "*14\r\n...": the beginning of no other reply (helloCommand(), src/networking.c). */
static __always_inline bool is_hello(const __u8 *bytes)
{
	const __u64 server = WORD8('$', '6', '\r', '\n', 's', 'e', 'r', 'v');

	return (*bytes == '%' || *bytes == '*') && (env_load64(bytes + 4) == server || env_load64(bytes + 5) == server);
}

/* Can a command of this class be answered so, which is no error? */
static __always_inline bool reply_fits_class(__u8 class, const __u8 *bytes)
{
	__u64 head = env_load64(bytes);

	switch (class) {
	case COMMAND_MULTI:
	case COMMAND_DISCARD:
	case COMMAND_SELECT:
	case COMMAND_IDENTITY:
	case COMMAND_AUTH:
		return (head & 0xffffffffff) == OK_LINE;
	case COMMAND_RESET:
		return head == WORD8('+', 'R', 'E', 'S', 'E', 'T', '\r', '\n');
	case COMMAND_HELLO:
		return is_hello(bytes);
	case COMMAND_EXEC:
		return *bytes == '*' || *bytes == '_';
	}
	return !command_subscribes(class); /* those are confirmed */
}

/* The same of the command at hand, which may be queued in a transaction. QUIT never is. */
static __always_inline bool reply_fits(const struct connection *conn, __u8 class, const __u8 *bytes)
{
	__u64 head = env_load64(bytes);

	if (*bytes == '-' || *bytes == '!')
		return true;
	if (!conn->session.multi && (class == COMMAND_EXEC || class == COMMAND_DISCARD))
		return false;
	if (conn->session.multi && !command_ends_queueing(class))
		return head == QUEUED_LINE || (class == COMMAND_PLAIN && (head & 0xffffffffff) == OK_LINE);
	return reply_fits_class(class, bytes);
}

/* What the reply that begins may mean for those behind it. */
static __always_inline void attribution_weigh(struct connection *conn, const struct tracked_command *tracked,
					      const __u8 *bytes)
{
	if (conn->session.multi) {
		conn->reply.scripted = tracked->class == COMMAND_EXEC && conn->session.scripts;
		if (tracked->class == COMMAND_EXEC && conn->session.risky)
			pairing_doubt(conn);
		return;
	}
	conn->reply.scripted = tracked->class == COMMAND_SCRIPTING;
	if (may_be_unanswered(conn, tracked->class, tracked->seq) ||
	    (tracked->class == COMMAND_FOREIGN && !foreign_is_refused(bytes, tracked->number)))
		pairing_doubt(conn);
}

/* The bit of struct session's scripts for the n-th command queued, from 0 on. */
static __always_inline __u64 script_bit(__u64 n)
{
	return 1ULL << (n < 63 ? n : 63);
}

/*
 * An error, as a reply or inside one. Servers keep CR LF out of most; not out of what scripts raise and of what is said of
 * their text, nor out of hosts that they name (-REDIRECT: processCommand(), valkey 8.0 to 9.1 src/server.c). There it may
 * be any number of replies, or the beginning of one that takes in those behind it.
 */
static __always_inline void attribution_error(struct connection *conn)
{
	const struct session *session = &conn->session;

	if (session->exec_left ? session->scripts & script_bit(session->queued - session->exec_left) : conn->reply.scripted)
		pairing_doubt(conn);
}

/*
 * Errors that raise a doubt whatever they answer. -REDIRECT, -MOVED and -ASK name a host, which may be anything
 * (cluster-announce-ip; clusterRedirectClient() in src/cluster.c). -UNBLOCKED answers a command that CLIENT PAUSE has
 * postponed, and which is executed and answered later all the same (clientCommand() in redis 7.0 src/networking.c).
 */
static __always_inline bool error_is_doubtful(const __u8 *bytes)
{
	__u64 head = env_load64(bytes);

	return head == WORD8('-', 'R', 'E', 'D', 'I', 'R', 'E', 'C') ||
	       head == WORD8('-', 'U', 'N', 'B', 'L', 'O', 'C', 'K') ||
	       first_bytes(head, 7) == WORD8('-', 'M', 'O', 'V', 'E', 'D', ' ', 0) ||
	       first_bytes(head, 5) == WORD8('-', 'A', 'S', 'K', ' ', 0, 0, 0);
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
		pairing_doubt(conn);
	if (!attribution_looks_at(conn))
		return STEP_ON;
	if (conn->session.confirming)
		return reply_verdict(work, REPLY_MALFORMED);
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

/*
 * The header of EXEC's array. When each command since MULTI was queued, the n-th element answers the n-th of them.
 * Otherwise (a nested MULTI, or WATCH: they are refused, but the transaction goes on) EXEC is logged as a whole.
 */
static __always_inline bool exec_begins(struct connection *conn, struct work *work, __u64 n)
{
	struct session *session = &conn->session;

	conn->reply.exec_header = 0;
	if (!n || n != session->queued || n != conn->reply_seq - session->first_queued)
		return false;
	session->exec = conn->reply.reply;
	session->exec_left = n;
	session->exec_logged = 0;
	piece_begin(&conn->reply.reply, reply_position(conn, work));
	conn->reply.owed = 0;
	return true;
}

/* ---- a frame ends ---- */

/* The command at hand was queued. What it does when EXEC runs it is not followed: that makes the connection vaguer. */
static __always_inline long transaction_queued(struct connection *conn, struct work *work, __u8 class)
{
	if (class == COMMAND_SCRIPTING)
		conn->session.scripts |= script_bit(conn->session.queued);
	conn->session.queued++;
	dispatch_queued(conn);
	if (class == COMMAND_SELECT || class == COMMAND_FOREIGN)
		conn->session.db = -1;
	if (class == COMMAND_HELLO)
		conn->session.resp = 0;
	if (command_identifies(class))
		identity_lost(conn, work);
	if (class == COMMAND_FOREIGN)
		conn->from_start = 0;
	if (class == COMMAND_FOREIGN || (auth_may_be_silent() && (class == COMMAND_AUTH || class == COMMAND_HELLO)))
		conn->session.risky = 1;
	return command_subscribes(class) ? reply_verdict(work, REPLY_DRAINS) : 0;
}

/*
 * Are messages to be expected? A later command than the one at hand may subscribe, so that is not ruled out; nor is
 * what a doubt is about.
 */
static __always_inline void session_note_subscriber(struct connection *conn)
{
	conn->subscriber = session_is_subscribed(conn) || tracked_outstanding(conn) > 1 || conn->session.doubtful;
}

/* In doubt the error may be another command's, and this one may have changed who the client is. */
static __always_inline void refusal_is_doubtful(struct connection *conn)
{
	if (conn->doubt)
		conn->from_start = 0;
}

/* The command at hand has its reply, which was no error when ok. */
static __always_inline void attribution_apply(struct connection *conn, struct work *work,
					      const struct tracked_command *tracked, bool ok)
{
	struct session *session = &conn->session;

	switch (tracked->class) {
	case COMMAND_MULTI:
		if (!ok)
			break;
		session->multi = 1;
		session->risky = 0;
		session->scripts = 0;
		session->queued = 0;
		session->first_queued = conn->reply_seq + 1;
		break;
	case COMMAND_EXEC:
		session->multi = 0;
		conn->reply.exec_header = 0; /* a null has none */
		break;
	case COMMAND_DISCARD:
		session->multi &= !ok;
		break;
	case COMMAND_RESET:
		if (!ok) {
			refusal_is_doubtful(conn);
			break;
		}
		__builtin_memset(session, 0, sizeof(*session));
		session_note_subscriber(conn);
		identity_emit(conn, work, EVENT_IDENTITY);
		break;
	case COMMAND_SELECT:
		if (ok)
			session->db = tracked->number < TRACKED_NUMBER_MAX ? (__s32)tracked->number : -1;
		break;
	case COMMAND_IDENTITY:
	case COMMAND_AUTH:
	case COMMAND_HELLO:
		if (!ok && tracked->class == COMMAND_HELLO)
			identity_emit(conn, work, EVENT_IDENTITY_FAILED);
		if (!ok) {
			refusal_is_doubtful(conn);
			break;
		}
		session_learn_resp(conn, conn->reply.type);
		identity_emit(conn, work, EVENT_IDENTITY);
		break;
	case COMMAND_FOREIGN:
		if (!conn->reply.foreign)
			break;
		session->db = -1;
		/* Told by each record from now on: a module's commands may be as many as any. */
		conn->from_start = 0;
		module_has_run();
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

static __always_inline long push_ends(struct connection *conn, struct work *work, __u64 position, __u64 bytes)
{
	struct reply_framing *r = &conn->reply;
	struct session *session = &conn->session;

	if (bytes >= reply_threshold())
		piece_emit(conn, work, &r->reply, 0, KIND_PUSH);
	if (session->exec_left)
		session->exec.start += bytes;
	r->frame = FRAME_REPLY;
	if (!r->interrupts) {
		piece_begin(&r->reply, position);
		return 0;
	}
	r->interrupts = 0;
	r->reply = session->outer;
	r->reply.start += bytes;
	r->owed = session->outer_owed;
	r->type = r->outer_type;
	return 0;
}

/*
 * The push at hand ends, or is cut off: unless it is surely unasked, it is the first confirmation of the command at
 * hand. That is all but always so, and a doubt is left.
 */
static __always_inline void sunsubscribe_decide(struct connection *conn)
{
	struct session *session = &conn->session;
	struct tracked_command *tracked = tracked_current(conn);

	if (conn->reply.frame != FRAME_PUSH || !conn->reply.may_confirm || !tracked || unasked_surely(conn))
		return;
	conn->reply.frame = FRAME_CONFIRMATION;
	session->unconfirmed = tracked->number ? tracked->number : session->subscribed[SUBSCRIBED_SHARDS] + 1;
	session->confirming = session->doubtful = 1;
	session_learn_resp(conn, conn->reply.type);
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

/* A confirmation says how many subscriptions there are now: of shards, or of channels and patterns together. */
static __always_inline int session_count_subscriptions(struct connection *conn, __u64 n)
{
	struct tracked_command *tracked = tracked_current(conn);
	__u32 *subscribed = conn->session.subscribed, kind, others;

	if (conn->reply.frame == FRAME_PUSH)
		kind = SUBSCRIBED_SHARDS;
	else if (tracked)
		kind = subscription_kind(tracked->class);
	else
		return -1;
	others = kind == SUBSCRIBED_SHARDS
			 ? 0
			 : subscribed[kind == SUBSCRIBED_CHANNELS ? SUBSCRIBED_PATTERNS : SUBSCRIBED_CHANNELS];
	if (n < others)
		return -1;
	subscribed[kind] = n - others;
	return 0;
}

/* ---- a write ends, the connection closes ---- */

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

/* Is a large reply, or one that is going to be large, under way? */
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
