/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Framing of replies: finds where each reply ends and how many bytes it had. The n-th reply that is no push answers the
 * n-th command; what that does to the connection is in attribution.h.
 *
 * Nesting needs no stack. owed counts the elements that complete the reply: it starts at 1, each element takes one
 * away, an aggregate of n adds n (2n for a map; an attribute, which is no element itself, adds 2n).
 */
#ifndef REPLYLOG_BPF_CONN_REPLY_H
#define REPLYLOG_BPF_CONN_REPLY_H

#include "bpf/conn/attribution.h"

static __always_inline long reply_element_done(struct connection *conn, struct work *work)
{
	return conn->reply.owed ? 0 : attribution_frame_ends(conn, work);
}

/* The next piece of this write. Only when there is one. */
static __always_inline int reply_next_piece(struct connection *conn, struct work *work)
{
	if (cursor_next_piece(work))
		return -1;
	if (conn->reply.frame == FRAME_PUSH)
		push_keep_more(conn, work);
	return 0;
}

/* More bytes at pos, or the end of this write. */
env_noinline long reply_more(struct connection *conn, struct work *work)
{
	if (!work->cur.left) {
		if (!work->cur.rest)
			return 1;
		if (reply_next_piece(conn, work))
			return reply_verdict(work, REPLY_UNREADABLE);
		if (!work->cur.left)
			return 0;
	}
	if (window_refill(work))
		return reply_verdict(work, REPLY_UNREADABLE);
	return 0;
}

/* Passes payload without looking at it, over as many pieces as it takes. */
static __always_inline long reply_payload(struct connection *conn, struct work *work)
{
	struct reply_framing *r = &conn->reply;
	struct cursor *cur = &work->cur;

	r->skip = cursor_skip(cur, r->skip);
	if (!r->skip)
		return reply_element_done(conn, work);
	if (!cur->rest)
		return 1;
	if (reply_next_piece(conn, work))
		return reply_verdict(work, REPLY_UNREADABLE);
	return 0;
}

/* Byte n - 1 of a word, n from 1 to 8. */
static __always_inline __u8 word_byte(__u64 word, __u32 n)
{
	return word >> (8 * (n - 1) & 63);
}

/* A line of any length, up to its CR LF: a word at a time. */
static __always_inline long reply_line(struct connection *conn, struct work *work, const __u8 *bytes, __u32 avail)
{
	__u64 word = env_load64(bytes), marks = bytes_equal(word, '\n');
	__u32 n = marks ? bytes_count(bytes_below(marks)) : 8, limit = avail < 8 ? avail : 8;
	bool behind_cr;

	if (n >= limit) {
		work->cur.pos += limit;
		conn->reply.line = word_byte(word, limit) == '\r' ? LINE_BEHIND_CR : LINE_INSIDE;
		return 0;
	}
	behind_cr = n ? word_byte(word, n) == '\r' : conn->reply.line == LINE_BEHIND_CR;
	work->cur.pos += n + 1;
	conn->reply.line = behind_cr ? LINE_NONE : LINE_INSIDE;
	return behind_cr ? reply_element_done(conn, work) : 0;
}

/* Does the last element of the current frame say to how much the client is subscribed? */
static __always_inline bool reply_confirms(const struct reply_framing *r)
{
	return r->frame == FRAME_CONFIRMATION || (r->frame == FRAME_PUSH && r->unsubscribes);
}

static __always_inline bool reply_is_line(__u8 type)
{
	return type == '+' || type == '-' || type == ':' || type == '_' || type == '#' || type == ',' || type == '(';
}

/* How many elements an aggregate of n adds, or -1 when type is no aggregate. */
static __always_inline __s64 reply_owes(__u8 type, __u64 n)
{
	if (type == '*' || type == '~' || type == '>')
		return n;
	if (type == '%' || type == '|')
		return 2 * n;
	return -1;
}

/* The last element of a confirmation: to how much the client is subscribed now. */
static __always_inline long reply_confirmed_number(struct connection *conn, struct work *work, const __u8 *header,
						   __u32 avail)
{
	__u64 n = 0;
	int size = resp_number((const struct resp_header *)header, avail, &n);

	if (size == RESP_SHORT)
		return reply_more(conn, work);
	if (size < 0 || conn->reply.owed != 1 || session_count_subscriptions(conn, n))
		return reply_refused(work, FORM_CONFIRMATION);
	work->cur.pos += size;
	conn->reply.owed = 0;
	return attribution_frame_ends(conn, work);
}

static __always_inline long reply_header(struct connection *conn, struct work *work, const __u8 *header, __u32 avail)
{
	struct reply_framing *r = &conn->reply;
	__u8 type = *header;
	__u64 n = 0;
	__s64 owes;
	int size;

	if (reply_is_line(type)) {
		if (type == ':' && reply_confirms(r))
			return reply_confirmed_number(conn, work, header, avail);
		if (type == '-')
			attribution_error(conn);
		r->owed--;
		return reply_line(conn, work, header, avail);
	}
	size = resp_number((const struct resp_header *)header, avail, &n);
	if (size == RESP_SHORT)
		return reply_more(conn, work);
	if (size == RESP_NULL && (type == '$' || type == '*')) {
		work->cur.pos += 5;
		r->owed--;
		return reply_element_done(conn, work);
	}
	if (size < 0)
		return reply_refused(work, FORM_REPLY_HEADER);
	work->cur.pos += size;
	if (type == '$' || type == '=' || type == '!') {
		r->owed--;
		r->skip = n + 2;
		return reply_payload(conn, work);
	}
	if (r->exec_header && exec_begins(conn, work, n))
		return 0;
	owes = reply_owes(type, n);
	if (owes < 0)
		return reply_refused(work, FORM_REPLY_TYPE);
	r->owed += owes;
	if (type != '|')
		r->owed--;
	return reply_element_done(conn, work);
}

/* Replies that reply_whole() looks at in one step. */
#define WHOLE_REPLIES 8

/* What starts here may be a short line, or a bulk with a short header. */
static __always_inline void reply_learn(struct header_cache *cache, const __u8 *start)
{
	__u64 marks, n = 0;
	__u32 header = 0;

	if (*start == '$') {
		header = resp_short_number(start, &n);
		return header_cache_learn(cache, start, header, n + 2);
	}
	marks = reply_is_line(*start) ? bytes_equal(env_load64(start), '\n') : 0;
	n = marks ? bytes_count(bytes_below(marks)) : 0;
	header_cache_learn(cache, start, n && word_byte(env_load64(start), n) == '\r' ? n + 1 : 0, 0);
}

/* The size of what starts here, when it is one of those and all in avail; else 0. */
static __always_inline __u64 reply_whole_size(struct work *work, const __u8 *start, __u32 avail)
{
	struct header_cache *cache = &work->reply_headers;
	__u32 size;

	if (!header_cache_knows(cache, start))
		reply_learn(cache, start);
	size = env_reload(cache->size);
	return size <= avail ? size : 0;
}

/* How many replies, or elements of the current reply, need nothing but to be counted. */
static __always_inline __u64 reply_countable(const struct connection *conn)
{
	__u64 commands = outstanding(conn), plain = conn->plain_until - conn->reply_seq;

	if (conn->reply.owed)
		return reply_confirms(&conn->reply) ? 0 : conn->reply.owed;
	return commands < plain ? commands : plain;
}

/*
 * Do the next WHOLE_REPLIES all begin like the last one? Then they are as far apart as that one is long, and none has to
 * wait for the one before it.
 */
static __always_inline bool reply_row(const struct header_cache *cache, const __u8 *start, __u32 avail, __u64 small)
{
	__u32 size = cache->size, i;
	__u64 differ = 0;

	if (!size || size >= small || size > WINDOW / WHOLE_REPLIES || size * WHOLE_REPLIES > avail)
		return false;
	if ((cache->header & 0xff) == '-')
		return false;
	for (i = 0; i < WHOLE_REPLIES; i++)
		differ |= (env_load64(start + i * size) & cache->mask) ^ cache->header;
	return !differ;
}

/* How many of the next ones, most at most, are small, whole and in the window. They end at work->at. */
static __always_inline __u32 reply_each(struct work *work, const __u8 *start, __u32 avail, __u64 most, __u64 small)
{
	__u64 size;
	__u32 at, i;

	work->at = 0;
	for (i = 0; i < WHOLE_REPLIES; i++) {
		at = env_reload(work->at);
		env_opaque(at);
		if (at >= WINDOW || at >= avail || i >= most)
			break;
		if (start[at] == '-') /* what it means is looked at */
			break;
		size = reply_whole_size(work, start + at, avail - at);
		if (!size || size >= small)
			break;
		work->at = at + size;
	}
	return i;
}

/*
 * The short cut for small replies, or for small elements of the current reply, that lie in the window: a few of them at
 * once, with nothing stored in between. Stops at what is large, cut, nested, unasked or looked at. False: nothing was
 * passed.
 */
static __always_inline bool reply_whole(struct connection *conn, struct work *work, const __u8 *start, __u32 avail)
{
	bool inside = conn->reply.owed;
	__u64 most = reply_countable(conn), small = inside ? ~0ULL : reply_threshold();
	__u32 at, passed;

	if (most >= WHOLE_REPLIES && reply_row(&work->reply_headers, start, avail, small)) {
		passed = WHOLE_REPLIES;
		work->at = work->reply_headers.size * WHOLE_REPLIES;
	} else {
		passed = reply_each(work, start, avail, most, small);
	}
	at = env_reload(work->at);
	if (!at)
		return false;
	work->cur.pos += at;
	if (inside) {
		conn->reply.owed -= passed;
		reply_element_done(conn, work);
	} else {
		conn->reply.reply.start += at;
		conn->reply_seq += passed;
	}
	return true;
}

/* What begins at pos answers a command. STEP_AGAIN: more of it is there now. */
static __always_inline int reply_answer_begins(struct connection *conn, struct work *work, const __u8 *bytes, __u32 avail)
{
	const struct tracked_command *tracked;

	if (attribution_looks_at(conn) || *bytes == '-') {
		tracked = tracked_current(conn);
		if (!attribution_has_enough(bytes, avail, tracked ? tracked->class : COMMAND_PLAIN))
			return reply_more(conn, work) ? STEP_STOP : STEP_AGAIN;
	}
	return attribution_reply_begins(conn, work, bytes);
}

/* A frame begins at pos, or a push between two elements of a reply. STEP_ON: its header is to be parsed. */
static __always_inline int reply_begin(struct connection *conn, struct work *work, const __u8 *bytes, __u32 avail)
{
	__u8 type = *bytes;
	__u64 elements;
	__u32 kind;
	int begun;

	if (type != '>' && (type != '*' || !conn->subscriber))
		return reply_answer_begins(conn, work, bytes, avail);
	/* A push begins only when its whole header is there: what begins like one inside another frame is refused. */
	kind = pubsub_peek(bytes, avail);
	if (kind == PUBSUB_SHORT || resp_number((const struct resp_header *)bytes, avail, &elements) == RESP_SHORT)
		return reply_more(conn, work) ? STEP_STOP : STEP_AGAIN;
	if (type != '>' && kind == PUBSUB_OTHER)
		return reply_answer_begins(conn, work, bytes, avail);
	begun = pubsub_begins(conn, work, bytes, avail, kind);
	return begun == STEP_AGAIN ? reply_answer_begins(conn, work, bytes, avail) : begun;
}

static long reply_step(__u32 i, void *data)
{
	struct connection *conn = ((struct frame *)data)->conn;
	struct work *work = ((struct frame *)data)->work;
	__u32 pos = work->cur.pos, avail = work->cur.end - pos;
	const __u8 *bytes;
	int begun;

	if (conn->reply.skip)
		return reply_payload(conn, work);
	if (!avail)
		return reply_more(conn, work);
	env_opaque(pos);
	if (pos >= WINDOW_END)
		return reply_refused(work, FORM_REPLY_LONG);
	bytes = work->bytes + pos;
	if (conn->reply.line)
		return reply_line(conn, work, bytes, avail);
	if (reply_whole(conn, work, bytes, avail))
		return work->cur.pos == work->cur.end ? reply_more(conn, work) : 0;
	if (!conn->reply.owed || *bytes == '>') {
		begun = reply_begin(conn, work, bytes, avail);
		if (begun)
			return begun == STEP_STOP;
	}
	return reply_header(conn, work, bytes, avail);
}

static __always_inline __u32 reply_frame(struct connection *conn, struct work *work, __u64 len)
{
	struct reply_framing *r = &conn->reply;
	struct frame frame = { .conn = conn, .work = work };
	__u64 steps = 2 * len + 2 * IOV_MAX + 4;

	if (r->carried)
		carry_restore(&conn->reply_carry, work);
	work->now = 0;
	work->verdict = REPLY_OK;
	if (r->frame == FRAME_PUSH && work->cur.left)
		push_keep_more(conn, work);
	if (r->skip || !reply_more(conn, work))
		env_loop(steps < ENV_LOOP_MAX ? steps : ENV_LOOP_MAX, reply_step, &frame);
	r->carried = work->cur.end - work->cur.pos;
	if (r->carried)
		carry_save(&conn->reply_carry, work, work->cur.end);
	if (work->verdict == REPLY_OK && (work->cur.left || work->cur.rest || r->carried >= CARRY))
		reply_refused(work, FORM_REPLY_LONG);
	if (work->verdict == REPLY_OK)
		attribution_pauses(conn, work);
	return work->verdict;
}

/* Frames the len bytes the kernel has just accepted from addr. */
static __always_inline __u32 reply_frame_buffer(struct connection *conn, struct work *work, __u64 addr, __u64 len)
{
	conn->written_bytes += len;
	cursor_on_buffer(&work->cur, addr, len, conn->reply.carried);
	return reply_frame(conn, work, len);
}

/* Frames the first len bytes of the iovec array at addr, which the kernel has just accepted. */
static __always_inline __u32 reply_frame_iovec(struct connection *conn, struct work *work, __u64 addr, __u32 iovcnt,
					       __u64 len)
{
	conn->written_bytes += len;
	cursor_on_iovec(&work->cur, addr, iovcnt, len, conn->reply.carried);
	return reply_frame(conn, work, len);
}

#endif
