/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/output/argv.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#include "user/output/resp_reader.h"

/* "<tag><digits>\r\n" */
static int read_header(struct resp_reader *r, char *tag, uint64_t *value)
{
	if (r->p == r->end)
		return -EBADMSG;
	*tag = *r->p++;
	return resp_read_number(r, value) ? -EBADMSG : 0;
}

/* Keep an argument of true_len bytes, of which the first have bytes are here. */
static void keep(struct argv *a, const char *bytes, size_t have, uint64_t true_len)
{
	struct argv_arg *arg = &a->arg[a->n++];

	arg->bytes = bytes;
	arg->len = have < ARGV_MAX_ARG_BYTES ? have : ARGV_MAX_ARG_BYTES;
	arg->true_len = true_len;
	if (arg->len < true_len)
		a->truncated = true;
}

/* "$<len>\r\n<bytes>\r\n" */
static int read_whole(struct argv *a, struct resp_reader *r, uint64_t len)
{
	if (len > resp_left(r) || resp_left(r) - len < 2 || r->p[len] != '\r' || r->p[len + 1] != '\n')
		return -EBADMSG;
	keep(a, r->p, len, len);
	r->p += len + 2;
	return 0;
}

/* "!<len>\r\n<first ARGV_MAX_ARG_BYTES bytes>" */
static int read_shortened(struct argv *a, struct resp_reader *r, uint64_t len)
{
	if (len <= ARGV_MAX_ARG_BYTES || resp_left(r) < ARGV_MAX_ARG_BYTES)
		return -EBADMSG;
	keep(a, r->p, ARGV_MAX_ARG_BYTES, len);
	r->p += ARGV_MAX_ARG_BYTES;
	return 0;
}

static int read_argument(struct argv *a, struct resp_reader *r)
{
	uint64_t len;
	char tag;
	int err;

	err = read_header(r, &tag, &len);
	if (err)
		return err;
	if (tag == '$')
		return read_whole(a, r, len);
	if (tag == '!')
		return read_shortened(a, r, len);
	return -EBADMSG;
}

static int decode_multibulk(struct argv *a, struct resp_reader *r)
{
	unsigned int kept;
	char tag;
	int err;

	err = read_header(r, &tag, &a->argc);
	if (err)
		return err;
	kept = a->argc < ARGV_MAX_ARGS ? (unsigned int)a->argc : ARGV_MAX_ARGS;
	a->truncated = kept < a->argc;
	while (a->n < kept) {
		err = read_argument(a, r);
		if (err)
			return err;
	}
	return r->p == r->end ? 0 : -EBADMSG;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* isspace in the C locale, whatever ours is. */
static bool is_space(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static char unescape(char c)
{
	switch (c) {
	case 'n':
		return '\n';
	case 'r':
		return '\r';
	case 't':
		return '\t';
	case 'b':
		return '\b';
	case 'a':
		return '\a';
	default:
		return c;
	}
}

/* No escape is longer: "\xHH". */
#define ESCAPE_MAX 4

/*
 * The character at r inside quotes of the given kind, escapes undone. As sdsparsearg does, an escape that
 * ends where the line ends is none: its backslash stands for itself.
 */
static char read_quoted(struct resp_reader *r, char quote)
{
	const char *p = r->p;

	if (p[0] == '\\' && resp_left(r) > 2) {
		if (quote == '\'' && p[1] == '\'') {
			r->p += 2;
			return '\'';
		}
		if (quote == '"' && p[1] == 'x' && resp_left(r) > 4 && hex_digit(p[2]) >= 0 && hex_digit(p[3]) >= 0) {
			r->p += 4;
			return (char)(hex_digit(p[2]) * 16 + hex_digit(p[3]));
		}
		if (quote == '"' && p[1]) {
			r->p += 2;
			return unescape(p[1]);
		}
	}
	r->p++;
	return p[0];
}

/* Where a line is cut, what is behind a backslash may be missing, and whether it is an escape. */
static bool may_be_cut_escape(const struct resp_reader *r, char quote, bool cut)
{
	return cut && quote && *r->p == '\\' && resp_left(r) <= ESCAPE_MAX;
}

/* A blank to servers that end an argument with its quote, a part of the argument to valkey 9.1. */
static bool is_disputed(char c)
{
	return c == '\v' || c == '\f';
}

/*
 * One argument at r, its first ARGV_MAX_ARG_BYTES bytes to text. Returns false when a quote stays open, or
 * when servers differ in what the argument is. The rules are those of sdsparsearg in valkey 9.1.2 src/sds.c,
 * where quotes may open and close anywhere in an argument; older servers (redis 7.0.15, same file) refuse text
 * right after a closing quote, and answer it with a protocol error.
 */
static bool read_inline_argument(struct resp_reader *r, char *text, uint64_t *len, bool cut)
{
	char quote = 0, c;

	*len = 0;
	while (r->p < r->end && *r->p) {
		if (!quote && strchr(" \t\r\n", *r->p))
			break;
		if (quote ? *r->p == quote : *r->p == '"' || *r->p == '\'') {
			quote = quote ? 0 : *r->p;
			r->p++;
			if (!quote && r->p < r->end && is_disputed(*r->p))
				return false;
			continue;
		}
		if (may_be_cut_escape(r, quote, cut)) {
			r->p = r->end;
			break;
		}
		c = quote ? read_quoted(r, quote) : *r->p++;
		if (*len < ARGV_MAX_ARG_BYTES)
			text[*len] = c;
		(*len)++;
	}
	return !quote;
}

/* Whether the line has an argument left. A NUL ends the line, as in sdssplitargs. */
static bool skip_blanks(struct resp_reader *r)
{
	while (r->p < r->end && is_space(*r->p))
		r->p++;
	return r->p < r->end && *r->p;
}

/* A CR in front of the LF is none of the line: processInlineBuffer in every server's src/networking.c. */
static void drop_line_end(struct resp_reader *r)
{
	if (r->p < r->end && r->end[-1] == '\r')
		r->end--;
}

/*
 * Bytes 0xff that are not written as \xff: valkey 8.1 and 9.1 drop them where char is signed, as on x86-64
 * (sdsparsearg's new_char is -1 for none); other servers keep them. The line may be any command, then.
 */
static bool has_dropped_bytes(const struct resp_reader *r)
{
	return memchr(r->p, 0xff, resp_left(r));
}

static int decode_inline(struct argv *a, struct resp_reader *r, bool cut)
{
	char unkept[ARGV_MAX_ARG_BYTES];
	uint64_t len;
	char *text;

	if (has_dropped_bytes(r))
		return -EBADMSG;
	if (!cut)
		drop_line_end(r);
	a->truncated = cut;
	a->argc_known = !cut;
	for (a->argc = 0; skip_blanks(r); a->argc++) {
		text = a->n < ARGV_MAX_ARGS ? a->text + a->n * ARGV_MAX_ARG_BYTES : unkept;
		/* Of a line that was cut, the closing quote may be in the part that is gone. */
		if (!read_inline_argument(r, text, &len, cut) && !(cut && r->p == r->end))
			return -EBADMSG;
		if (a->n < ARGV_MAX_ARGS)
			keep(a, text, len < ARGV_MAX_ARG_BYTES ? len : ARGV_MAX_ARG_BYTES, len);
		else
			a->truncated = true;
	}
	return 0;
}

int argv_decode(struct argv *a, const void *head, size_t len, bool cut)
{
	struct resp_reader r = { head, (const char *)head + len };
	int err;

	a->n = 0;
	a->argc_known = true;
	if (len && *r.p == '*')
		err = decode_multibulk(a, &r);
	else
		err = decode_inline(a, &r, cut);
	if (!err && !a->n)
		err = -EBADMSG;
	if (err)
		a->n = 0;
	return err;
}

bool argv_arg_is(const struct argv_arg *arg, const char *word)
{
	size_t len = strlen(word);

	return arg->true_len == len && arg->len == len && !memcmp(arg->bytes, word, len);
}

bool argv_arg_reads(const struct argv_arg *arg, const char *word)
{
	size_t len = strlen(word);

	return arg->true_len == len && arg->len == len && !strncasecmp(arg->bytes, word, len);
}
