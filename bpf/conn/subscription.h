/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Subscriptions, and what is written to a subscriber. The confirmations of a subscribing command together are its reply,
 * in RESP3 too, where they are push frames. Pushes and messages answer no command, wherever they come; between the
 * elements of a reply they are none of its bytes.
 */
#ifndef REPLYLOG_BPF_CONN_SUBSCRIPTION_H
#define REPLYLOG_BPF_CONN_SUBSCRIPTION_H

#include "bpf/conn/piece.h"
#include "bpf/conn/server_sunsubscribe.h"
#include "bpf/conn/tracked_command.h"
#include "bpf/resp/pubsub.h"

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
 * More bytes of a push have come, in a piece of which nothing was parsed yet: what follows without a gap on those that
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

/* What looks like the first confirmation of the current command is unasked only when there is a subscription to end. */
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
 * Does a confirmation that no outstanding command asks for answer a command that was not framed? Only a shard channel
 * is taken away unasked. When the connection has left and nothing is outstanding, even that is more likely asked for.
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
		return reply_refused(work, FORM_NESTED_PUSH);
	if (!conn->reply.owed && tracked && kind == (__u32)PUBSUB_CONFIRMATIONS + tracked->class && !conn->session.multi) {
		if (sunsubscribe_may_be_unasked(conn, tracked))
			return sunsubscribe_begins(conn, work, bytes, avail, kind);
		return confirmation_begins(conn, tracked, *bytes);
	}
	if (conn->session.confirming)
		return reply_refused(work, FORM_CONFIRMED_OTHER);
	if (*bytes == '>')
		return confirmation_is_unasked(conn, kind) ? reply_verdict(work, REPLY_UNASKED)
							   : push_begins(conn, work, bytes, avail, kind);
	/* A subscriber of RESP3 may read lists that look like messages; those are pushes. */
	if (!session_is_subscribed(conn) || conn->session.resp == 3)
		return conn->session.doubtful && kind == (__u32)PUBSUB_CONFIRMATIONS + COMMAND_SUNSUBSCRIBE
			       ? reply_verdict(work, REPLY_DOUBTFUL)
			       : STEP_AGAIN;
	if (conn->session.resp != 2)
		return reply_refused(work, FORM_RESP_UNKNOWN);
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

/*
 * Are messages to be expected? A command after the current one may subscribe, so that is not ruled out; nor is
 * what a doubt is about.
 */
static __always_inline void session_note_subscriber(struct connection *conn)
{
	conn->subscriber = session_is_subscribed(conn) || tracked_outstanding(conn) > 1 || conn->session.doubtful;
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
 * The current push ends, or is cut off: unless it is surely unasked, it is the first confirmation of the current
 * command. That is all but always so, and a doubt is left.
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

#endif
