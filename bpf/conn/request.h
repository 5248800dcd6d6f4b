/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Framing of requests: finds where each command ends, numbers it and keeps its head. Follows the server's own reader
 * (processMultibulkBuffer() and processInlineBuffer() in redis 7.0 and valkey 9.1 src/networking.c), lenience included.
 */
#ifndef REPLYLOG_BPF_CONN_REQUEST_H
#define REPLYLOG_BPF_CONN_REQUEST_H

#include "bpf/conn/request_command.h"
#include "bpf/conn/request_inline.h"

static __always_inline int request_argument_done(struct connection *conn, struct work *work)
{
	struct request_framing *q = &conn->request;

	q->arg++;
	q->args_left--;
	if (!q->args_left)
		return request_complete(conn, work, 0);
	if (q->arg == ARGV_MAX_ARGS)
		request_head_ends(conn, work);
	return STEP_ON;
}

/* Passes payload: first what the head keeps of it, then the rest without looking at it. */
static __always_inline int request_payload(struct connection *conn, struct work *work)
{
	struct request_framing *q = &conn->request;
	struct cursor *cur = &work->cur;
	__u32 n = cur->end - cur->pos;

	if (q->keep) {
		if (n > q->keep)
			n = q->keep;
		cur->pos += n;
		q->keep -= n;
		q->skip -= n;
		if (q->keep)
			return request_more(conn, work);
	}
	if (q->skip) {
		request_flush(conn, work);
		q->skip = cursor_skip(cur, q->skip);
		request_start_run(conn, work);
		if (q->skip)
			return STEP_STOP;
	}
	return request_argument_done(conn, work);
}

/* "*01" is no number to the server (string2ll() in src/util.c). */
static __always_inline bool has_needless_zero(const __u8 *header, int size)
{
	return header[1] == '0' && size != 4;
}

/* A multibulk of less than no arguments is passed over without a reply, as "*0" is. */
static __always_inline int request_negative(struct connection *conn, struct work *work, const __u8 *header, __u32 avail)
{
	int size = resp_negative((const struct resp_header *)header, avail);

	if (size == RESP_SHORT)
		return request_more(conn, work);
	if (size < 0)
		return request_refused(work, FORM_REQUEST_ARGC);
	work->cur.pos += size;
	return STEP_ON;
}

/* The start of a multibulk: "*<argc>". An argc of 0 is no command and gets no reply. */
static __always_inline int request_multibulk(struct connection *conn, struct work *work, const __u8 *header, __u32 avail)
{
	struct request_framing *q = &conn->request;
	__u64 argc = 0;
	int size;

	if (header[1] == '-')
		return request_negative(conn, work, header, avail);
	size = resp_number((const struct resp_header *)header, avail, &argc);
	if (size == RESP_SHORT)
		return request_more(conn, work);
	if (size < 0 || argc > 0x7fffffff)
		return request_refused(work, FORM_REQUEST_ARGC);
	/* "*0\rx" is no empty command: the server answers it with an error, and closes. */
	if (has_needless_zero(header, size) || (!argc && header[3] != '\n'))
		return request_refused(work, FORM_REQUEST_ARGC);
	if (argc) {
		request_begin(conn, work, REQUEST_ARGS);
		q->args_left = argc;
	}
	work->cur.pos += size;
	return STEP_ON;
}

/* How much of an argument's payload (and CRLF) the head keeps; marks the header when that is not all. */
static __always_inline __u32 request_keep(struct connection *conn, struct work *work, __u8 *header, __u32 size, __u64 len)
{
	const struct cursor *cur = &work->cur;

	if (conn->request.beyond_head)
		return 0;
	if (len <= ARGV_MAX_ARG_BYTES)
		return len + 2;
	if (len <= ARGV_RAW_BUDGET && cur->pos + size + len + 2 <= cur->end &&
	    request_head_len(conn, work) + len <= ARGV_RAW_BUDGET)
		return len + 2;
	*header = '!';
	return ARGV_MAX_ARG_BYTES;
}

/* Does the argument that begins here say what replies come? */
static __always_inline bool request_looks_at(const struct request_framing *q)
{
	if (q->arg == 1)
		return command_is_container(q->class) || q->class == COMMAND_SELECT;
	return !q->arg || (q->arg == 2 && q->class == COMMAND_REPLY_MODE);
}

/* The start of an argument: "$<len>". */
static __always_inline int request_argument(struct connection *conn, struct work *work, __u8 *header, __u32 avail)
{
	struct request_framing *q = &conn->request;
	__u64 len = 0;
	int size, step;

	if (*header != '$')
		return request_refused(work, FORM_REQUEST_ARGUMENT);
	size = resp_number((const struct resp_header *)header, avail, &len);
	if (size == RESP_SHORT)
		return request_more(conn, work);
	if (size < 0 || has_needless_zero(header, size))
		return request_refused(work, FORM_REQUEST_LENGTH);
	if (request_looks_at(q)) {
		step = request_name(conn, work, header + (size & 31), avail - size, len);
		if (step)
			return step < 0 ? STEP_ON : STEP_STOP;
	}
	q->keep = request_keep(conn, work, header, size, len);
	q->skip = len + 2;
	work->cur.pos += size;
	return request_payload(conn, work);
}

/* What starts here may be an argument of at most ARGV_MAX_ARG_BYTES bytes. */
static __always_inline void argument_learn(struct header_cache *cache, const __u8 *start)
{
	__u64 len = 0;
	__u32 header = *start == '$' ? resp_short_number(start, &len) : 0;

	header_cache_learn(cache, start, len > ARGV_MAX_ARG_BYTES ? 0 : header, len + 2);
}

/*
 * Is the name that an argument at start says that of a plain command of the server's own? All of it is there. Most are
 * the one that was looked up last.
 */
static __always_inline bool argument_is_plain(struct work *work, const __u8 *start)
{
	struct header_cache *cache = &work->arg_headers[0];
	__u32 payload = env_reload(cache->payload) & 15;
	__u32 len = env_reload(cache->size) - payload - 2;
	__u64 name = 0;

	if (len < 8) {
		name = first_bytes(env_load64(start + payload), len) | (__u64)len << 56;
		if (name == work->plain_name)
			return true;
	}
	if (!command_is_known(start + payload, len))
		return false;
	if (len < 8)
		work->plain_name = name;
	return true;
}

/*
 * The short cut that most commands take: "*<1-4>", arguments of at most 128 bytes, all of it in the window. Nothing is
 * stored until the whole command is seen. False: not such a command, nothing is changed.
 */
static __always_inline bool request_whole(struct connection *conn, struct work *work, const __u8 *start, __u32 avail)
{
	__u64 word = env_load64(start);
	__u32 args = (word >> 8 & 0xff) - '0', at, i, size;
	struct header_cache *cache;

	if ((word & 0xffff00ff) != WORD4('*', 0, '\r', '\n') || args - 1 >= WHOLE_ARGS || conn->head_lost)
		return false;
	work->at = 4;
	for (i = 0; i < WHOLE_ARGS; i++) {
		if (i == args)
			break;
		at = env_reload(work->at);
		env_opaque(at);
		if (at >= WINDOW || at >= avail)
			return false;
		cache = &work->arg_headers[i];
		if (!header_cache_knows(cache, start + at))
			argument_learn(cache, start + at);
		size = env_reload(cache->size);
		if (!size || size > avail - at || (!i && !argument_is_plain(work, start + at)))
			return false;
		work->at = at + size;
	}
	at = env_reload(work->at);
	argv_push(conn, request_head_start(conn, work), at, work->now, at);
	conn->read_seq++;
	work->cur.pos += at;
	return true;
}

static long request_step(__u32 i, void *data)
{
	struct connection *conn = ((struct frame *)data)->conn;
	struct work *work = ((struct frame *)data)->work;
	__u32 pos = work->cur.pos, avail = work->cur.end - pos;
	__u8 *bytes;

	if (conn->request.skip)
		return request_payload(conn, work);
	if (!avail)
		return request_more(conn, work);
	env_opaque(pos);
	if (pos >= WINDOW_END)
		return request_refused(work, FORM_REQUEST_LONG);
	bytes = work->bytes + pos;
	if (conn->request.state == REQUEST_ARGS)
		return request_argument(conn, work, bytes, avail);
	if (conn->request.state == REQUEST_INLINE)
		return request_inline(conn, work, bytes, avail);
	if (request_whole(conn, work, bytes, avail))
		return work->cur.pos == work->cur.end ? request_more(conn, work) : STEP_ON;
	if (*bytes == '*')
		return request_multibulk(conn, work, bytes, avail);
	request_begin(conn, work, REQUEST_INLINE);
	return STEP_ON;
}

/*
 * Frames the len bytes the server has just read into addr. now: when, CLOCK_MONOTONIC ns. What the verdict leaves of
 * them is not framed.
 */
static __always_inline __u32 request_frame(struct connection *conn, struct work *work, __u64 addr, __u64 len, __u64 now)
{
	struct request_framing *q = &conn->request;
	struct frame frame = { .conn = conn, .work = work };
	__u64 steps = 2 * len + 4;

	argv_before_read(conn);
	conn->read_bytes += len;
	if (q->carried)
		carry_restore(&conn->request_carry, work);
	cursor_on_buffer(&work->cur, addr, len, q->carried);
	work->now = now;
	work->verdict = REQUEST_OK;
	work->run = work->cur.pos;
	if (q->skip || request_more(conn, work) == STEP_ON)
		env_loop(steps < ENV_LOOP_MAX ? steps : ENV_LOOP_MAX, request_step, &frame);
	if (work->verdict)
		request_flush(conn, work); /* a verdict leaves a run behind */
	q->carried = work->cur.end - work->cur.pos;
	if (q->carried)
		carry_save(&conn->request_carry, work, work->cur.end);
	if (work->verdict == REQUEST_OK && (work->cur.left || q->carried >= CARRY))
		request_refused(work, FORM_REQUEST_LONG);
	return work->verdict;
}

#endif
