/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The framer that runs in the kernel: conversations split at every byte, and random ones compared with a reader that
 * goes byte by byte.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "engine_host.h"

struct exchange {
	const char *request;
	const char *head; /* NULL: the request itself */
	const char *reply;
};

#define X16 "xxxxxxxxxxxxxxxx"
#define X128 X16 X16 X16 X16 X16 X16 X16 X16

/* One of everything that a client may send and a server may answer. */
static const struct exchange session[] = {
	{ "*1\r\n$4\r\nPING\r\n", NULL, "+PONG\r\n" },
	{ "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", NULL, "$5\r\nhello\r\n" },
	{ "*2\r\n$3\r\nGET\r\n$4\r\nnone\r\n", NULL, "$-1\r\n" },
	{ "*2\r\n$3\r\nGET\r\n$5\r\nempty\r\n", NULL, "$0\r\n\r\n" },
	{ "PING\r\n", "PING\r", "+PONG\r\n" },
	{ "get  \"a b\" \r\n", "get  \"a b\" \r", "-ERR wrong number of arguments\r\n" },
	{ "echo x\n", "echo x", "$1\r\nx\r\n" },
	{ " \t ping\r\n", " \t ping\r", "+PONG\r\n" },
	{ "Client id\n", "Client id", ":3\r\n" },
	{ "client\t list\r\n", "client\t list\r", "$0\r\n\r\n" },
	{ "CLIENT\r\n", "CLIENT\r", "-ERR wrong number of arguments\r\n" },
	{ "script\n", "script", "-ERR wrong number of arguments\r\n" },
	{ "*2\r\n$7\r\nCLUSTER\r\n$9\r\nCOUNTKEYS\r\n", NULL, "-ERR unknown subcommand\r\n" },
	{ "*2\r\n$6\r\nSCRIPT\r\n$5\r\nFLUSH\r\n", NULL, "+OK\r\n" },
	{ "'PING'\n", "'PING'", "+PONG\r\n" },
	{ "\"ECHO\" a\r\n", "\"ECHO\" a\r", "$1\r\na\r\n" },
	{ "a\n", "a", "-ERR unknown command 'a'\r\n" },
	{ "*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n", NULL, ":1234567890123456789\r\n" },
	{ "*3\r\n$3\r\nSET\r\n$0\r\n\r\n$2\r\n\r\n\r\n", NULL, "+OK\r\n" },
	{ "*4\r\n$6\r\nLRANGE\r\n$1\r\nl\r\n$1\r\n0\r\n$2\r\n-1\r\n", NULL, "*3\r\n$1\r\na\r\n$-1\r\n:7\r\n" },
	{ "*1\r\n$4\r\nKEYS\r\n", NULL, "*0\r\n" },
	{ "*1\r\n$5\r\nBLPOP\r\n", NULL, "*-1\r\n" },
	{ "*1\r\n$6\r\nCONFIG\r\n", NULL, "%2\r\n+a\r\n*2\r\n:1\r\n:2\r\n$1\r\nb\r\n~1\r\n#t\r\n" },
	{ "*1\r\n$3\r\nFOO\r\n", NULL, "*2\r\n*2\r\n*1\r\n_\r\n,3.25\r\n%1\r\n(12345678901234567890\r\n=7\r\ntxt:abc\r\n" },
	{ "*1\r\n$3\r\nBAR\r\n", NULL, "!9\r\nERR\r\n\r\nno\r\n" },
	{ "*1\r\n$3\r\nBAZ\r\n", NULL, "|1\r\n+ttl\r\n:3\r\n*2\r\n|1\r\n+k\r\n*0\r\n+v\r\n+w\r\n" },
	{ "*2\r\n$4\r\nECHO\r\n$130\r\n" X128 "yz\r\n", NULL, "$130\r\n" X128 "yz\r\n" },
	{ "*2\r\n$6\r\nCLIENT\r\n$2\r\nID\r\n", NULL, ":3\r\n" },
	{ "*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLX\r\n$2\r\nON\r\n", NULL, "-ERR unknown subcommand\r\n" },
	{ "*1\r\n$9\r\nSUBSCRIBF\r\n", NULL, "-ERR unknown command\r\n" },
	{ "*2\r\n$16\r\nGETGETGETGETGETG\r\n$1\r\nk\r\n", NULL, "+a long status that takes several words of eight\r\n" },
};

#define EXCHANGES (sizeof(session) / sizeof(session[0]))

static char requests[4096], replies[4096];
static size_t requests_len, replies_len;

static int join_conversation(void **state)
{
	size_t i;

	(void)state;
	for (i = 0; i < EXCHANGES; i++) {
		strcat(requests, session[i].request);
		strcat(replies, session[i].reply);
		/* Bytes between commands that are no command. */
		if (i == 2)
			strcat(requests, "\r\n*0\r\n*-1\r\n  \t \r\n*-2147483649\r\n\n*-9223372036854775808\r\n*-5\r\n");
	}
	requests_len = strlen(requests);
	replies_len = strlen(replies);
	return 0;
}

/* A shortened argument is whole or marked. Both are right, depending on where the request was cut. */
static void check_head(const struct host_record *rec, const struct exchange *x)
{
	const char *want = x->head ? x->head : x->request;
	char marked[512];

	if (rec->head_len == strlen(want) && !memcmp(rec->head, want, rec->head_len))
		return;
	snprintf(marked, sizeof(marked), "*2\r\n$4\r\nECHO\r\n!130\r\n%s", X128);
	if (rec->head_len != strlen(marked) || memcmp(rec->head, marked, rec->head_len))
		fail_msg("head %.*s is not %s", (int)rec->head_len, rec->head, want);
}

static void check_conversation(void)
{
	size_t i;

	assert_int_equal(host_count, EXCHANGES);
	for (i = 0; i < EXCHANGES; i++) {
		const struct host_record *rec = &host_records[i];

		assert_int_equal(rec->seq, i);
		assert_int_equal(rec->bytes, strlen(session[i].reply));
		assert_int_equal(rec->status, ARGV_KEPT);
		assert_int_equal(rec->request_bytes, strlen(session[i].request));
		assert_int_equal(rec->state, STATE_COMPLETE);
		check_head(rec, &session[i]);
	}
}

static void test_one_piece(void **state)
{
	struct host_conn *c = host_connect();

	(void)state;
	host_reset(0, 8);
	assert_int_equal(host_read(c, requests, requests_len), REQUEST_OK);
	assert_int_equal(c->conn.read_seq, EXCHANGES);
	assert_int_equal(host_write(c, replies, replies_len), REPLY_OK);
	check_conversation();
	assert_int_equal(host.free_count, 8);
	free(c);
}

static void test_every_request_split(void **state)
{
	size_t cut;

	(void)state;
	for (cut = 1; cut < requests_len; cut++) {
		struct host_conn *c = host_connect();

		host_reset(0, 8);
		assert_int_equal(host_read(c, requests, cut), REQUEST_OK);
		assert_int_equal(host_read(c, requests + cut, requests_len - cut), REQUEST_OK);
		assert_int_equal(host_write(c, replies, replies_len), REPLY_OK);
		check_conversation();
		free(c);
	}
}

static void test_every_reply_split(void **state)
{
	size_t cut;

	(void)state;
	for (cut = 1; cut < replies_len; cut++) {
		struct host_conn *c = host_connect();

		host_reset(0, 8);
		assert_int_equal(host_read(c, requests, requests_len), REQUEST_OK);
		assert_int_equal(host_write(c, replies, cut), REPLY_OK);
		assert_int_equal(host_write(c, replies + cut, replies_len - cut), REPLY_OK);
		check_conversation();
		free(c);
	}
}

static void test_pieces_of_every_size(void **state)
{
	size_t size, at;

	(void)state;
	for (size = 1; size < 64; size++) {
		struct host_conn *c = host_connect();

		host_reset(0, 8);
		for (at = 0; at < requests_len; at += size)
			assert_int_equal(host_read(c, requests + at, size < requests_len - at ? size : requests_len - at),
					 REQUEST_OK);
		for (at = 0; at < replies_len; at += size)
			assert_int_equal(host_write(c, replies + at, size < replies_len - at ? size : replies_len - at),
					 REPLY_OK);
		check_conversation();
		free(c);
	}
}

static void test_iovecs_of_every_size(void **state)
{
	static struct server_iovec iov[4096];
	size_t size, at, n;

	(void)state;
	for (size = 1; size < 64; size++) {
		struct host_conn *c = host_connect();

		host_reset(0, 8);
		assert_int_equal(host_read(c, requests, requests_len), REQUEST_OK);
		for (n = 0, at = 0; at < replies_len; at += size, n++) {
			iov[n].base = (unsigned long)(replies + at);
			iov[n].len = size < replies_len - at ? size : replies_len - at;
			if (n % 7 == 0) { /* empty pieces are allowed */
				iov[n + 1] = iov[n];
				iov[n].len = 0;
				n++;
			}
		}
		assert_int_equal(host_writev(c, iov, n, replies_len), REPLY_OK);
		check_conversation();
		free(c);
	}
}

/* The kernel takes only the first bytes of an iovec, and the server writes the rest later. */
static void test_partial_writev_at_every_byte(void **state)
{
	size_t cut;

	(void)state;
	for (cut = 1; cut < replies_len; cut++) {
		struct server_iovec iov[2] = { { (unsigned long)replies, 100 },
					       { (unsigned long)replies + 100, replies_len - 100 } };
		struct server_iovec rest = { (unsigned long)replies + cut, replies_len - cut };
		struct host_conn *c = host_connect();

		host_reset(0, 8);
		assert_int_equal(host_read(c, requests, requests_len), REQUEST_OK);
		assert_int_equal(host_writev(c, iov, 2, cut), REPLY_OK);
		assert_int_equal(host_writev(c, &rest, 1, replies_len - cut), REPLY_OK);
		check_conversation();
		free(c);
	}
}

/* One request, one reply, and so on, without a pipeline: nothing may accumulate. */
static void test_request_and_reply_in_turn(void **state)
{
	struct host_conn *c = host_connect();
	size_t i, round;

	(void)state;
	for (round = 0; round < 200; round++) {
		host_reset(0, 0); /* only the inline page is available */
		for (i = 0; i < EXCHANGES; i++) {
			assert_int_equal(host_read(c, session[i].request, strlen(session[i].request)), REQUEST_OK);
			assert_int_equal(host_write(c, session[i].reply, strlen(session[i].reply)), REPLY_OK);
			assert_int_equal(host_records[i].status, ARGV_KEPT);
			check_head(&host_records[i], &session[i]);
		}
	}
	free(c);
}

/* ---- large arguments and payloads ---- */

static size_t bulk(char *out, char fill, size_t len)
{
	size_t n = sprintf(out, "$%zu\r\n", len);

	memset(out + n, fill, len);
	memcpy(out + n + len, "\r\n", 2);
	return n + len + 2;
}

static void test_large_argument_is_shortened(void **state)
{
	static char request[300000], want[256];
	size_t sizes[] = { 129, 1000, 2040, 2048, 4096, 16384, 200000 }, i, n, at, step;

	(void)state;
	for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		for (step = 777; step < 20000; step += 7777) {
			struct host_conn *c = host_connect();
			const struct host_record *rec;

			host_reset(0, 4);
			n = sprintf(request, "*4\r\n$3\r\nSET\r\n$1\r\nk\r\n");
			n += bulk(request + n, 'v', sizes[i]);
			n += sprintf(request + n, "$3\r\nGET\r\n");
			for (at = 0; at < n; at += step)
				assert_int_equal(host_read(c, request + at, n - at < step ? n - at : step), REQUEST_OK);
			assert_int_equal(host_write(c, "$-1\r\n", 5), REPLY_OK);
			assert_int_equal(host_count, 1);
			rec = host_records;
			assert_int_equal(rec->request_bytes, n);
			snprintf(want, sizeof(want), "*4\r\n$3\r\nSET\r\n$1\r\nk\r\n!%zu\r\n%.*s$3\r\nGET\r\n", sizes[i], 0,
				 "");
			if (rec->head_len == n) {
				assert_memory_equal(rec->head, request, n);
			} else {
				char head[512];
				size_t len = sprintf(head, "*4\r\n$3\r\nSET\r\n$1\r\nk\r\n!%zu\r\n", sizes[i]);

				memset(head + len, 'v', ARGV_MAX_ARG_BYTES);
				len += ARGV_MAX_ARG_BYTES;
				len += sprintf(head + len, "$3\r\nGET\r\n");
				assert_int_equal(rec->head_len, len);
				assert_memory_equal(rec->head, head, len);
			}
			free(c);
		}
}

/* 200 arguments of every size around the limits: the kept argv has the first 32 and no more, in bounds. */
static void test_many_arguments(void **state)
{
	static char request[2000000];
	size_t len, n, i, at, step;

	(void)state;
	for (len = 0; len < 3000; len = len * 2 + 1)
		for (step = 500; step < 20000; step = step * 3 + 1) {
			struct host_conn *c = host_connect();

			host_reset(0, 4);
			n = sprintf(request, "*200\r\n$4\r\nMGET\r\n");
			for (i = 1; i < 200; i++)
				n += bulk(request + n, 'a' + i % 26, len);
			memcpy(request + n, "*1\r\n$4\r\nPING\r\n", 14);
			n += 14;
			for (at = 0; at < n; at += step)
				assert_int_equal(host_read(c, request + at, n - at < step ? n - at : step), REQUEST_OK);
			assert_int_equal(host_write(c, "*0\r\n+PONG\r\n", 11), REPLY_OK);
			assert_int_equal(host_count, 2);
			assert_int_equal(host_records[0].status, ARGV_KEPT);
			assert_int_equal(host_records[0].request_bytes, n - 14);
			assert_true(host_records[0].head_len <= ARGV_HEAD_MAX);
			assert_int_equal(host_records[1].head_len, 14);
			assert_memory_equal(host_records[1].head, "*1\r\n$4\r\nPING\r\n", 14);
			free(c);
		}
}

/* Commands in the same read as one that excludes the connection keep their argv. */
static void test_argv_before_exclusion(void **state)
{
	struct host_conn *c = host_connect();

	(void)state;
	host_reset(0, 4);
	assert_int_equal(host_read(c, "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*1\r\n$7\r\nMONITOR\r\n", 37), REQUEST_DRAINS);
	assert_int_equal(host_write(c, "$-1\r\n", 5), REPLY_OK);
	assert_int_equal(host_count, 1);
	assert_int_equal(host_records[0].status, ARGV_KEPT);
	assert_int_equal(host_records[0].head_len, 20);
	assert_memory_equal(host_records[0].head, "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", 20);
	free(c);
}

/* A command behind one with more arguments than replylog keeps, in the same read, with the page nearly full. */
static void test_command_after_many_arguments(void **state)
{
	static const char ping[] = "*1\r\n$4\r\nPING\r\n";
	size_t filled, n, i;
	char request[1024];

	(void)state;
	for (filled = 0; filled < INLINE_ENTRIES - 4; filled++) {
		struct host_conn *c = host_connect();

		host_reset(0, 4);
		for (i = 0; i < filled; i++)
			assert_int_equal(host_read(c, "*2\r\n$3\r\nGET\r\n$4\r\nabcd\r\n", 23), REQUEST_OK);
		n = sprintf(request, "*45\r\n$3\r\nDEL\r\n");
		for (i = 1; i < 45; i++)
			n += sprintf(request + n, "$4\r\nk%03zu\r\n", i);
		n += sprintf(request + n, "%s%s", ping, ping);
		assert_int_equal(host_read(c, request, n), REQUEST_OK);
		for (i = 0; i < filled + 3; i++)
			assert_int_equal(host_write(c, ":1\r\n", 4), REPLY_OK);
		assert_int_equal(host_count, filled + 3);
		for (i = filled + 1; i < filled + 3; i++) {
			assert_int_equal(host_records[i].status, ARGV_KEPT);
			assert_int_equal(host_records[i].head_len, strlen(ping));
			assert_memory_equal(host_records[i].head, ping, strlen(ping));
		}
		free(c);
	}
}

static void test_bulk_of_100_mb_is_skipped(void **state)
{
	static char piece[1 << 20];
	struct host_conn *c = host_connect();
	size_t left = 100000000;

	(void)state;
	host_reset(1 << 20, 4);
	memset(piece, '\r', sizeof(piece));
	assert_int_equal(host_read(c, "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", 20), REQUEST_OK);
	assert_int_equal(host_write(c, "$100000000\r", 11), REPLY_OK);
	assert_int_equal(host_write(c, "\n", 1), REPLY_OK);
	for (; left; left -= left < sizeof(piece) ? left : sizeof(piece))
		assert_int_equal(host_write(c, piece, left < sizeof(piece) ? left : sizeof(piece)), REPLY_OK);
	assert_int_equal(host_count, 0);
	assert_int_equal(host_write(c, "\r\n", 2), REPLY_OK);
	assert_int_equal(host_count, 1);
	assert_int_equal(host_records[0].bytes, 100000014);
	assert_int_equal(host_records[0].writes, 2 + 96 + 1);
	assert_true(host_records[0].first_ns < host_records[0].last_ns);
	assert_true(host_records[0].request_ns < host_records[0].first_ns);
	free(c);
}

static void read_payload(struct host_conn *c, size_t len)
{
	static char payload[1 << 20];
	size_t n;

	for (; len; len -= n) {
		n = len < sizeof(payload) ? len : sizeof(payload);
		assert_int_equal(request_frame(&c->conn, &c->work, (unsigned long)payload, n, env_now()), REQUEST_OK);
	}
}

/* EXISTS with nine arguments of 511 MiB each. */
static void read_huge_exists(struct host_conn *c)
{
	const size_t len = 511 << 20;
	const char header[] = "$535822336\r\n";
	int i;

	host_read(c, "*10\r\n$6\r\nEXISTS\r\n", 17);
	for (i = 0; i < 9; i++) {
		host_read(c, header, strlen(header));
		read_payload(c, len);
		host_read(c, "\r\n", 2);
	}
}

static void test_requests_beyond_4_gib(void **state)
{
	struct host_conn *c = host_connect();

	(void)state;
	host_reset(0, HOST_BLOCKS);
	read_huge_exists(c);
	host_read(c, "PING\r\n", 6);
	read_huge_exists(c);
	host_write(c, ":0\r\n+PONG\r\n:0\r\n", 15);
	assert_int_equal(host_count, 3);
	assert_int_equal(host_records[0].request_bytes, 0); /* another request arrived */
	assert_int_equal(host_records[1].request_bytes, 6);
	assert_int_equal(host_records[2].request_bytes, 4822401167);
	free(c);
}

static void test_threshold(void **state)
{
	struct host_conn *c = host_connect();

	(void)state;
	host_reset(11, 4);
	assert_int_equal(host_read(c, "PING\r\nPING\r\nPING\r\n", 18), REQUEST_OK);
	assert_int_equal(host_write(c, "$4\r\nfour\r\n$5\r\nfive5\r\n$6\r\nsix666\r\n", 33), REPLY_OK);
	assert_int_equal(host_count, 2);
	assert_int_equal(host_records[0].seq, 1);
	assert_int_equal(host_records[0].bytes, 11);
	free(c);
}

static size_t plain_reply_size(const char *p);
static void feed_in_pieces(struct host_conn *c, const char *bytes, size_t len, bool requests_side);

/* Short replies and elements with similar headers: runs of the same header, then one that differs in its last bytes. */
static size_t nearly_alike(char *out)
{
	static const char *const all[] = {
		"$1\r\nx\r\n",
		"$10\r\n0123456789\r\n",
		"$11\r\n$1\r\nx\r\n$1\r\n\r\n",
		"$0\r\n\r\n",
		"$-1\r\n",
		":1\r\n",
		":10\r\n",
		":1000\r\n",
		":10000\r\n",
		":100000\r\n",
		"+O\r\n",
		"+OK\r\n",
		"+OKOKO\r\n",
		"+OKOKOKOKOK\r\n",
		"_\r\n",
	};
	const char *one = all[rand() % (sizeof(all) / sizeof(all[0]))];
	size_t len = 0, run = 1 + rand() % 20;

	while (run--)
		len += sprintf(out + len, "%s", one);
	return len;
}

static unsigned int count_frames(const char *bytes, size_t len)
{
	unsigned int n = 0;
	size_t at;

	for (at = 0; at < len; at += plain_reply_size(bytes + at))
		n++;
	return n;
}

/*
 * A cached header applies to the next element only when that begins with the same bytes, within a reply and across replies.
 */
static void test_similar_headers(void **state)
{
	static char small[65536], reply[65536 + 32];
	struct host_conn *c = host_connect();
	size_t len, reply_len;
	unsigned int i, n, round;

	(void)state;
	srand(20261126);
	for (round = 0; round < 2000; round++) {
		for (len = i = 0; i < 30; i++)
			len += nearly_alike(small + len);
		n = count_frames(small, len);
		host_reset(len, 4);
		for (i = 0; i < n + 1; i++)
			assert_int_equal(host_read(c, "PING\r\n", 6), REQUEST_OK);
		reply_len = sprintf(reply, "*%u\r\n", n);
		memcpy(reply + reply_len, small, len);
		feed_in_pieces(c, small, len, false);
		feed_in_pieces(c, reply, reply_len + len, false);
		assert_int_equal(host_count, 1);
		assert_int_equal(host_records[0].seq, c->conn.read_seq - 1);
		assert_int_equal(host_records[0].bytes, reply_len + len);
	}
	free(c);
}

/* ---- pushes, and connections that are excluded ---- */

static void test_push_is_charged_to_no_command(void **state)
{
	struct host_conn *c = host_connect();

	(void)state;
	host_reset(0, 4);
	assert_int_equal(host_write(c, ">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n", 28), REPLY_OK);
	assert_int_equal(host_read(c, "PING\r\n", 6), REQUEST_OK);
	assert_int_equal(host_write(c, ">1\r\n+x\r\n+PONG\r\n>1\r\n+y\r\n", 23), REPLY_OK);
	assert_int_equal(host_count, 4);
	assert_true(host_records[0].push && host_records[1].push && host_records[3].push);
	assert_false(host_records[2].push);
	assert_int_equal(host_records[2].bytes, 7);
	assert_int_equal(host_records[2].seq, 0);
	free(c);
}

/* A command that excludes the connection, cut at each byte. Commands before it still have their replies. */
static void check_leaving(const char *request, size_t len)
{
	for (size_t cut = 1; cut < len; cut++) {
		struct host_conn *c = host_connect();
		enum request_verdict verdict;

		host_reset(0, 4);
		assert_int_equal(host_read(c, "PING\r\n", 6), REQUEST_OK);
		verdict = host_read(c, request, cut);
		if (verdict == REQUEST_OK)
			verdict = host_read(c, request + cut, len - cut);
		if (verdict != REQUEST_DRAINS)
			fail_msg("%s, cut at %zu: verdict %d", request, cut, verdict);
		assert_int_equal(c->conn.read_seq, 1);
		assert_int_equal(host_write(c, "+PONG\r\n", 7), REPLY_OK);
		assert_int_equal(host_write(c, "+x\r\n", 4), REPLY_UNASKED);
		assert_int_equal(host_count, 1);
		free(c);
	}
}

static void test_excluding_commands(void **state)
{
	static const char *const leaving[] = {
		"*1\r\n$7\r\nMONITOR\r\n",
		"*1\r\n$4\r\nSYNC\r\n",
		"*3\r\n$5\r\nPSYNC\r\n$1\r\n?\r\n$2\r\n-1\r\n",
		"*3\r\n$8\r\nREPLCONF\r\n$3\r\nack\r\n$1\r\n0\r\n",
		"*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$3\r\nOFF\r\n",
		"SUBSCRIBE c\r\n",
		"monitor\r\n",
		"\"SUBSCRIBE\" c\r\n",
		"SUB\"SCRIBE\" c\r\n",
		"subscrib'e' c\r\n",
		"'Monitor'\n",
		"\"\\x4dONITOR\"\r\n",
		"\"PING\r\n",
		"'PING'x\r\n",
		"*3\r\n$7\r\ncluster\r\n$9\r\nSYNCSLOTS\r\n$3\r\nACK\r\n",
		"CLUSTER SYNCSLOTS ACK\r\n",
		"*3\r\n$6\r\nSCRIPT\r\n$5\r\ndebug\r\n$4\r\nSYNC\r\n",
		"script  debug yes\n",
		" monitor\r\n",
		"\t client reply off\r\n",
		"*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$4\r\nskip\r\n",
		"*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$2\r\nof\r\n",
		"CLIENT  REPLY ON\r\n",
		"client reply on\tx\r\n",
		"CLI\xff"
		"ENT REPLY SKIP\r\n",
		"SUB\xff"
		"SCRIBE x y\r\n",
		"\xff"
		"GET a\n",
		"GET\xff a\n",
		"CLIENT \xff"
		"REPLY SKIP\r\n",
		"'MONITOR'\xff\r\n",
		"'MON\xff"
		"ITOR'\r\n",
		"MONI\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"
		"TOR\r\n",
		"CLIENT \"\"REPLY SKIP\r\n",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(leaving) / sizeof(leaving[0]); i++)
		check_leaving(leaving[i], strlen(leaving[i]));
}

/* To the server a name ends at a zero byte, so this may be a command that excludes the connection, or any other. */
static void test_zero_byte_in_a_name(void **state)
{
	static const struct {
		const char *bytes;
		size_t len;
	} doubtful[] = {
#define BYTES_OF(literal) { literal, sizeof(literal) - 1 }
		BYTES_OF("*1\r\n$9\r\nMONITOR\0x\r\n"),
		BYTES_OF("*1\r\n$5\r\nSYNC\0\r\n"),
		BYTES_OF("*1\r\n$20\r\nPUNSUBSCRIBE\0xxxxxxx\r\n"),
		BYTES_OF("*3\r\n$6\r\nCLIENT\r\n$8\r\nREPLY\0xx\r\n$3\r\nOFF\r\n"),
		BYTES_OF("*3\r\n$8\r\nCLIENT\0x\r\n$5\r\nREPLY\r\n$3\r\nOFF\r\n"),
		BYTES_OF("*6\r\n$8\r\nSCRIPT\0x\r\n$5\r\nDEBUG\r\n$3\r\nYES\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n"),
	};

	(void)state;
	for (size_t i = 0; i < sizeof(doubtful) / sizeof(doubtful[0]); i++)
		check_leaving(doubtful[i].bytes, doubtful[i].len);
}

/* Zero bytes elsewhere change nothing: in keys and values, behind a name, and far behind its beginning. */
static void test_zero_bytes_elsewhere(void **state)
{
	static const char request[] = "*2\r\n$3\r\nGET\r\n$1\r\n\0\r\n*2\r\n$1\r\nX\r\n$9\r\n\0\0\0\0\0\0\0\0\0\r\n"
				      "*1\r\n$14\r\nabcdefghijklm\0\r\n";
	size_t len = sizeof(request) - 1;

	(void)state;
	for (size_t cut = 1; cut < len; cut++) {
		struct host_conn *c = host_connect();

		host_reset(0, 4);
		assert_int_equal(host_read(c, request, cut), REQUEST_OK);
		assert_int_equal(host_read(c, request + cut, len - cut), REQUEST_OK);
		assert_int_equal(c->conn.read_seq, 3);
		free(c);
	}
}

static void test_malformed(void **state)
{
	static const char *const bad_requests[] = {
		"*x\r\n",
		"*\r\n",
		"*12345678901234567\r\n",
		"*-\r\n",
		"*1\r\n+OK\r\n",
		"*1\r\n$-1\r\n",
		"*1\r\n$x\r\n",
		"PI\001NG\r\n",
		"*9999999999\r\n",
		"*00\r\n",
		"*01\r\n$4\r\nPING\r\n",
		"*1\r\n$04\r\nPING\r\n",
		"*1\r\n$004\r\nPING\r\n",
		"*0\rx",
		"*-1\rx",
		"*-0\r\n",
		"*-05\r\n",
		"*--1\r\n",
		"*-1x\r\n",
		"*-9223372036854775809\r\n",
		"*-11111111111111111111\r\n",
		"*-18446744073709551617\r\n",
		"*-922337203685477580x\r\n",
	};
	static const char *const bad_replies[] = {
		"hello\r\n", "$x\r\n", "$\r\n",       "*?\r\n", "$?\r\n", "%-1\r\n", "$12345678901234567\r\n",
		";4\r\n",    ".\r\n",  "*1\r\n@\r\n",
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(bad_requests) / sizeof(bad_requests[0]); i++) {
		struct host_conn *c = host_connect();

		host_reset(0, 4);
		if (host_read(c, bad_requests[i], strlen(bad_requests[i])) != REQUEST_MALFORMED)
			fail_msg("request %s was not refused", bad_requests[i]);
		free(c);
	}
	for (i = 0; i < sizeof(bad_replies) / sizeof(bad_replies[0]); i++) {
		struct host_conn *c = host_connect();

		host_reset(0, 4);
		assert_int_equal(host_read(c, "PING\r\n", 6), REQUEST_OK);
		if (host_write(c, bad_replies[i], strlen(bad_replies[i])) != REPLY_MALFORMED)
			fail_msg("reply %s was not refused", bad_replies[i]);
		free(c);
	}
}

static void test_cut_off(void **state)
{
	struct host_conn *c = host_connect();
	const struct host_record *end;

	(void)state;
	host_reset(0, 4);
	assert_false(attribution_closes(&c->conn, &c->work));
	assert_int_equal(host_read(c, "PING\r\n", 6), REQUEST_OK);
	assert_false(attribution_closes(&c->conn, &c->work));
	assert_int_equal(host_write(c, "$10\r\nabc", 8), REPLY_OK);
	assert_int_equal(host_write(c, "def", 3), REPLY_OK);
	assert_true(attribution_closes(&c->conn, &c->work));
	assert_int_equal(host_count, 1);
	end = &host_records[0];
	assert_int_equal(end->bytes, 11);
	assert_int_equal(end->expected, 17);
	assert_int_equal(end->writes, 2);
	assert_int_equal(end->state, STATE_ABORTED);
	assert_memory_equal(end->head, "PING\r", 5);
	assert_int_equal(host_write(c, "ghij\r\n", 6), REPLY_OK);
	assert_false(attribution_closes(&c->conn, &c->work));
	free(c);
}

/* ---- pipelines deeper than the memory for them ---- */

static void send_numbered(struct host_conn *c, unsigned int from, unsigned int to)
{
	char request[64];

	for (; from < to; from++) {
		int len = sprintf(request, "*2\r\n$3\r\nGET\r\n$8\r\n%08u\r\n", from);

		assert_int_equal(host_read(c, request, len), REQUEST_OK);
	}
}

static void answer_numbered(struct host_conn *c, unsigned int from, unsigned int to)
{
	char reply[64];

	for (; from < to; from++) {
		int len = sprintf(reply, "$%u\r\n%0*u\r\n", from % 9 + 1, from % 9 + 1, 0);

		assert_int_equal(host_write(c, reply, len), REPLY_OK);
	}
}

static void check_numbered(unsigned int from, unsigned int to, __u8 status)
{
	char key[16];

	for (; from < to; from++) {
		const struct host_record *rec = &host_records[from];

		assert_int_equal(rec->seq, from);
		assert_int_equal(rec->bytes, from % 9 + 1 + 6);
		assert_int_equal(rec->status, status);
		if (status != ARGV_KEPT)
			continue;
		sprintf(key, "%08u\r\n", from);
		assert_int_equal(rec->head_len, 27);
		assert_memory_equal(rec->head + 17, key, 10);
	}
}

static void test_deep_pipeline(void **state)
{
	struct host_conn *c = host_connect();
	unsigned int round;

	(void)state;
	host_reset(0, HOST_BLOCKS);
	for (round = 0; round < 3; round++) {
		send_numbered(c, 5000 * round, 5000 * (round + 1));
		answer_numbered(c, 5000 * round, 5000 * (round + 1));
		assert_int_equal(host.free_count, HOST_BLOCKS);
	}
	check_numbered(0, 15000, ARGV_KEPT);
	free(c);
}

/* The pipeline is never empty: requests arrive while the server writes older replies. The pool must not run out. */
static void test_sliding_pipeline(void **state)
{
	struct host_conn *c = host_connect();
	unsigned int i;

	(void)state;
	host_reset(0, 8);
	send_numbered(c, 0, 100);
	for (i = 0; i < 20000; i += 50) {
		send_numbered(c, i + 100, i + 150);
		answer_numbered(c, i, i + 50);
	}
	check_numbered(0, 20000, ARGV_KEPT);
	assert_true(host.free_count >= 5);
	free(c);
}

static void test_pool_exhausted(void **state)
{
	struct host_conn *c = host_connect();
	unsigned int kept = INLINE_ENTRIES;

	(void)state;
	host_reset(0, 1);
	send_numbered(c, 0, 1000);
	answer_numbered(c, 0, 1000);
	while (kept < 1000 && host_records[kept].status == ARGV_KEPT)
		kept++;
	assert_true(kept > BLOCK_ENTRIES && kept < 1000);
	check_numbered(0, kept, ARGV_KEPT);
	check_numbered(kept, 1000, ARGV_LOST_MEMORY);
	/* The pipeline is empty, so records are exact again. */
	host_count = 0;
	host_reset(0, 1);
	send_numbered(c, 1000, 1010);
	answer_numbered(c, 1000, 1010);
	assert_int_equal(host_count, 10);
	assert_int_equal(host_records[9].status, ARGV_KEPT);
	assert_int_equal(host_records[9].seq, 1009);
	free(c);
}

static void test_pipeline_limit(void **state)
{
	struct host_conn *c = host_connect();

	(void)state;
	host_reset(0, HOST_BLOCKS);
	host.pipeline_limit = 100;
	send_numbered(c, 0, 1000);
	answer_numbered(c, 0, 1000);
	check_numbered(0, 100, ARGV_KEPT);
	assert_int_equal(host_records[999].status, ARGV_LOST_DEPTH);
	check_numbered(900, 1000, ARGV_LOST_DEPTH);
	assert_int_equal(host.free_count, HOST_BLOCKS);
	free(c);
}

/* ---- random conversations against a reader that goes byte by byte ---- */

/* Returns the size of the reply at p, nested or not. */
static size_t plain_reply_size(const char *p)
{
	const char *at = p, *line;
	long long n, i;

	line = strstr(at, "\r\n") + 2;
	n = strtoll(at + 1, NULL, 10);
	switch (*at) {
	case '$':
	case '=':
	case '!':
		return line - p + (n < 0 ? 0 : n + 2);
	case '*':
	case '~':
	case '>':
	case '%':
	case '|':
		at = line;
		for (i = 0; i < (*p == '%' || *p == '|' ? 2 * n : n); i++)
			at += plain_reply_size(at);
		if (*p == '|')
			at += plain_reply_size(at);
		return at - p;
	}
	return line - p;
}

static size_t random_reply(char *out, int depth)
{
	static const char *const lines[] = { "+OK\r\n",
					     "-ERR some long message, longer than one word\r\n",
					     ":12\r\n",
					     "_\r\n",
					     "#f\r\n",
					     ",1.5\r\n",
					     "(123456789012345678901234567890\r\n",
					     "$-1\r\n",
					     "*-1\r\n",
					     "*0\r\n",
					     "$0\r\n\r\n" };
	static const char aggregates[] = "*~%|*****";
	size_t n, i, count;
	char type;

	if (depth > 3 || rand() % 3) {
		if (rand() % 2)
			return sprintf(out, "%s", lines[rand() % (sizeof(lines) / sizeof(lines[0]))]);
		count = rand() % 8 ? rand() % 60 : rand() % 3000;
		n = sprintf(out, "%c%zu\r\n", "$$$=!"[rand() % 5], count);
		for (i = 0; i < count; i++)
			out[n++] = "\r\n$*19abc"[rand() % 9] | 0;
		return n + sprintf(out + n, "\r\n");
	}
	type = aggregates[rand() % (sizeof(aggregates) - 1)];
	count = rand() % 6;
	n = sprintf(out, "%c%zu\r\n", type, count);
	for (i = 0; i < (type == '%' || type == '|' ? 2 * count : count); i++)
		n += random_reply(out + n, depth + 1);
	if (type == '|')
		n += random_reply(out + n, depth + 1);
	return n;
}

static size_t random_request(char *out)
{
	size_t args = 1 + (rand() % 20 ? rand() % 5 : rand() % 300), i, j, len, n;
	int large = rand() % 3;

	if (rand() % 10 == 0)
		return sprintf(out, "get inline%d\r\n", rand() % 1000);
	n = sprintf(out, "*%zu\r\n", args);
	for (i = 0; i < args; i++) {
		len = large || rand() % 10 ? rand() % 20 : rand() % 5000;
		if (!i)
			len = 3;
		n += sprintf(out + n, "$%zu\r\n", len);
		for (j = 0; j < len; j++)
			out[n++] = "\r\n$*19abc"[rand() % 9];
		n += sprintf(out + n, "\r\n");
	}
	return n;
}

/* The kept argv of a multibulk: its first arguments, each whole or shortened, and nothing else. */
static void check_multibulk_head(const struct host_record *rec, const char *request)
{
	const char *at = strstr(request, "\r\n") + 2, *head = (const char *)rec->head, *end = head + rec->head_len;
	long args = strtol(request + 1, NULL, 10), i, len;
	size_t header = at - request;

	assert_true(rec->head_len <= ARGV_HEAD_MAX);
	assert_memory_equal(head, request, header);
	head += header;
	for (i = 0; i < args && i < ARGV_MAX_ARGS; i++) {
		len = strtol(at + 1, NULL, 10);
		header = strstr(at, "\r\n") + 2 - at;
		assert_memory_equal(head + 1, at + 1, header - 1);
		if (*head == '!') {
			assert_true(len > ARGV_MAX_ARG_BYTES);
			assert_memory_equal(head + header, at + header, ARGV_MAX_ARG_BYTES);
			head += header + ARGV_MAX_ARG_BYTES;
		} else {
			assert_memory_equal(head, at, header + len + 2);
			head += header + len + 2;
		}
		at += header + len + 2;
	}
	assert_ptr_equal(head, end);
}

static void check_random_head(const struct host_record *rec, const char *request)
{
	if (*request == '*')
		check_multibulk_head(rec, request);
	else
		assert_memory_equal(rec->head, request, rec->head_len);
}

static void feed_in_pieces(struct host_conn *c, const char *bytes, size_t len, bool requests_side)
{
	size_t at = 0, n;

	while (at < len) {
		n = rand() % 4 ? 1 + rand() % 4000 : 1 + rand() % 20;
		if (n > len - at)
			n = len - at;
		if (requests_side)
			assert_int_equal(host_read(c, bytes + at, n), REQUEST_OK);
		else
			assert_int_equal(host_write(c, bytes + at, n), REPLY_OK);
		at += n;
	}
}

/* A line ends at CR LF, as for clients, because errors of scripts quote text of several lines. */
static void test_line_feeds_inside_a_line(void **state)
{
	static const char *const replies[] = { "-ERR near '[[one\n+two]]'\r\n",
					       "+\n\r\n",
					       "-\r\r\n",
					       "+a\n\n\nb\n\r\r\n",
					       "-E\nx\r\n",
					       "+1234567\r\n",
					       "+123456\n\r\n",
					       "+1234567\n\r\n" };
	static const char two_pings[] = "*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPING\r\n";
	size_t i, cut;

	(void)state;
	for (i = 0; i < sizeof(replies) / sizeof(replies[0]); i++)
		for (cut = 0; cut < strlen(replies[i]); cut++) {
			struct host_conn *c = host_connect();

			host_reset(0, 4);
			assert_int_equal(host_read(c, two_pings, strlen(two_pings)), REQUEST_OK);
			assert_int_equal(host_write(c, replies[i], cut), REPLY_OK);
			assert_int_equal(host_write(c, replies[i] + cut, strlen(replies[i]) - cut), REPLY_OK);
			if (host_count != 1 || host_records[0].bytes != strlen(replies[i]))
				fail_msg("%zu, cut at %zu: %zu records", i, cut, host_count);
			assert_int_equal(host_write(c, "+PONG\r\n", 7), REPLY_OK);
			assert_int_equal(host_count, 2);
			free(c);
		}
}

static void test_random_conversations(void **state)
{
	static char in[4000000], out[8000000];
	size_t in_len, out_len, sizes[64], request_sizes[64], reply_sizes[64], n, i, round, at;

	(void)state;
	srand(20261122);
	for (round = 0; round < 3000; round++) {
		struct host_conn *c = host_connect();

		host_reset(0, HOST_BLOCKS);
		n = 1 + rand() % 60;
		for (in_len = out_len = i = 0; i < n; i++) {
			request_sizes[i] = random_request(in + in_len);
			sizes[i] = in_len;
			in_len += request_sizes[i];
			reply_sizes[i] = random_reply(out + out_len, 0);
			out_len += reply_sizes[i];
		}
		out[out_len] = '\0';
		for (i = at = 0; i < n; at += reply_sizes[i++])
			assert_int_equal(plain_reply_size(out + at), reply_sizes[i]);
		feed_in_pieces(c, in, in_len, true);
		feed_in_pieces(c, out, out_len, false);
		assert_int_equal(host_count, n);
		for (i = 0; i < n; i++) {
			assert_int_equal(host_records[i].bytes, reply_sizes[i]);
			assert_int_equal(host_records[i].request_bytes, request_sizes[i]);
			assert_int_equal(host_records[i].status, ARGV_KEPT);
			check_random_head(&host_records[i], in + sizes[i]);
		}
		assert_int_equal(host.free_count, HOST_BLOCKS);
		free(c);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_piece),
		cmocka_unit_test(test_every_request_split),
		cmocka_unit_test(test_every_reply_split),
		cmocka_unit_test(test_pieces_of_every_size),
		cmocka_unit_test(test_iovecs_of_every_size),
		cmocka_unit_test(test_partial_writev_at_every_byte),
		cmocka_unit_test(test_request_and_reply_in_turn),
		cmocka_unit_test(test_large_argument_is_shortened),
		cmocka_unit_test(test_many_arguments),
		cmocka_unit_test(test_argv_before_exclusion),
		cmocka_unit_test(test_command_after_many_arguments),
		cmocka_unit_test(test_bulk_of_100_mb_is_skipped),
		cmocka_unit_test(test_requests_beyond_4_gib),
		cmocka_unit_test(test_threshold),
		cmocka_unit_test(test_similar_headers),
		cmocka_unit_test(test_push_is_charged_to_no_command),
		cmocka_unit_test(test_excluding_commands),
		cmocka_unit_test(test_zero_byte_in_a_name),
		cmocka_unit_test(test_zero_bytes_elsewhere),
		cmocka_unit_test(test_malformed),
		cmocka_unit_test(test_cut_off),
		cmocka_unit_test(test_deep_pipeline),
		cmocka_unit_test(test_sliding_pipeline),
		cmocka_unit_test(test_pool_exhausted),
		cmocka_unit_test(test_pipeline_limit),
		cmocka_unit_test(test_line_feeds_inside_a_line),
		cmocka_unit_test(test_random_conversations),
	};

	return cmocka_run_group_tests(tests, join_conversation, NULL);
}
