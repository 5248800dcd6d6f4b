/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Compares the framer that runs in the kernel with readers that share nothing with it: replies with hiredis, requests
 * with the server's own rules (and hiredis). The fuzzer generates conversations, changes some bytes, and cuts them
 * anywhere into reads, writes and iovecs. Both readers find the same boundaries, or both refuse. Where one is more
 * lenient or stricter by design, lenient() and strict() say so.
 *
 * Input: the first byte says replies or requests, see generate.h for the rest.
 */
#include "engine_host.h"

#include "user/output/argv.h"
#include "generate.h"
#include "read_replies.h"
#include "read_requests.h"

#define PIECES_MAX 16

static struct stream stream;
static struct replies_read by_hiredis;
static struct requests_read by_server;

static void show(void)
{
	size_t i;

	fputs("session:\n", stderr);
	for (i = 0; i < stream.len; i++)
		fprintf(stderr, stream.wire[i] >= ' ' && stream.wire[i] < 127 ? "%c" : "\\x%02x", stream.wire[i]);
	fprintf(stderr, "\nhiredis read %zu replies%s%s, the server %zu requests, the framer %zu\n", by_hiredis.n,
		by_hiredis.refused ? ", then: " : "", by_hiredis.error, by_server.n, host_count);
}

/* How many of the remaining bytes the next read or write takes. */
static size_t cut(struct input *in, size_t left)
{
	static const size_t sizes[] = {
		1, 2, 3, 5, 17, 33, 100, 700, 2047, 2048, 2049, 2080, 4096, 16384, 1 << 20, 1 << 20
	};
	unsigned int b = take_back(in);
	size_t n = b < 192 ? sizes[b % 16] : b - 191;

	return n < left ? n : left;
}

/* A copy that ends where it ends, for the address sanitizer. */
static uint8_t *copy_of(const uint8_t *bytes, size_t len)
{
	uint8_t *copy = malloc(len ? len : 1);

	CHECK(copy);
	memcpy(copy, bytes, len);
	return copy;
}

/* Writes some of the bytes in pieces, of which the kernel takes only the first total bytes. */
static enum reply_verdict write_pieces(struct host_conn *c, struct input *in, const uint8_t *bytes, size_t left,
				       size_t *total)
{
	struct server_iovec iov[PIECES_MAX];
	enum reply_verdict verdict;
	size_t n, sum = 0;

	for (n = 0; n < PIECES_MAX && (sum < left || !n); n++) {
		iov[n].len = take_back(in) % 8 ? cut(in, left - sum) : 0; /* empty pieces are allowed */
		iov[n].base = (unsigned long)copy_of(bytes + sum, iov[n].len);
		sum += iov[n].len;
	}
	*total = sum && take_back(in) % 2 ? 1 + take_back_wide(in) % sum : sum;
	verdict = *total ? host_writev(c, iov, n, *total) : REPLY_OK;
	while (n--)
		free((void *)(unsigned long)iov[n].base);
	return verdict;
}

static enum reply_verdict write_some(struct host_conn *c, struct input *in, const uint8_t *bytes, size_t left, size_t *total)
{
	if (take_back(in) % 2)
		return write_pieces(c, in, bytes, left, total);
	*total = cut(in, left);
	return host_write(c, bytes, *total);
}

/* ---- replies ---- */

/* A command for each possible reply, which has at least a CR or an LF. */
static void ask(struct host_conn *c, const uint8_t *bytes, size_t len)
{
	static const char ping[] = "*1\r\n$4\r\nPING\r\n";
	static char pings[(sizeof(ping) - 1) * (STREAM_MAX + 1)];
	size_t n = 1, i;

	if (!*pings)
		for (i = 0; i <= STREAM_MAX; i++)
			memcpy(pings + i * (sizeof(ping) - 1), ping, sizeof(ping) - 1);
	for (i = 0; i < len; i++)
		n += bytes[i] == '\r' || bytes[i] == '\n';
	CHECK(host_read(c, pings, n * (sizeof(ping) - 1)) == REQUEST_OK);
}

static enum reply_verdict write_replies(struct host_conn *c, struct input *in, const uint8_t *bytes, size_t len)
{
	enum reply_verdict verdict = REPLY_OK;
	size_t at, n;

	for (at = 0; at < len && verdict == REPLY_OK; at += n)
		verdict = write_some(c, in, bytes + at, len - at, &n);
	CHECK(verdict == REPLY_OK || verdict == REPLY_MALFORMED || verdict == REPLY_UNASKED);
	return verdict;
}

/* How many digits a number in front of the text has, that ends at a CR. A null's -1 has two. */
static size_t digits_before_cr(const uint8_t *text, size_t len)
{
	size_t n = 0;

	if (len > 2 && !memcmp(text, "-1\r", 3))
		return 2;
	while (n < len && text[n] >= '0' && text[n] <= '9')
		n++;
	return n < len && text[n] == '\r' ? n : 0;
}

static bool says(const struct replies_read *h, const char *error)
{
	return !strncmp(h->error, error, strlen(error));
}

/*
 * Whether the framer may continue, or may have continued, where hiredis has stopped:
 *  - at types hiredis does not know (processItem);
 *  - the framer does not validate the text of a line or the type of a verbatim string: it counts what the server wrote,
 *    and a server that writes ":x" is wrong, but its bytes still count. A line ends with its LF, hiredis waits for CRLF
 *    (seekNewline);
 *  - a number may have zeros in front, which string2ll refuses, and the byte behind its CR may be any, as for redis 7.0;
 *  - an aggregate may have more elements than hiredis would allocate (REDIS_READER_MAX_ARRAY_ELEMENTS);
 *  - the framer checks a type together with its number, so it refuses an unknown type one header later.
 */
static bool lenient(const struct replies_read *h, size_t len)
{
	const uint8_t *cr;
	size_t digits;

	if (says(h, "Protocol error, got ") && len - h->fed < RESP_HEADER_MAX - 1)
		return true;
	if (says(h, "Protocol error, got \"!\"") || says(h, "Protocol error, got \"|\""))
		return true;
	if (says(h, "Bad integer") || says(h, "Bad double") || says(h, "Double value") || says(h, "Bad nil") ||
	    says(h, "Bad bool") || says(h, "Bad bignum") || says(h, "Bad simple") || says(h, "Verbatim string"))
		return true;
	digits = digits_before_cr(h->text, h->text_len);
	if (h->refused)
		return digits && digits <= NUMBER_MAX;
	if (memmem(h->text, h->text_len, "\r\n", 2))
		return false; /* payload is what it waits for */
	cr = memchr(h->text, '\r', h->text_len);
	return memchr(h->text, '\n', h->text_len) || (cr && cr + 1 < h->text + h->text_len);
}

/* Whether the framer may refuse where hiredis waits for more: a number of more digits than any length or count has. */
static bool strict(const struct replies_read *h)
{
	const uint8_t *cr = memchr(h->text, '\r', h->text_len);

	return (cr ? (size_t)(cr - h->text) : h->text_len) > NUMBER_MAX;
}

static void compare_replies(const struct replies_read *h, size_t len, enum reply_verdict verdict)
{
	bool framed = verdict == REPLY_OK;
	size_t i, start = 0;

	for (i = 0; i < host_count && i < h->n; i++) {
		CHECK(host_records[i].bytes == h->reply[i].end - start);
		CHECK(host_records[i].push == h->reply[i].push);
		start = h->reply[i].end;
	}
	if (verdict == REPLY_UNASKED) /* a push confirms an unrequested subscription: frames alone don't tell */
		return;
	/* "%-1" and its like are nulls to hiredis. No server sends them, and the framer refuses them. */
	if (h->odd_null && host_count == h->odd_null_at) {
		CHECK(!framed);
		return;
	}
	CHECK(host_count >= h->n);
	if (lenient(h, len))
		return;
	CHECK(host_count == h->n);
	if (framed)
		CHECK(!h->refused);
	else
		CHECK(h->refused || strict(h));
}

/* An end that the plain reader sees behind an attribute is no end of a reply. */
static void join_attributes(struct replies_read *h, const struct stream *s)
{
	size_t i, n = 0, next = 0;

	for (i = 0; i < h->n; i++) {
		while (next < s->attributes_count && s->attributes[next] < h->reply[i].end)
			next++;
		if (next < s->attributes_count && s->attributes[next] == h->reply[i].end)
			continue;
		h->reply[n++] = h->reply[i];
	}
	h->n = n;
}

/* Compares hiredis itself with the generated session. */
static void check_reading(const struct replies_read *h, const struct stream *s)
{
	size_t i;

	CHECK(!h->refused && h->n == s->ends_count);
	for (i = 0; i < h->n; i++)
		CHECK(h->reply[i].end == s->ends[i]);
}

static void fuzz_replies(struct input *in)
{
	struct host_conn *c = host_connect();
	enum reply_verdict verdict;

	host_reset(0, HOST_BLOCKS);
	generate_replies(&stream, in);
	change_bytes(&stream, in);
	read_replies(&by_hiredis, stream.plain, stream.wire, stream.len);
	if (stream.well_formed) {
		join_attributes(&by_hiredis, &stream);
		check_reading(&by_hiredis, &stream);
	}
	ask(c, stream.wire, stream.len);
	verdict = write_replies(c, in, stream.wire, stream.len);
	/* Between raw bytes the plain reader's attributes are not where they were generated. */
	if (stream.well_formed || !stream.has_attributes)
		compare_replies(&by_hiredis, stream.len, verdict);
	free(c);
}

/* ---- requests ---- */

static void check_argv(const struct host_record *rec, const struct command *want)
{
	static struct argv argv;
	unsigned int i;
	int err = argv_decode(&argv, rec->head, rec->head_len, false);

	/* To the server, an argument without CRLF behind it is one. The kept argv is not checked then. */
	if (!want->crlf && err)
		return;
	CHECK(err ? want->disputed : !want->disputed);
	if (err)
		return;
	CHECK(argv.argc == want->argc);
	CHECK(argv.n == (want->argc < ARGV_MAX_ARGS ? want->argc : ARGV_MAX_ARGS));
	for (i = 0; i < argv.n; i++) {
		CHECK(argv.arg[i].true_len == want->arg[i].len);
		CHECK(argv.arg[i].len <= want->arg[i].len);
		CHECK(argv.arg[i].len == want->arg[i].len || argv.arg[i].len == ARGV_MAX_ARG_BYTES);
		CHECK(!memcmp(argv.arg[i].bytes, want->arg[i].bytes, argv.arg[i].len));
	}
}

/*
 * Writes the replies to the commands that end before at, each of another size. False: the framer doesn't know the command.
 */
static bool answer(struct host_conn *c, const struct requests_read *r, size_t at, size_t *answered)
{
	char reply[32];

	for (; *answered < r->n && r->command[*answered].end <= at; ++*answered) {
		const struct command *want = &r->command[*answered];
		const struct host_record *rec;
		size_t len = (size_t)snprintf(reply, sizeof(reply), ":%zu\r\n", *answered * *answered);

		if (!outstanding(&c->conn))
			return false;
		CHECK(host_write(c, reply, len) == REPLY_OK);
		CHECK(host_count == *answered + 1);
		rec = &host_records[*answered];
		CHECK(rec->bytes == len && !rec->push);
		CHECK(rec->status == ARGV_KEPT);
		CHECK(rec->request_bytes == want->end - want->start);
		if (!want->is_inline || rec->request_bytes < ARGV_LINE_MAX)
			check_argv(rec, want);
	}
	return true;
}

/*
 * The framer refuses more than redis 7.0, and does not follow the connection after that: "*0" and "*-1" without CRLF,
 * control
 * characters in an inline command, NUL in a number, a bulk of over 16 digits. It also accepts more than the server: zeros in
 * front of a number (request_multibulk and request_argument parse, they don't judge), lengths over proto-max-bulk-len, which
 * the server can be told, and quotes that are not closed, which user/output/argv.c finds. The server answers those with an error and
 * closes.
 */
static void compare_requests(struct host_conn *c, const struct requests_read *r, enum request_verdict verdict,
			     size_t answered)
{
	CHECK(verdict == REQUEST_OK || verdict == REQUEST_MALFORMED || verdict == REQUEST_DRAINS);
	/*
	 * It may have seen the name of a command that the server refuses or has not read whole. Control characters end a
	 * name to it.
	 */
	if (verdict == REQUEST_DRAINS)
		CHECK(r->unusual || (answered == r->n && r->at < r->len));
	else if (answered < r->n)
		CHECK(verdict == REQUEST_MALFORMED && r->unusual);
	else if (r->end == REQUESTS_WAIT && !r->unusual)
		CHECK(verdict == REQUEST_OK && !outstanding(&c->conn));
	else if (r->end == REQUESTS_REFUSED && !r->strict_number && !r->unusual && r->bytes[r->at] == '*')
		CHECK(verdict == REQUEST_MALFORMED && !outstanding(&c->conn));
}

static void fuzz_requests(struct input *in)
{
	struct host_conn *c = host_connect();
	enum request_verdict verdict = REQUEST_OK;
	size_t at, n, answered = 0;
	bool in_turn = take_back(in) % 2, known = true;

	host_reset(0, HOST_BLOCKS);
	generate_requests(&stream, in);
	change_bytes(&stream, in);
	read_requests(&by_server, stream.wire, stream.len);
	for (at = 0; at < stream.len && verdict == REQUEST_OK && known; at += n) {
		n = cut(in, stream.len - at);
		verdict = host_read(c, stream.wire + at, n);
		if (in_turn)
			known = answer(c, &by_server, at + n, &answered);
	}
	if (known)
		answer(c, &by_server, stream.len, &answered);
	compare_requests(c, &by_server, verdict, answered);
	free(c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { data, data + size };

	if (take(&in) & 1)
		fuzz_requests(&in);
	else
		fuzz_replies(&in);
	return 0;
}
