/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Decodes, redacts and formats any record with any argv. The line must be one JSON object in UTF-8 with strings,
 * numbers, booleans and arrays of strings only, without control characters, with each key once, in at most
 * STREAM_LINE_MAX bytes, ended by its only newline. The checker here shares nothing with user/output/json.c.
 *
 * Input: one byte for each of the record's words, then the head. A head that starts with '@' is a recipe for
 * a well-formed one, so that the mutations reach what lies behind the parser: argument after argument, a byte
 * that picks a word that redaction knows, or bytes taken from the input.
 *
 *   clang -g -O1 -fsanitize=fuzzer,address,undefined tests/fuzz/fuzz_stream.c \
 *         user/output/stream.c user/output/argv.c user/output/redact.c user/output/json.c user/output/sink.c -o fuzz_stream
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memmem */
#endif
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "user/output/stream.h"

#define CHECK(condition)                                                                        \
	do {                                                                                    \
		if (!(condition)) {                                                             \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
			abort();                                                                \
		}                                                                               \
	} while (0)

#define CONTROL_BYTES 10
#define KEYS_MAX 32

/*
 * Recipes use it only where it is redacted, so their lines never contain it. Inputs that contain it themselves are skipped.
 */
#define SECRET "hunter2hunter2"

static const unsigned char *p, *end;

static unsigned int hex4(void)
{
	unsigned int value = 0;

	for (int i = 0; i < 4; i++, p++) {
		CHECK(p < end);
		CHECK((*p >= '0' && *p <= '9') || (*p >= 'a' && *p <= 'f'));
		value = value * 16 + (*p <= '9' ? *p - '0' : *p - 'a' + 10u);
	}
	return value;
}

/* Decodes one character above ASCII. */
static void check_character(void)
{
	static const unsigned int least[] = { 0, 0x80, 0x800, 0x10000 };
	unsigned int more = *p >> 5 == 6 ? 1 : *p >> 4 == 14 ? 2 : *p >> 3 == 30 ? 3 : 0;
	unsigned int c = *p & (0x3fu >> more);

	CHECK(more && (size_t)(end - p) > more);
	for (unsigned int i = 1; i <= more; i++) {
		CHECK(p[i] >> 6 == 2);
		c = c << 6 | (p[i] & 0x3f);
	}
	CHECK(c >= least[more] && c <= 0x10ffff && !(c >= 0xd800 && c <= 0xdfff) && c >= 0xa0);
	p += more + 1;
}

static void check_escape(void)
{
	CHECK(++p < end && strchr("\"\\nrtu", *p));
	if (*p++ == 'u')
		CHECK(hex4() < 0xa0);
}

/* A string; in the escaped form its text is printable ASCII with \\ and \xNN only. */
static void check_string(bool escaped)
{
	CHECK(p < end && *p++ == '"');
	while (p < end && *p != '"') {
		CHECK(*p >= 0x20 && *p != 0x7f);
		if (escaped)
			CHECK(*p < 0x7f);
		if (escaped && *p == '\\' && end - p > 3 && p[1] == '\\') {
			/* Two backslashes stand for one in the text, which is followed by another one (as two) or xNN. */
			CHECK((p[2] == '\\' && p[3] == '\\') || p[2] == 'x');
			p += p[2] == 'x' ? 3 : 4;
			if (p[-1] == 'x')
				for (int i = 0; i < 2; i++, p++)
					CHECK(p < end && ((*p >= '0' && *p <= '9') || (*p >= 'a' && *p <= 'f')));
		} else if (*p == '\\') {
			CHECK(!escaped || p[1] == '"');
			check_escape();
		} else if (*p >= 0x80) {
			check_character();
		} else {
			p++;
		}
	}
	CHECK(p < end && *p++ == '"');
}

static void check_number(void)
{
	const unsigned char *start = p;

	while (p < end && *p >= '0' && *p <= '9')
		p++;
	CHECK(p > start && p - start <= 20 && (*start != '0' || p == start + 1));
}

static void check_array(bool escaped, unsigned int *items)
{
	p++;
	for (*items = 0; p < end && *p != ']'; (*items)++) {
		if (*items)
			CHECK(*p++ == ',');
		check_string(escaped);
	}
	CHECK(p < end && *p++ == ']');
}

static void check_value(bool escaped, unsigned int *items)
{
	CHECK(p < end);
	if (*p == '"') {
		check_string(escaped);
	} else if (*p == '[') {
		check_array(escaped, items);
	} else if (*p == 't') {
		CHECK(end - p > 4 && !memcmp(p, "true", 4));
		p += 4;
	} else {
		check_number();
	}
}

static void check_object(bool escaped, unsigned int *items)
{
	const unsigned char *keys[KEYS_MAX];
	size_t lens[KEYS_MAX], n;

	CHECK(p < end && *p++ == '{');
	for (n = 0; p < end && *p != '}'; n++) {
		if (n)
			CHECK(*p++ == ',');
		CHECK(n < KEYS_MAX);
		keys[n] = p;
		check_string(true);
		lens[n] = (size_t)(p - keys[n]);
		for (size_t i = 0; i < n; i++)
			CHECK(lens[i] != lens[n] || memcmp(keys[i], keys[n], lens[n]));
		CHECK(p < end && *p++ == ':');
		check_value(escaped, items);
	}
	CHECK(n && p < end && *p++ == '}');
}

static bool line_has(const struct stream *s, const char *part)
{
	return memmem(s->line, s->line_len, part, strlen(part));
}

static void check_line(const struct stream *s)
{
	bool escaped = line_has(s, ",\"argv_encoding\":\"escaped\",");
	unsigned int items = 0;

	CHECK(s->line_len <= STREAM_LINE_MAX);
	CHECK(memchr(s->line, '\n', s->line_len) == s->line + s->line_len - 1);
	p = (const unsigned char *)s->line;
	end = p + s->line_len - 1;
	check_object(escaped, &items);
	CHECK(p == end);
	CHECK(items <= ARGV_MAX_ARGS);
}

/* Words of a recipe. The first few carry or announce secrets. */
static const char *const words[] = {
	"AUTH",        "HELLO", "CONFIG", "acl",     "MIGRATE", "sentinel", "set",        "SETUSER", "auth2",
	"requirepass", "3",     "KEYS",   "SETNAME", "copy",    "GET",      "masterauth", "x",
};

#define WORDS (sizeof(words) / sizeof(words[0]))

struct head {
	char *bytes;
	size_t len;
};

static void put(struct head *h, const void *bytes, size_t len)
{
	CHECK(len <= ARGV_HEAD_MAX - h->len);
	memcpy(h->bytes + h->len, bytes, len);
	h->len += len;
}

static void put_argument(struct head *h, const void *bytes, size_t len)
{
	char header[32];

	put(h, header, (size_t)snprintf(header, sizeof(header), "$%zu\r\n", len));
	put(h, bytes, len);
	put(h, "\r\n", 2);
}

static void put_shortened(struct head *h, const unsigned char *bytes)
{
	put(h, "!1048576\r\n", 10);
	put(h, bytes, ARGV_MAX_ARG_BYTES);
}

/* Writes the arguments of a recipe. The last of an AUTH is a secret. Returns their number. */
static unsigned int put_arguments(struct head *h, const unsigned char *data, size_t size)
{
	unsigned int n = 0;
	bool auth = size && data[0] % WORDS == 0 && data[0] < 128;

	while (size && n < ARGV_MAX_ARGS - 1) {
		size_t len = data[0] - 128u;

		if (data[0] < 128) {
			put_argument(h, words[data[0] % WORDS], strlen(words[data[0] % WORDS]));
			len = 0;
		} else if (len == 127 && size > ARGV_MAX_ARG_BYTES) {
			put_shortened(h, data + 1);
			len = ARGV_MAX_ARG_BYTES;
		} else {
			len = len < size - 1 ? len : size - 1;
			put_argument(h, data + 1, len);
		}
		data += 1 + len;
		size -= 1 + len;
		n++;
	}
	if (auth) {
		put_argument(h, SECRET, strlen(SECRET));
		n++;
	}
	return n;
}

static void cook(struct head *h, const unsigned char *data, size_t size)
{
	static char arguments[ARGV_HEAD_MAX];
	struct head body = { arguments, 0 };
	unsigned int n = put_arguments(&body, data, size);
	char header[32];

	put(h, header, (size_t)snprintf(header, sizeof(header), "*%u\r\n", n));
	put(h, body.bytes, body.len);
}

static void fill(struct reply_record *rec, const unsigned char *c)
{
	uint64_t wide = UINT64_C(0x0101010101010101) * c[0];

	*rec = (struct reply_record){
		.request_ns = wide * (c[1] & 1),
		.first_byte_ns = wide * (c[1] >> 1 & 1) + c[2],
		.last_byte_ns = wide + c[3],
		.request_bytes = wide * (c[1] >> 2 & 1),
		.reply_bytes = wide + c[2],
		.client_id = c[1] & 8 ? UINT64_MAX : c[1] >> 4,
		.writes = c[2],
		.client_port = (uint16_t)(wide + c[3]),
		.client_family = c[4],
		.kind = c[5],
		.attribution = c[6],
		.state = c[7],
		.argv_status = c[8],
		.argv_cut = c[9] & 1,
		.argv_from = c[9] >> 1,
	};
	memset(rec->client_addr, c[3], 8);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
	static struct stream stream;
	static struct sink sink = { .fd = -1 };
	struct reply_record *rec;
	struct head h;
	uint64_t before;
	bool recipe;
	int err;

	if (sink.fd < 0) {
		sink_init(&sink, open("/dev/null", O_WRONLY));
		CHECK(!stream_init(&stream, &sink, 1));
	}
	if (size <= CONTROL_BYTES || memmem(data, size, SECRET, strlen(SECRET)))
		return 0;
	recipe = data[CONTROL_BYTES] == '@';
	/* The argv is at the end of its allocation, so that the address sanitizer sees overruns. */
	rec = malloc(sizeof(*rec) + ARGV_HEAD_MAX);
	h = (struct head){ (char *)(rec + 1), 0 };
	fill(rec, data);
	if (recipe)
		cook(&h, data + CONTROL_BYTES + 1, size - CONTROL_BYTES - 1);
	else
		put(&h, data + CONTROL_BYTES, size - CONTROL_BYTES < ARGV_HEAD_MAX ? size - CONTROL_BYTES : ARGV_HEAD_MAX);
	rec->argv_len = (uint32_t)h.len;
	rec = realloc(rec, sizeof(*rec) + h.len);
	before = stream.replies;
	err = stream_reply(&stream, rec, sizeof(*rec) + h.len);
	CHECK(!err || err == -EBADMSG);
	CHECK(stream.replies == before + !err);
	if (!err)
		check_line(&stream);
	if (!err && recipe)
		CHECK(!line_has(&stream, SECRET));
	free(rec);
	return 0;
}
