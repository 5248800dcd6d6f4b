/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Commands as typed lines (processInlineBuffer() in redis 7.0 and valkey 9.1 src/networking.c). */
#ifndef REPLYLOG_BPF_CONN_REQUEST_INLINE_H
#define REPLYLOG_BPF_CONN_REQUEST_INLINE_H

#include "bpf/conn/pairing.h"
#include "bpf/conn/request_command.h"

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
		pairing_doubt(conn, DOUBT_BLANK_LINE);
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
		return request_refused(work, FORM_REQUEST_CONTROL);
	work->cur.pos += n;
	if (ends) {
		work->cur.pos++;
		return request_inline_end(conn, work);
	}
	if (!q->beyond_head && request_head_len(conn, work) >= ARGV_LINE_MAX)
		request_head_ends(conn, work);
	return STEP_ON;
}

#endif
