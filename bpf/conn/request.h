/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Framing of requests: finds where each command ends, numbers it and keeps its head. Follows the server's own reader
 * (processMultibulkBuffer and processInlineBuffer in redis 7.0 and valkey 9.1 src/networking.c), lenience included.
 */
#ifndef REPLYLOG_BPF_CONN_REQUEST_H
#define REPLYLOG_BPF_CONN_REQUEST_H

#include "bpf/conn/argv_log.h"
#include "bpf/resp/foreign.h"
#include "bpf/conn/pairing.h"
#include "bpf/conn/tracked_command.h"

enum request_verdict {
	REQUEST_OK = 0,
	REQUEST_DRAINS,           /* the command at hand ends the session: see its class */
	REQUEST_TOO_MANY_TRACKED, /* there is no room for one more of them */
	REQUEST_MALFORMED,        /* not RESP, or a form that is refused; the server will say so and close */
	REQUEST_UNREADABLE,       /* the server's memory could not be read */
};

static __always_inline int request_verdict(struct work *work, __u32 verdict)
{
	work->verdict = verdict;
	return STEP_STOP;
}

/* Bytes of the head at hand, appended or not. */
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

/* What the reply of the command at hand will be looked at with; see struct tracked_command. */
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
		return request_verdict(work, REQUEST_MALFORMED);
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
		return request_verdict(work, REQUEST_MALFORMED);
	/* "*0\rx" is no empty command: the server answers it with an error, and closes. */
	if (has_needless_zero(header, size) || (!argc && header[3] != '\n'))
		return request_verdict(work, REQUEST_MALFORMED);
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
 * CLIENT REPLY ON changes nothing where nothing is off, and is answered. So it is where all is exact: what turns replies
 * off leaves. The servers compare without regard to case (clientCommand() in redis 7.0, clientReplyCommand() in
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
		return request_verdict(work, REQUEST_MALFORMED);
	size = resp_number((const struct resp_header *)header, avail, &len);
	if (size == RESP_SHORT)
		return request_more(conn, work);
	if (size < 0 || has_needless_zero(header, size))
		return request_verdict(work, REQUEST_MALFORMED);
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

/* Is one of the bytes in below a control character that is no blank? The server would end the line there. */
static __always_inline bool inline_has_controls(__u64 word, __u64 below)
{
	__u64 low = word & ~HIGH_BITS;
	__u64 under_tab = ~((low + BYTES(0x80 - 0x09)) | word);
	__u64 over_cr = (low + BYTES(0x80 - 0x0e)) | word;
	__u64 under_space = ~((low + BYTES(0x80 - 0x20)) | word);

	return (under_tab | (over_cr & under_space)) & HIGH_BITS & below;
}

static __always_inline __u64 blanks_and_controls(__u64 word)
{
	return ~(((word & ~HIGH_BITS) + BYTES(0x80 - 0x21)) | word) & HIGH_BITS;
}

/* Is the line that ends at pos nothing but its LF, or CR and LF? */
static __always_inline bool request_line_is_empty(struct connection *conn, struct work *work)
{
	return !conn->request.inline_blanks && request_position(conn, work) - conn->request.command_start <= 2;
}

/*
 * A line ended: pos is behind its LF. One without words is no command; but if it isn't empty, some servers read a line
 * next, even where a multibulk begins.
 */
static __always_inline int request_inline_end(struct connection *conn, struct work *work)
{
	if (conn->request.inline_words)
		return request_complete(conn, work, 1);
	request_boundary(conn, work);
	if (blank_lines_may_confuse() && !request_line_is_empty(conn, work)) {
		pairing_doubt(conn);
		request_begin(conn, work, REQUEST_INLINE);
	}
	return STEP_ON;
}

/* Whether the first avail (less than NAME_PEEK) bytes hold the line's end. */
static __always_inline bool inline_has_end(const __u8 *line, __u32 avail)
{
	return peek_find(line, '\n') < avail;
}

static __always_inline __u32 inline_name_len(const __u8 *line)
{
	return peek_first(blanks_and_controls(env_load64(line)), blanks_and_controls(env_load64(line + 8)));
}

/* A quote may begin inside a word, too: mon"itor" (sdssplitargs in redis 7.0 and valkey 9.1 src/sds.c). */
static __always_inline bool inline_name_has_quote(const __u8 *line, __u32 len)
{
	return peek_find(line, '"') < len || peek_find(line, '\'') < len;
}

/* A short name that is quoted as a whole, without escapes: len becomes that of what is between the quotes. */
static __always_inline bool inline_quoted_name(const __u8 *line, __u32 *len)
{
	__u32 n;

	if (*line != '"' && *line != '\'')
		return false;
	n = peek_find(line + 1, *line);
	if (n + 2 != *len || peek_find(line + 1, '\\') < n)
		return false;
	*len = n;
	return true;
}

/* The first letter behind one or two blanks, in lower case. */
static __always_inline __u8 inline_subcommand_letter(const __u8 *line, __u32 len)
{
	const __u8 *rest = line + (len & 15);

	return (rest[1] == ' ' || rest[1] == '\t' ? rest[2] : rest[1]) | 0x20;
}

/*
 * A container command typed by hand: is its subcommand certainly not the one that leaves? So it is when there is none,
 * or when one or two blanks are followed by another letter. Behind a line's end there may be anything.
 */
static __always_inline bool inline_container_is_plain(const __u8 *line, __u32 len, __u8 class, __u32 avail)
{
	const __u8 *rest = line + (len & 15);
	__u32 end = peek_find(line, '\n');
	__u8 letter = inline_subcommand_letter(line, len);

	if (end < avail && (end == len || (end == len + 1 && *rest <= ' ')))
		return true;
	return (*rest == ' ' || *rest == '\t') && letter >= 'a' && letter <= 'z' && letter != subcommand_letter(class);
}

/* "CLIENT REPLY ON" and the end of its line, which is NAME_PEEK bytes. */
static __always_inline bool inline_is_reply_on(const struct connection *conn, const __u8 *line)
{
	__u64 head = env_load64(line), tail = env_load64(line + 8);

	return LOWER(head) == WORD8('c', 'l', 'i', 'e', 'n', 't', ' ', 'r') &&
	       (LOWER(tail) & 0xffffffffff) == WORD8('e', 'p', 'l', 'y', ' ', 0, 0, 0) && line[6] == ' ' &&
	       line[12] == ' ' && (line[15] == '\r' || line[15] == '\n') && reply_mode_is_on(conn, line + 13);
}

/*
 * What an inline command is, by its first word. One that is quoted in part may be any command, and so may be what
 * follows CLIENT and its like, or what has a byte 0xff in its name: valkey 8.1 and 9.1 drop that where char is signed
 * (sdsparsearg in src/sds.c). How many channels a line subscribes to is not counted. Such lines are left out, nobody but a
 * person at a terminal sends them.
 */
static __always_inline __u8 inline_class(const struct connection *conn, const __u8 *line, __u32 avail)
{
	__u32 len = inline_name_len(line);
	__u8 class;

	if (peek_find(line, 0xff) < len)
		return COMMAND_OPAQUE;
	if (inline_quoted_name(line, &len))
		line++;
	else if (inline_name_has_quote(line, len))
		return COMMAND_OPAQUE;
	if (len >= NAME_PEEK) /* the name's end is not in sight */
		return COMMAND_FOREIGN;
	class = command_class(line, len);
	if (class == COMMAND_PLAIN)
		return command_is_known(line, len) ? COMMAND_PLAIN : COMMAND_FOREIGN;
	if (command_subscribes(class))
		return COMMAND_OPAQUE;
	if (!command_is_container(class))
		return class;
	if (class == COMMAND_CLIENT && inline_is_reply_on(conn, line))
		return COMMAND_PLAIN;
	if (!inline_container_is_plain(line, len, class, avail))
		return COMMAND_OPAQUE;
	if (class == COMMAND_SCRIPT)
		return COMMAND_SCRIPTING;
	return class == COMMAND_CLIENT && inline_subcommand_letter(line, len) == 's' ? COMMAND_IDENTITY : COMMAND_PLAIN;
}

/* Up to a line's first word, and what that is. */
static __always_inline int request_inline_start(struct connection *conn, struct work *work, const __u8 *line, __u32 avail)
{
	__u8 class;

	if (*line == ' ' || (*line >= '\t' && *line <= '\r')) {
		work->cur.pos++;
		if (*line == '\n')
			return request_inline_end(conn, work);
		conn->request.inline_blanks |= *line != '\r';
		return STEP_ON;
	}
	if (avail < NAME_PEEK && !inline_has_end(line, avail))
		return request_more(conn, work);
	conn->request.inline_words = 1;
	class = inline_class(conn, line, avail);
	if (class == COMMAND_FOREIGN)
		conn->request.number = foreign_mark_of(line, inline_name_len(line));
	return request_classify(conn, work, class);
}

/* The rest of a line, a word at a time. */
static __always_inline int request_inline(struct connection *conn, struct work *work, const __u8 *line, __u32 avail)
{
	struct request_framing *q = &conn->request;
	__u32 limit = avail < 8 ? avail : 8, n = limit;
	__u64 word = env_load64(line), marks = bytes_equal(word, '\n');
	__u64 below = limit < 8 ? (1ULL << (8 * limit)) - 1 : ~0ULL;
	bool ends = marks && bytes_count(bytes_below(marks)) < limit;

	if (!q->inline_words)
		return request_inline_start(conn, work, line, avail);
	if (ends) {
		below = bytes_below(marks);
		n = bytes_count(below);
	}
	if (inline_has_controls(word, below))
		return request_verdict(work, REQUEST_MALFORMED);
	work->cur.pos += n;
	if (ends) {
		work->cur.pos++;
		return request_inline_end(conn, work);
	}
	if (!q->beyond_head && request_head_len(conn, work) >= ARGV_LINE_MAX)
		request_head_ends(conn, work);
	return STEP_ON;
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
		return request_verdict(work, REQUEST_MALFORMED);
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
static __always_inline enum request_verdict request_frame(struct connection *conn, struct work *work, __u64 addr, __u64 len,
							  __u64 now)
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
		return REQUEST_MALFORMED;
	return work->verdict;
}

#endif
