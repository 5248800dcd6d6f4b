/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Conversations made from a fuzzer's input: well-formed, until bytes of them are changed. */
#ifndef REPLYLOG_TESTS_FUZZ_GENERATE_H
#define REPLYLOG_TESTS_FUZZ_GENERATE_H

#include <stdbool.h>
#include <string.h>

#include "input.h"

#define STREAM_MAX (96 * 1024)
#define STREAM_ENOUGH (24 * 1024) /* from here on only small items follow */
#define DEPTH_MAX 24
#define MARKS_MAX 4096

/*
 * One direction of a session, and the same for a reader that knows neither attributes ('|') nor blob errors ('!'),
 * as hiredis 1.2 does not (processItem in its read.c): they are maps and bulks there. Byte for byte as long.
 */
struct stream {
	uint8_t wire[STREAM_MAX], plain[STREAM_MAX];
	size_t len;
	size_t ends[MARKS_MAX]; /* where its replies end */
	size_t ends_count;
	size_t attributes[MARKS_MAX]; /* where the plain reader wrongly sees the end of a reply, behind an attribute */
	size_t attributes_count;
	bool has_attributes;
	bool well_formed;
};

static void put(struct stream *s, const void *bytes, size_t len)
{
	CHECK(len <= STREAM_MAX - s->len);
	memcpy(s->wire + s->len, bytes, len);
	memcpy(s->plain + s->len, bytes, len);
	s->len += len;
}

static void put_text(struct stream *s, const char *text)
{
	put(s, text, strlen(text));
}

static void put_header(struct stream *s, char type, char plain_type, size_t n, size_t plain_n)
{
	char text[32];
	size_t start = s->len, len;

	len = (size_t)snprintf(text, sizeof(text), "%c%zu\r\n", type, n);
	put(s, text, len);
	CHECK((size_t)snprintf(text, sizeof(text), "%c%zu\r\n", plain_type, plain_n) == len);
	memcpy(s->plain + start, text, len);
}

/* Payload that looks like headers, to mislead a framer. */
static void put_payload(struct stream *s, size_t len, unsigned int from)
{
	static const char misleading[] = "\r\n$1\r\n*2\r\n:9-+OK\r\n%1|1!2>3";
	size_t i;

	for (i = 0; i < len; i++)
		put(s, &misleading[(from + i) % (sizeof(misleading) - 1)], 1);
}

/* Bytes of the input as they are. */
static void put_raw(struct stream *s, struct input *in, bool lines_too)
{
	unsigned int n = take(in) % 24;
	uint8_t byte;

	while (n--) {
		byte = (uint8_t)take(in);
		if (!lines_too && (byte == '\r' || byte == '\n'))
			byte = '.';
		put(s, &byte, 1);
	}
	s->well_formed &= !lines_too;
}

static void generate_line(struct stream *s, struct input *in)
{
	static const char *const lines[] = {
		"_\r\n",
		"#t\r\n",
		"#f\r\n",
		":0\r\n",
		":-1\r\n",
		":1234567\r\n",
		":9223372036854775807\r\n",
		",3.25\r\n",
		",inf\r\n",
		",-inf\r\n",
		",nan\r\n",
		",-1.5e-300\r\n",
		"(-3492890328409238509324850943850943825024385\r\n",
		"(0\r\n",
		"+\r\n",
		"+OK\r\n",
		"+QUEUED\r\n",
		"-ERR something that takes several words of eight\r\n",
		"$-1\r\n",
		"*-1\r\n",
		"*0\r\n",
		"~0\r\n",
		"%0\r\n",
		"$0\r\n\r\n",
	};
	unsigned int i = take(in);

	if (i < 200) {
		put_text(s, lines[i % (sizeof(lines) / sizeof(lines[0]))]);
		return;
	}
	put_text(s, i & 1 ? "+" : "-");
	put_raw(s, in, false);
	put_text(s, "\r\n");
}

static void generate_bulk(struct stream *s, struct input *in)
{
	char type = "$$$$=!"[take(in) % 6];
	size_t len = take_length(in);

	if (type == '=') {
		put_header(s, '=', '=', len + 4, len + 4);
		put_text(s, "txt:");
	} else {
		put_header(s, type, '$', len, len);
	}
	put_payload(s, len, take(in));
	put_text(s, "\r\n");
}

static void generate_reply(struct stream *s, struct input *in, unsigned int depth);

/* An attribute precedes an element, and is none itself. */
static void generate_attribute(struct stream *s, struct input *in, unsigned int depth)
{
	size_t n = take(in) % 4, i;

	s->has_attributes = true;
	put_header(s, '|', '%', n, n);
	for (i = 0; i < 2 * n; i++)
		generate_reply(s, in, depth + 1);
}

static void generate_aggregate(struct stream *s, struct input *in, unsigned int depth)
{
	char type = "**~%%>"[take(in) % 6], plain_type = type;
	size_t n = take(in), attributes, elements, i;

	n = n < 220 ? n % 6 : n;
	if (depth && type == '>')
		type = plain_type = '~'; /* a push is never inside a reply */
	elements = type == '%' ? 2 * n : n;
	attributes = take(in) < 200 || elements > 6 ? 0 : take(in) % 3;
	if (attributes > elements)
		attributes = elements;
	/* To the plain reader an attribute is one more element; a map must be an array then. */
	if (attributes && type == '%')
		plain_type = '*';
	put_header(s, type, plain_type, n, attributes ? elements + attributes : n);
	for (i = 0; i < elements; i++) {
		if (i < attributes)
			generate_attribute(s, in, depth);
		generate_reply(s, in, depth + 1);
	}
}

static void generate_reply(struct stream *s, struct input *in, unsigned int depth)
{
	unsigned int what = take(in) % 8;

	if (s->len > STREAM_ENOUGH || depth > DEPTH_MAX || what < 3)
		s->len > STREAM_ENOUGH ? put_text(s, "+\r\n") : generate_line(s, in);
	else if (what < 5)
		generate_bulk(s, in);
	else
		generate_aggregate(s, in, depth);
}

static void generate_replies(struct stream *s, struct input *in)
{
	s->len = s->ends_count = s->attributes_count = 0;
	s->has_attributes = false;
	s->well_formed = true;
	while (in->at < in->end && s->len < STREAM_ENOUGH && s->ends_count < MARKS_MAX) {
		unsigned int what = take(in);
		bool attribute = what >= 240 && what < 250;

		if (what >= 250) {
			put_raw(s, in, true);
			continue;
		}
		if (attribute) {
			generate_attribute(s, in, 0);
			s->attributes[s->attributes_count++] = s->len;
		}
		/* No server puts one in front of a push. */
		generate_reply(s, in, attribute);
		s->ends[s->ends_count++] = s->len;
	}
}

/* ---- requests ---- */

static void generate_multibulk(struct stream *s, struct input *in)
{
	static const char *const names[] = { "GET", "set",    "ECHO",    "mget",      "x",
					     "",    "LRANGE", "CLUSTEF", "subscribf", "FCALL_RO" };
	static const unsigned int many[] = { 29, 31, 32, 33, 34, 100 };
	unsigned int argc = take(in), i;
	const char *name = names[take(in) % (sizeof(names) / sizeof(names[0]))];
	size_t len;

	argc = argc < 240 ? 1 + argc % 6 : many[argc % 6];
	put_header(s, '*', '*', argc, argc);
	put_header(s, '$', '$', strlen(name), strlen(name));
	put_text(s, name);
	put_text(s, "\r\n");
	for (i = 1; i < argc; i++) {
		len = s->len > STREAM_ENOUGH ? 0 : take_length(in);
		put_header(s, '$', '$', len, len);
		put_payload(s, len, take(in));
		put_text(s, "\r\n");
	}
}

static void generate_inline(struct stream *s, struct input *in)
{
	static const char *const parts[] = {
		" ",
		"\t ",
		"key",
		"\"a b\"",
		"'it\\'s'",
		"\"\\x41\\xZZ\\n\\\"\"",
		"\"\"",
		"''",
		"\\",
		"x\"y z\"",
		"\v",
		"\f ",
		"a-long-word-that-fills-more-than-one-load ",
		"\xff\xfe",
		"*1",
		"$3",
		"\r",
		"\"open",
		"\"shut\"x",
	};
	static const char *const names[] = { "GET", "get", "'ECHO'", "\"MGET\"", "x", "  \tset", "LRANGE", "" };
	unsigned int n = take(in) % 12;

	put_text(s, names[take(in) % (sizeof(names) / sizeof(names[0]))]);
	put_text(s, " ");
	while (n--)
		put_text(s, parts[take(in) % (sizeof(parts) / sizeof(parts[0]))]);
	put_text(s, take(in) & 1 ? "\r\n" : "\n");
}

static void generate_requests(struct stream *s, struct input *in)
{
	/* No commands, and some that are refused. */
	static const char *const empty[] = {
		"*0\r\n",
		"*0\r\n",
		"*0\r\n",
		"\r\n",
		"\r\n",
		" \r\n",
		"*-1\r\n",
		"*-1\r\n",
		"*-5\r\n",
		"*-2147483649\r\n",
		"*-1234567890123456789\r\n",
		"*-9223372036854775808\r\n",
		"*-9223372036854775809\r\n",
		"*-05\r\n",
		"*-\r\n",
	};

	s->len = 0;
	s->well_formed = true;
	while (in->at < in->end && s->len < STREAM_ENOUGH) {
		unsigned int what = take(in);

		if (what >= 250)
			put_raw(s, in, true);
		else if (what >= 235)
			put_text(s, empty[what - 235]);
		else if (what >= 180)
			generate_inline(s, in);
		else
			generate_multibulk(s, in);
	}
}

/* Changes a few bytes, where both readers get the same ones. */
static void change_bytes(struct stream *s, struct input *in)
{
	unsigned int n = take_back(in), at;

	/* Once an attribute has changed, the plain reader's counts no longer match its input. */
	if (n < 128 || s->has_attributes || !s->len)
		return;
	for (n %= 6; n; n--) {
		at = take_back_wide(in) % s->len;
		if (s->wire[at] != s->plain[at])
			continue;
		s->wire[at] = s->plain[at] = (uint8_t)take_back(in);
		s->well_formed = false;
	}
}

#endif
