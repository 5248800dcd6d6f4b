/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Requests as the server reads them, byte by byte: processMultibulkBuffer, processInlineBuffer and sdssplitargs of redis
 * 7.0 (src/networking.c, src/sds.c), and not of bpf/conn/request.h. What it takes for a multibulk, hiredis must read as an
 * array of the same bulks.
 */
#ifndef REPLYLOG_TESTS_FUZZ_READ_REQUESTS_H
#define REPLYLOG_TESTS_FUZZ_READ_REQUESTS_H

#include <limits.h>
#include <stdbool.h>
#include <string.h>
#include <strings.h>

#include "read.h"

#include "input.h"

#define COMMANDS_MAX 16384
#define KEPT_ARGS 32
#define NUMBER_MAX 16   /* digits that any length or count has */
#define NEGATIVE_MAX 20 /* and the least count there is: its sign and its digits */

struct command {
	size_t start, end;
	size_t argc;
	bool is_inline;
	bool crlf; /* what should be CRLF is: after argc, lengths and arguments */
	/*
	 * A quote closes before a \v or \f: blanks to redis 7.0, but in valkey 9.1 part of the word (sdsparsearg). Or the line
	 * has a byte 0xff, which valkey 8.1 and 9.1 drop.
	 */
	bool disputed;
	struct {
		const uint8_t *bytes;
		size_t len;
	} arg[KEPT_ARGS];
};

enum requests_end {
	REQUESTS_WAIT,    /* the bytes end, maybe inside a command */
	REQUESTS_REFUSED, /* a protocol error: the server says so and closes */
	REQUESTS_EXCLUDE, /* a command after which replies depend on more than the number of commands */
};

struct requests_read {
	const uint8_t *bytes;
	size_t len;
	struct command command[COMMANDS_MAX];
	size_t n;
	enum requests_end end;
	size_t at;          /* where it ended: the start of the refused, unfinished or excluding command */
	bool strict_number; /* refused for a number that string2ll does not accept: 01 */
	/*
	 * Seen before the end, accepted by this server but not by all: "*0" without CRLF, control characters in a line, ...
	 */
	bool unusual;
	uint8_t text[2 * 96 * 1024]; /* inline arguments, their quotes undone */
	size_t text_len;
};

enum number { NUMBER_WAIT, NUMBER_OK, NUMBER_BAD };

/* As string2ll does: no sign but a minus, no zeros in front. */
static enum number read_number(struct requests_read *r, size_t *at, long long *value, bool *crlf)
{
	const uint8_t *digits = r->bytes + *at, *cr = memchr(digits, '\r', r->len - *at);
	const uint8_t *nul = memchr(digits, '\0', cr ? (size_t)(cr - digits) : r->len - *at);
	char text[24], back[24];
	size_t n;

	/* The framer gives up on a number this long. The server waits for its CR up to 64 KiB. */
	n = cr ? (size_t)(cr - digits) : r->len - *at;
	if (n > (n && *digits == '-' ? NEGATIVE_MAX : NUMBER_MAX))
		r->unusual = true;
	if (nul)
		r->unusual = true; /* the server uses strchr: a NUL hides the CR until there are 64 KiB */
	if (!cr || nul || (size_t)(cr - r->bytes) + 2 > r->len)
		return NUMBER_WAIT;
	n = (size_t)(cr - digits);
	*at += n + 2;
	*crlf &= cr[1] == '\n';
	if (!n || n > 20)
		return NUMBER_BAD;
	memcpy(text, digits, n);
	text[n] = '\0';
	r->strict_number = strspn(text, "0123456789") == n && *text == '0' && n > 1;
	*value = strtoll(text, NULL, 10);
	snprintf(back, sizeof(back), "%lld", *value);
	return strcmp(text, back) ? NUMBER_BAD : NUMBER_OK;
}

/* One argument's "$<len>" and payload. */
static enum number read_argument(struct requests_read *r, struct command *c, size_t i, size_t *at)
{
	enum number number;
	long long len;

	if (*at == r->len)
		return NUMBER_WAIT;
	if (r->bytes[*at] != '$') /* the server says so only when the line is there */
		return NUMBER_BAD;
	++*at;
	number = read_number(r, at, &len, &c->crlf);
	if (number != NUMBER_OK)
		return number;
	if (len < 0)
		return NUMBER_BAD;
	if (len > 512LL << 20) { /* proto-max-bulk-len, which the framer doesn't know */
		r->unusual = true;
		return NUMBER_BAD;
	}
	if (r->len - *at < (size_t)len + 2)
		return NUMBER_WAIT;
	if (i < KEPT_ARGS) {
		c->arg[i].bytes = r->bytes + *at;
		c->arg[i].len = (size_t)len;
	}
	*at += (size_t)len + 2;
	c->crlf &= r->bytes[*at - 2] == '\r' && r->bytes[*at - 1] == '\n';
	return NUMBER_OK;
}

static enum number read_multibulk(struct requests_read *r, struct command *c, size_t *at)
{
	enum number number;
	long long argc;
	size_t i;

	++*at;
	number = read_number(r, at, &argc, &c->crlf);
	if (number != NUMBER_OK)
		return number;
	if (argc > INT_MAX)
		return NUMBER_BAD;
	/* No command to redis 7.0. Valkey 9.1 refuses what does not end in CR and LF. */
	if (argc <= 0 && !c->crlf)
		r->unusual = true;
	c->argc = argc > 0 ? (size_t)argc : 0;
	for (i = 0; i < c->argc; i++) {
		number = read_argument(r, c, i, at);
		if (number != NUMBER_OK)
			return number;
	}
	return NUMBER_OK;
}

static bool is_blank(uint8_t c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static int hex_value(uint8_t c)
{
	return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
}

/* Inside quotes, behind the opening one. Where it goes on behind the closing one, or NULL. */
static const uint8_t *read_quoted(struct requests_read *r, struct command *command, const uint8_t *p, const uint8_t *end,
				  uint8_t quote)
{
	static const char escapes[] = "n\nr\rt\tb\ba\a";
	const char *escape;

	for (; p < end && *p != quote; p++) {
		uint8_t c = *p;

		if (c == '\\' && quote == '"' && end - p > 3 && p[1] == 'x' && hex_value(p[2]) >= 0 &&
		    hex_value(p[3]) >= 0) {
			c = (uint8_t)(16 * hex_value(p[2]) + hex_value(p[3]));
			p += 3;
		} else if (c == '\\' && quote == '"' && end - p > 1) {
			c = *++p;
			for (escape = escapes; *escape; escape += 2)
				if (c == (uint8_t)*escape) {
					c = (uint8_t)escape[1];
					break;
				}
		} else if (c == '\\' && end - p > 1 && p[1] == '\'') {
			c = *++p;
		}
		r->text[r->text_len++] = c;
	}
	if (p == end || (p + 1 < end && !is_blank(p[1])))
		return NULL;
	command->disputed |= p + 1 < end && (p[1] == '\v' || p[1] == '\f');
	return p + 1;
}

/* A word, which only space, tab, CR and LF end: \v and \f are skipped between words and belong to one inside it. */
static const uint8_t *read_word(struct requests_read *r, struct command *c, const uint8_t *p, const uint8_t *end)
{
	while (p < end && !strchr(" \t\r\n", *p)) {
		if (*p == '"' || *p == '\'')
			return read_quoted(r, c, p + 1, end, *p);
		r->text[r->text_len++] = *p++;
	}
	return p;
}

/* The server's words of a line. False: its quotes are unbalanced. */
static bool read_words(struct requests_read *r, struct command *c, const uint8_t *p, const uint8_t *end)
{
	size_t from;

	while (true) {
		while (p < end && is_blank(*p))
			p++;
		if (p == end)
			return true;
		from = r->text_len;
		p = read_word(r, c, p, end);
		if (!p)
			return false;
		if (c->argc < KEPT_ARGS) {
			c->arg[c->argc].bytes = r->text + from;
			c->arg[c->argc].len = r->text_len - from;
		}
		c->argc++;
	}
}

static enum number read_inline(struct requests_read *r, struct command *c, size_t *at)
{
	const uint8_t *line = r->bytes + *at, *lf = memchr(line, '\n', r->len - *at), *p, *end = lf;

	c->is_inline = true;
	for (p = line; p < (lf ? lf : r->bytes + r->len); p++) {
		if (*p < ' ' && !is_blank(*p))
			r->unusual = true;
		c->disputed |= *p == 0xff;
		if (!*p)
			return NUMBER_WAIT; /* strchr again */
	}
	if (!lf)
		return NUMBER_WAIT;
	if (end > line && end[-1] == '\r')
		end--;
	*at = (size_t)(lf + 1 - r->bytes);
	return read_words(r, c, line, end) ? NUMBER_OK : NUMBER_BAD;
}

static bool is_name(const struct command *c, const char *name)
{
	return c->arg[0].len == strlen(name) && !strncasecmp((const char *)c->arg[0].bytes, name, c->arg[0].len);
}

/*
 * Whether the replies from here on depend on more than the number of commands: then one "+OK" per command is wrong, and
 * a framer may exclude the connection. An inline name with quotes, \v, \f or 0xff in it may be any of them to a framer
 * that does not parse words.
 */
static bool excludes_connection(const struct requests_read *r, const struct command *c)
{
	static const char *const names[] = {
		"SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE", "UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE", "MONITOR",
		"SYNC",      "PSYNC",      "REPLCONF",   "CLIENT",      "CLUSTER",      "SCRIPT",       "MULTI",
		"EXEC",      "DISCARD",    "HELLO",      "RESET",       "QUIT",         "AUTH",         "SELECT",
	};
	size_t i;

	for (i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		if (is_name(c, names[i]))
			return true;
	for (i = c->start; i < c->end && is_blank(r->bytes[i]); i++)
		;
	for (; c->is_inline && i < c->end && !strchr(" \t\r\n", r->bytes[i]); i++)
		if (strchr("\"'\v\f\xff", r->bytes[i]))
			return true;
	return false;
}

static void *request_string(const redisReadTask *task, char *bytes, size_t len)
{
	const struct command *c = task->privdata;

	CHECK(task->type == REDIS_REPLY_STRING && task->parent);
	if (task->idx < KEPT_ARGS)
		CHECK(c->arg[task->idx].len == len && !memcmp(c->arg[task->idx].bytes, bytes, len));
	return (void *)1;
}

static void *request_array(const redisReadTask *task, size_t n)
{
	const struct command *c = task->privdata;

	CHECK(task->type == REDIS_REPLY_ARRAY && !task->parent && n == c->argc);
	return (void *)1;
}

/* hiredis on a multibulk: an array of those bulks and nothing after it. */
static void check_with_hiredis(const struct requests_read *r, struct command *c)
{
	redisReplyObjectFunctions functions = { .createString = request_string, .createArray = request_array };
	redisReader *reader = redisReaderCreateWithFunctions(&functions);
	void *array = NULL;

	CHECK(reader);
	reader->privdata = c;
	CHECK(redisReaderFeed(reader, (const char *)r->bytes + c->start, c->end - c->start) == REDIS_OK);
	CHECK(redisReaderGetReply(reader, &array) == REDIS_OK && array && reader->pos == reader->len);
	redisReaderFree(reader);
}

static void read_requests(struct requests_read *r, const uint8_t *bytes, size_t len)
{
	size_t at = 0;

	r->bytes = bytes;
	r->len = len;
	r->n = r->text_len = 0;
	r->end = REQUESTS_WAIT;
	r->strict_number = r->unusual = false;
	for (r->at = 0; at < len; r->at = at) {
		struct command *c = &r->command[r->n];
		enum number what;

		CHECK(r->n < COMMANDS_MAX);
		memset(c, 0, sizeof(*c));
		c->start = at;
		c->crlf = true;
		what = bytes[at] == '*' ? read_multibulk(r, c, &at) : read_inline(r, c, &at);
		if (what != NUMBER_OK) {
			r->end = what == NUMBER_WAIT ? REQUESTS_WAIT : REQUESTS_REFUSED;
			return;
		}
		if (!c->argc)
			continue;
		c->end = at;
		if (excludes_connection(r, c)) {
			r->end = REQUESTS_EXCLUDE;
			return;
		}
		if (!c->is_inline && c->crlf)
			check_with_hiredis(r, c);
		r->n++;
	}
}

#endif
