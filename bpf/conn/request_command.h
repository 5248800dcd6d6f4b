/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A command that is read, in either form: where its head is kept, when it is complete, and what its name says of the
 * replies to come.
 */
#ifndef REPLYLOG_BPF_CONN_REQUEST_COMMAND_H
#define REPLYLOG_BPF_CONN_REQUEST_COMMAND_H

#include "bpf/conn/argv_log.h"
#include "bpf/conn/tracked_command.h"
#include "bpf/resp/foreign.h"

/* REQUEST_MALFORMED comes with a form: see VERDICT_OF_FORM(). */
enum request_verdict {
	REQUEST_OK = 0,
	REQUEST_DRAINS,           /* the current command ends the session: see its class */
	REQUEST_TOO_MANY_TRACKED, /* there is no room for one more of them */
	REQUEST_MALFORMED,        /* not RESP, or a form that is refused; the server will say so and close */
	REQUEST_UNREADABLE,       /* the server's memory could not be read */
};

static __always_inline int request_verdict(struct work *work, __u32 verdict)
{
	work->verdict = verdict;
	return STEP_STOP;
}

/* Bytes that are no request, or of a form that is refused. */
static __always_inline int request_refused(struct work *work, enum debug_form form)
{
	return request_verdict(work, VERDICT_OF_FORM(REQUEST_MALFORMED, form));
}

/* Bytes of the current command's head, appended or not. */
static __always_inline __u32 request_head_len(struct connection *conn, struct work *work)
{
	const struct argv_page *page = argv_page(conn);

	return page->used + (work->cur.pos - work->run) - conn->request.head_off;
}

static __always_inline void request_flush(struct connection *conn, struct work *work)
{
	if (!conn->request.beyond_head)
		argv_append(conn, work, work->run, work->cur.pos);
	work->run = work->cur.pos;
}

static __always_inline void request_start_run(struct connection *conn, struct work *work)
{
	work->run = work->cur.pos;
	argv_make_room(conn, work->cur.end - work->cur.pos);
}

/* More bytes at pos, or the end of this read. */
env_noinline int request_more(struct connection *conn, struct work *work)
{
	request_flush(conn, work);
	if (!work->cur.left)
		return STEP_STOP;
	if (window_refill(work))
		return request_verdict(work, REQUEST_UNREADABLE);
	request_start_run(conn, work);
	return STEP_ON;
}

static __always_inline void request_head_ends(struct connection *conn, struct work *work)
{
	request_flush(conn, work);
	conn->request.beyond_head = 1;
}

static __always_inline __u64 request_position(struct connection *conn, struct work *work)
{
	return conn->read_bytes - cursor_unparsed(&work->cur);
}

/* The page has no entry left for one more command. */
env_noinline int request_turn_page(struct connection *conn, struct work *work)
{
	request_flush(conn, work);
	return argv_open_block(conn);
}

/* A command begins at pos. Where in the page its head is going to be. */
static __always_inline __u32 request_head_start(struct connection *conn, struct work *work)
{
	struct argv_page *page = argv_page(conn);

	if (!conn->head_lost && page->entries >= (conn->in_block ? BLOCK_ENTRIES : INLINE_ENTRIES)) {
		request_turn_page(conn, work);
		page = argv_page(conn);
	}
	return page->used + (work->cur.pos - work->run);
}

static __always_inline void request_begin(struct connection *conn, struct work *work, __u8 state)
{
	struct request_framing *q = &conn->request;

	q->head_off = request_head_start(conn, work);
	q->command_start = request_position(conn, work);
	q->arg = 0;
	q->number = TRACKED_NUMBER_MAX;
	q->class = COMMAND_PLAIN;
	q->inline_words = 0;
	q->inline_blanks = 0;
	q->state = state;
}

static __always_inline void request_boundary(struct connection *conn, struct work *work)
{
	struct request_framing *q = &conn->request;

	q->state = REQUEST_BOUNDARY;
	if (q->beyond_head) {
		q->beyond_head = 0;
		request_start_run(conn, work);
	}
}

/* What the reply of the current command will be looked at with; see struct tracked_command. */
static __always_inline __u32 request_number(const struct request_framing *q)
{
	return q->class == COMMAND_SELECT || q->class == COMMAND_FOREIGN ? q->number : q->arg - 1;
}

/* The command ends at pos; the last line_end bytes before it are not part of its head. */
static __always_inline int request_complete(struct connection *conn, struct work *work, __u32 line_end)
{
	__u32 pending = conn->request.beyond_head ? 0 : work->cur.pos - line_end - work->run;
	__u32 off = conn->request.head_off;

	if (command_is_tracked(conn->request.class) &&
	    tracked_add(conn, conn->request.class, request_number(&conn->request)))
		return request_verdict(work, REQUEST_TOO_MANY_TRACKED);
	argv_push(conn, off, argv_page(conn)->used + pending - off, work->now,
		  request_position(conn, work) - conn->request.command_start);
	conn->read_seq++;
	request_boundary(conn, work);
	return STEP_ON;
}

static __always_inline int request_classify(struct connection *conn, struct work *work, __u8 class)
{
	conn->request.class = class;
	return command_drains(class) ? request_verdict(work, REQUEST_DRAINS) : STEP_ON;
}

/* The database that a SELECT names, when it is a short number and all there. */
static __always_inline __u32 request_db(const __u8 *arg, __u64 len)
{
	__s64 db = -1;

	if (len >= 1 && len <= 7)
		db = digits_parse(env_load64(arg), (1ULL << 8 * len) - 1, len);
	return db < 0 ? TRACKED_NUMBER_MAX : db;
}

/* What is looked at of a name: more than any that we know, and what ends it. */
#define NAME_PEEK 16

/* Where the lowest mark is in two words, NAME_PEEK when there is none. */
static __always_inline __u32 peek_first(__u64 head, __u64 tail)
{
	if (head)
		return bytes_count(bytes_below(head));
	return tail ? 8 + bytes_count(bytes_below(tail)) : NAME_PEEK;
}

static __always_inline __u32 peek_find(const __u8 *bytes, __u8 c)
{
	return peek_first(bytes_equal(env_load64(bytes), c), bytes_equal(env_load64(bytes + 8), c));
}

/* A name that is longer is none that a server knows. */
#define NAME_LEN_MAX 65535

/* How much of a name of len bytes must be there to be sure of it. */
static __always_inline __u32 name_needs(__u64 len)
{
	if (len > NAME_LEN_MAX)
		return 0;
	return len <= NAME_PEEK ? len : NAME_PEEK;
}

/*
 * Servers hash a name whole but compare it as a C string: "MULTI" with a zero byte and more behind it is MULTI when both
 * fall into one bucket (dictSdsKeyCaseCompare() in redis 7.0, hashtableStringKeyCaseCompare() in valkey 9.1, both in
 * src/server.c). It may be any command, then.
 */
static __always_inline bool name_is_doubtful(const __u8 *name, __u64 len)
{
	return len > NAME_LEN_MAX || peek_find(name, 0) < (len <= NAME_MAX ? len : NAME_MAX + 1);
}

/* The number behind SELECT. -1 to come again. */
static __always_inline int request_number_of_db(struct connection *conn, struct work *work, const __u8 *arg, __u32 avail,
						__u64 len)
{
	if (len > 7)
		return STEP_ON;
	if (avail < len)
		return request_more(conn, work) ? STEP_STOP : -1;
	conn->request.number = request_db(arg, len);
	return STEP_ON;
}

/* What a command of this name is. */
static __always_inline __u8 request_command_class(struct request_framing *q, const __u8 *name, __u64 len)
{
	__u8 class = command_class(name, len);

	if (class != COMMAND_PLAIN || command_is_known(name, len))
		return class;
	q->number = foreign_mark_of(name, len);
	return COMMAND_FOREIGN;
}

/*
 * CLIENT REPLY ON changes nothing where nothing is off, and is answered. That is certain where all is exact: what turns
 * replies off leaves. The servers compare without regard to case (clientCommand() in redis 7.0, clientReplyCommand() in
 * valkey 9.1, both in src/networking.c).
 */
static __always_inline bool reply_mode_is_on(const struct connection *conn, const __u8 *mode)
{
	return ((env_load64(mode) | 0x2020) & 0xffff) == ('o' | 'n' << 8) && conn->attribution == ATTRIBUTION_EXACT;
}

/* The argument of CLIENT REPLY. STEP_STOP with a verdict if it leaves, -1 to come again. */
static __always_inline int request_reply_mode(struct connection *conn, struct work *work, const __u8 *mode, __u32 avail,
					      __u64 len)
{
	if (len == 2 && avail < 2)
		return request_more(conn, work) ? STEP_STOP : -1;
	return request_classify(conn, work, len == 2 && reply_mode_is_on(conn, mode) ? COMMAND_PLAIN : COMMAND_REPLY_MODE);
}

/* Looks at a name that may change what replies come. STEP_STOP with a verdict if it does, -1 to come again. */
static __always_inline int request_name(struct connection *conn, struct work *work, const __u8 *name, __u32 avail, __u64 len)
{
	struct request_framing *q = &conn->request;

	__u8 class;

	if (q->class == COMMAND_SELECT)
		return request_number_of_db(conn, work, name, avail, len);
	if (q->class == COMMAND_REPLY_MODE)
		return request_reply_mode(conn, work, name, avail, len);
	if (avail < name_needs(len))
		return request_more(conn, work) ? STEP_STOP : -1;
	if (name_is_doubtful(name, len))
		return request_classify(conn, work, COMMAND_OPAQUE);
	class = q->arg ? subcommand_class(q->class, name, len) : request_command_class(q, name, len);
	if (class != COMMAND_REPLY_MODE)
		return request_classify(conn, work, class);
	q->class = class; /* the next argument tells */
	return STEP_ON;
}

#endif
