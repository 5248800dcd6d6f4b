/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "user/output/execution.h"
#include "user/output/stream.h"

#define BYTES(s) (s), sizeof(s) - 1
#define TS "2025-11-22T20:30:40.000001234Z"
#define WALL_NS 1763843440000000000

static struct sink sink;
static struct stream stream;
static int out[2];

/* The test's clock: 5,000 s after boot it is WALL_NS. */
static int setup(void **state)
{
	(void)state;
	assert_int_equal(pipe(out), 0);
	sink_init(&sink, out[1]);
	assert_int_equal(stream_init(&stream, &sink, 4242), 0);
	stream.clock.offset_ns = WALL_NS - 5000000000000;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	close(out[0]);
	close(out[1]);
	return 0;
}

/* What has arrived at the other end of the pipe. */
static const char *arrived(void)
{
	static char text[65536];
	ssize_t n;

	fcntl(out[0], F_SETFL, O_NONBLOCK);
	n = read(out[0], text, sizeof(text) - 1);
	text[n < 0 ? 0 : n] = '\0';
	return text;
}

static struct {
	struct reply_record rec;
	char head[ARGV_HEAD_MAX];
} sample;

static void record(const char *head, size_t len)
{
	memset(&sample, 0, sizeof(sample));
	sample.rec = (struct reply_record){
		.request_ns = 5000000001000,
		.first_byte_ns = 5000000001000 + 1999,
		.last_byte_ns = 5000012003999,
		.request_bytes = 40,
		.reply_bytes = 10485782,
		.client_id = 7,
		.db = -1,
		.writes = 641,
		.client_port = 51324,
		.client_addr = { 10, 0, 0, 5 },
		.client_family = FAMILY_INET,
		.argv_len = (uint32_t)len,
	};
	memcpy(sample.head, head, len);
}

static int reply(void)
{
	return stream_reply(&stream, &sample.rec, sizeof(sample.rec) + sample.rec.argv_len);
}

static void replies(const char *expected)
{
	assert_int_equal(reply(), 0);
	assert_string_equal(arrived(), expected);
}

/* Finds this text in the one line that arrived, or returns NULL. */
static const char *reply_has(const char *part)
{
	assert_int_equal(reply(), 0);
	return strstr(arrived(), part);
}

#define LRANGE "*4\r\n$6\r\nlrange\r\n$3\r\nbig\r\n$1\r\n0\r\n$2\r\n-1\r\n"
#define HEAD "{\"event\":\"reply\",\"server_pid\":4242,\"seq\":1,\"ts\":\"2025-11-22T20:30:40.012003999Z\","
#define TAIL(bytes) TAIL2(bytes, "")
#define TAIL2(bytes, more)                                                                                  \
	bytes ":10485782" more ",\"client_id\":7,\"client_addr\":\"10.0.0.5:51324\","                       \
	      "\"request_ts\":\"2025-11-22T20:30:40.000001000Z\",\"request_bytes\":40,\"first_byte_us\":1," \
	      "\"drain_us\":12001,\"writes\":641,"

static void test_reply(void **state)
{
	(void)state;
	record(BYTES(LRANGE));
	replies(HEAD "\"cmd\":\"LRANGE\",\"argv\":[\"lrange\",\"big\",\"0\",\"-1\"],\"argc\":4," TAIL(
		"\"reply_bytes\"") "\"kind\":\"simple\",\"attribution\":\"exact\",\"state\":\"complete\"}\n");
	assert_non_null(reply_has("\"seq\":2,"));
}

static void test_aborted(void **state)
{
	(void)state;
	record(BYTES(LRANGE));
	sample.rec.state = STATE_ABORTED;
	sample.rec.kind = KIND_PIPELINED;
	sample.rec.attribution = ATTRIBUTION_AMBIGUOUS;
	sample.rec.bytes_expected = 99999999;
	replies(HEAD "\"cmd\":\"LRANGE\",\"argv\":[\"lrange\",\"big\",\"0\",\"-1\"],\"argc\":4," TAIL2(
		"\"bytes_sent\"",
		",\"bytes_expected\":99999999") "\"kind\":\"pipelined\",\"attribution\":\"ambiguous\",\"state\":\"aborted\"}\n");
}

static void test_unknown_values(void **state)
{
	(void)state;
	record(BYTES("*1\r\n$4\r\nPING\r\n"));
	sample.rec.request_ns = sample.rec.request_bytes = sample.rec.client_id = 0;
	sample.rec.client_family = FAMILY_UNKNOWN;
	replies(HEAD "\"cmd\":\"PING\",\"argv\":[\"PING\"],\"argc\":1,\"reply_bytes\":10485782,\"drain_us\":12001,"
		     "\"writes\":641,\"kind\":\"simple\",\"attribution\":\"exact\",\"state\":\"complete\"}\n");
	record(BYTES("*1\r\n$4\r\nPING\r\n"));
	sample.rec.first_byte_ns = 0;
	assert_null(reply_has("_us\""));
	record(BYTES("*1\r\n$4\r\nPING\r\n"));
	sample.rec.request_ns = sample.rec.first_byte_ns + 1;
	assert_null(reply_has("first_byte_us"));
}

static void push(const char *bytes, size_t len)
{
	record(bytes, len);
	sample.rec.kind = KIND_PUSH;
	sample.rec.argv_status = ARGV_PUSH;
}

#define PUSHED(keys) \
	HEAD keys TAIL("\"reply_bytes\"") "\"kind\":\"push\",\"attribution\":\"exact\",\"state\":\"complete\"}\n"

static void test_push(void **state)
{
	(void)state;
	push("", 0);
	replies(PUSHED(""));
	stream.replies = 0;
	push(BYTES(">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"));
	replies(PUSHED("\"push\":\"invalidate\","));
	stream.replies = 0;
	push(BYTES("*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$9999\r\nxxxxxxxxxxxx"));
	replies(PUSHED("\"push\":\"message\",\"channel\":\"news\","));
	stream.replies = 0;
	push(BYTES(">4\r\n$8\r\npmessage\r\n$2\r\nn*\r\n$4\r\nne\377s\r\n$1\r\nx\r\n"));
	replies(PUSHED(
		"\"push\":\"pmessage\",\"pattern\":\"n*\",\"channel\":\"ne\\\\xffs\",\"channel_encoding\":\"escaped\","));
	stream.replies = 0;
	push(BYTES("*3\r\n$7\r\nmessage\r\n$400\r\nnews"));
	replies(PUSHED("\"push\":\"message\",\"channel\":\"news\",\"channel_truncated\":true,"));
	/* Bytes that are no push are not shown, nor are bytes beyond the channel, whatever its length claims. */
	stream.replies = 0;
	push(BYTES("*3\r\n$99999999999999999999\r\nmessage"));
	replies(PUSHED(""));
}

static void test_kinds(void **state)
{
	static const char *const scripts[] = {
		"*1\r\n$4\r\neVal\r\n",  "*1\r\n$7\r\nEVALSHA\r\n",     "*1\r\n$7\r\nEVAL_RO\r\n",
		"*1\r\n$5\r\nFCALL\r\n", "*1\r\n$10\r\nevalsha_ro\r\n", "*1\r\n$8\r\nFCALL_RO\r\n",
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++) {
		record(scripts[i], strlen(scripts[i]));
		sample.rec.kind = i % 2 ? KIND_SIMPLE : KIND_PIPELINED;
		assert_non_null(reply_has("\"kind\":\"script\""));
	}
	sample.rec.kind = KIND_MULTI;
	assert_non_null(reply_has("\"kind\":\"multi\""));
	record(BYTES("*1\r\n$5\r\nEVALX\r\n"));
	assert_non_null(reply_has("\"kind\":\"simple\""));
}

static void test_who_asked(void **state)
{
	static struct client_identity of[2] = { { 0 },
						{ .generation = 3,
						  .resp = 3,
						  .client_name = { 4, "pool" },
						  .user = { 3, "bob" },
						  .lib_name = { 5, "redis" },
						  .lib_ver = { 3, "5.0" } } };
	static const struct client_identities all = { .of = of, .connections = 2 };

	(void)state;
	stream.identities = &all;
	record(BYTES(LRANGE));
	sample.rec.connection = 1;
	sample.rec.generation = 3;
	sample.rec.from_start = 1;
	sample.rec.db = 5;
	assert_non_null(reply_has("\"db\":5,\"resp\":3,\"client_name\":\"pool\",\"user\":\"bob\",\"lib_name\":\"redis\","
				  "\"lib_ver\":\"5.0\","));
	sample.rec.generation = 4; /* another connection with the same number, on which the client has not said who it is */
	assert_null(reply_has("client_name"));
	assert_non_null(reply_has("\"resp\":2"));
	sample.rec.generation = 3;
	sample.rec.from_start = 0; /* older than replylog */
	assert_null(reply_has("resp"));
	sample.rec.from_start = 1;
	sample.rec.connection = 2; /* no such number */
	assert_null(reply_has("resp"));
	stream.identities = NULL;
}

#define SAID "aliceworkerlib1.0"

/* Facts from the server's structs: they follow the argv, and what the client itself said does not matter. */
static void test_dispatched(void **state)
{
	const size_t words = strlen(SAID);

	(void)state;
	record(BYTES(LRANGE));
	sample.rec.argv_from = ARGV_FROM_REQUEST;
	assert_non_null(reply_has("\"argc\":4,\"argv_from\":\"request\",\"reply_bytes\""));
	assert_null(reply_has("\"user\""));
	record(BYTES(LRANGE SAID));
	sample.rec.argv_len -= words;
	sample.rec.argv_from = ARGV_FROM_DISPATCH;
	sample.rec.db = 1;
	sample.rec.exec_db = 3;
	sample.rec.resp = 3;
	sample.rec.word[WORD_USER] = 5;
	sample.rec.word[WORD_NAME] = 6;
	sample.rec.word[WORD_LIB_NAME] = 3;
	sample.rec.word[WORD_LIB_VER] = 3;
	assert_int_equal(stream_reply(&stream, &sample.rec, sizeof(sample.rec) + sample.rec.argv_len + words), 0);
	assert_non_null(strstr(arrived(), "\"argc\":4,\"argv_from\":\"dispatch\",\"reply_bytes\""));
	assert_int_equal(stream_reply(&stream, &sample.rec, sizeof(sample.rec) + sample.rec.argv_len + words), 0);
	assert_non_null(strstr(arrived(), "\"db\":3,\"resp\":3,\"client_name\":\"worker\",\"user\":\"alice\","
					  "\"lib_name\":\"lib\",\"lib_ver\":\"1.0\","));
	assert_int_equal(stream_reply(&stream, &sample.rec, sizeof(sample.rec) + sample.rec.argv_len + words - 1), -EBADMSG);
	sample.rec.word[WORD_USER] = ARGV_MAX_ARG_BYTES + 1;
	assert_int_equal(stream_reply(&stream, &sample.rec, sizeof(sample)), -EBADMSG);
}

#define K64 "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk"
#define EXECUTED "*2\r\n$3\r\nGET\r\n!200\r\n" K64 K64

/* A record of an execution: the request's argv, the facts from the structs, and the executed argv. */
static void record_executed(const char *asked, enum argv_status status)
{
	char all[1024];
	int len = snprintf(all, sizeof(all), "%s" SAID EXECUTED, asked);

	record(all, (size_t)len);
	sample.rec.argv_len = (__u32)strlen(asked);
	sample.rec.argv_status = status;
	sample.rec.argv_from = ARGV_FROM_DISPATCH;
	sample.rec.word[WORD_USER] = 5;
	sample.rec.word[WORD_NAME] = 6;
	sample.rec.word[WORD_LIB_NAME] = 3;
	sample.rec.word[WORD_LIB_VER] = 3;
	sample.rec.exec_argv_len = sizeof(EXECUTED) - 1;
	sample.rec.exec_db = 3;
	sample.rec.db = 1;
	sample.rec.resp = 3;
	sample.rec.exec_ns = 5000;
	memcpy(&sample.rec.exec_name, "GET\0\0\0\0", 8);
	sample.rec.inner = 2;
	sample.rec.inner_ns = 1000;
}

static int reply_executed(void)
{
	return stream_reply(&stream, &sample.rec,
			    sizeof(sample.rec) + sample.rec.argv_len + strlen(SAID) + sizeof(EXECUTED) - 1);
}

/* Where the request's argv is lost or not comparable, the executed argv follows the facts from the structs. */
static void test_executed_argv(void **state)
{
	const char *line;

	(void)state;
	for (int i = 0; i < 2; i++) {
		record_executed(i ? "get 'kkk'\r\n" : "", i ? ARGV_KEPT : ARGV_LOST_MEMORY);
		assert_int_equal(reply_executed(), 0);
		line = arrived();
		assert_non_null(strstr(line, "\"cmd\":\"GET\",\"argv\":[\"GET\",\"kkk"));
		assert_non_null(strstr(line, "\"argv_truncated\":true,\"argv_from\":\"dispatch\","));
		assert_non_null(strstr(line, "\"db\":3,\"resp\":3,\"client_name\":\"worker\",\"user\":\"alice\""));
		assert_non_null(strstr(line, "\"exec_us\":5,\"inner_commands\":2,\"inner_exec_us\":1,"));
		assert_null(strstr(line, "argv_lost"));
		sample.rec.exec_argv_len++;
		assert_int_equal(reply_executed(), -EBADMSG);
	}
}

/* In the end there is no proof which execution it was: only the request's argv remains. */
static void test_forgotten_execution(void **state)
{
	static const char *const asked[] = { "", "get 'asked'\r\n", "*2\r\n$3\r\nget\r\n$5\r\nasked\r\n" };
	const char *line;

	(void)state;
	for (int i = 0; i < 3; i++) {
		record_executed(asked[i], i ? ARGV_KEPT : ARGV_LOST_MEMORY);
		if (i == 2)
			sample.rec.exec_argv_len = 0;
		record_forget_execution(&sample.rec);
		assert_int_equal(reply_executed(), 0);
		line = arrived();
		assert_int_equal(!!strstr(line, "\"argv\":[\"get\",\"asked\"],\"argc\":2,\"argv_from\":\"request\","),
				 i > 0);
		assert_int_equal(!!strstr(line, "\"argv_lost\":\"argv_memory\","), !i);
		assert_non_null(strstr(line, "\"db\":1,"));
		assert_null(strstr(line, "kkk"));
		assert_null(strstr(line, "alice"));
		assert_null(strstr(line, "exec_us"));
		assert_null(strstr(line, "inner"));
		assert_null(strstr(line, "dispatch"));
	}
	/* A record without --argv-from dispatch does not say where its argv comes from. */
	record(BYTES(LRANGE));
	sample.rec.exec_ns = 5000;
	record_forget_execution(&sample.rec);
	assert_int_equal(reply(), 0);
	line = arrived();
	assert_null(strstr(line, "argv_from"));
	assert_null(strstr(line, "exec_us"));
}

static void test_argv_lost(void **state)
{
	(void)state;
	record("", 0);
	sample.rec.argv_status = ARGV_LOST_DEPTH;
	replies(HEAD "\"argv_lost\":\"pipeline_depth\"," TAIL(
		"\"reply_bytes\"") "\"kind\":\"simple\",\"attribution\":\"exact\",\"state\":\"complete\"}\n");
	sample.rec.argv_status = ARGV_LOST_MEMORY;
	assert_non_null(reply_has(",\"argv_lost\":\"argv_memory\","));
	/* Nothing of an argv that could not be parsed is shown, because it could contain a password. */
	record(BYTES("AUTH \"hunter2"));
	assert_non_null(reply_has(",\"argv_lost\":\"malformed\","));
	assert_null(reply_has("hunter2"));
	assert_null(reply_has("AUTH"));
	assert_null(reply_has("\"cmd\""));
	assert_null(reply_has("\"argc\""));
	/* Bytes in a record that says its argv is lost are not argv. */
	record(BYTES(LRANGE));
	sample.rec.argv_status = ARGV_LOST_DEPTH;
	assert_null(reply_has("lrange"));
}

static void test_addresses(void **state)
{
	(void)state;
	record(BYTES(LRANGE));
	sample.rec.client_family = FAMILY_INET6;
	memset(sample.rec.client_addr, 0, 16);
	sample.rec.client_addr[15] = 1;
	sample.rec.client_port = 6379;
	assert_non_null(reply_has(",\"client_addr\":\"[::1]:6379\","));
	memset(sample.rec.client_addr, 0xfe, 16);
	sample.rec.client_port = 65535;
	assert_non_null(reply_has("\"[fefe:fefe:fefe:fefe:fefe:fefe:fefe:fefe]:65535\","));
	sample.rec.client_family = FAMILY_UNIX;
	assert_non_null(reply_has(",\"client_addr\":\"unix\","));
	sample.rec.client_family = FAMILY_INET;
	memset(sample.rec.client_addr, 0xff, 16);
	assert_non_null(reply_has(",\"client_addr\":\"255.255.255.255:65535\","));
}

static void test_text(void **state)
{
	(void)state;
	record(BYTES("*3\r\n$6\r\nh\xc3\xa9llo\r\n$1\r\n\0\r\n$2\r\n\"\\\r\n"));
	assert_non_null(reply_has("\"cmd\":\"H\xc3\xa9LLO\",\"argv\":[\"h\xc3\xa9llo\",\"\\u0000\",\"\\\"\\\\\"],"
				  "\"argc\":3,\"reply_bytes\""));
}

/* One argument that is not UTF-8 makes all of them escaped. */
static void test_escaped(void **state)
{
	(void)state;
	record(BYTES("*3\r\n$3\r\nget\r\n$3\r\na\\b\r\n$4\r\n\xc3\xa9\xff\n\r\n"));
	assert_non_null(reply_has("\"cmd\":\"GET\",\"argv\":[\"get\",\"a\\\\\\\\b\",\"\\\\xc3\\\\xa9\\\\xff\\\\x0a\"],"
				  "\"argc\":3,\"argv_encoding\":\"escaped\",\"reply_bytes\""));
	record(BYTES("*1\r\n$4\r\nge\xfft\r\n"));
	assert_non_null(reply_has("\"cmd\":\"GE\\\\xffT\",\"argv\":[\"ge\\\\xfft\"],"));
}

/* Text cut at 128 bytes ends with a whole character, and is still text. */
static void test_cut_text(void **state)
{
	char head[256], arg[160], expected[256];
	int len;

	(void)state;
	memset(arg, 'a', sizeof(arg));
	memcpy(arg + 126, "\xe2\x82\xac", 3);
	len = snprintf(head, sizeof(head), "*2\r\n$3\r\nget\r\n!140\r\n%.128s", arg);
	record(head, (size_t)len);
	snprintf(expected, sizeof(expected), "[\"get\",\"%.126s\"],\"argc\":2,\"argv_truncated\":true,\"reply_bytes\"", arg);
	assert_non_null(reply_has(expected));
	/* The same bytes, when they were not cut, are not text. */
	len = snprintf(head, sizeof(head), "*2\r\n$3\r\nget\r\n$128\r\n%.128s\r\n", arg);
	record(head, (size_t)len);
	snprintf(expected, sizeof(expected), "[\"get\",\"%.126s\\\\xe2\\\\x82\"],\"argc\":2,\"argv_encoding\"", arg);
	assert_non_null(reply_has(expected));
}

static void test_truncated(void **state)
{
	char head[512];
	int len = snprintf(head, sizeof(head), "*1000\r\n$3\r\nDEL\r\n");

	(void)state;
	for (int i = 0; i < 31; i++)
		len += snprintf(head + len, sizeof(head) - (size_t)len, "$1\r\nk\r\n");
	record(head, (size_t)len);
	assert_non_null(reply_has(",\"argc\":1000,\"argv_truncated\":true,\"reply_bytes\""));
	record(BYTES("GET key"));
	assert_null(reply_has("argv_truncated"));
	sample.rec.argv_cut = 1;
	assert_non_null(reply_has("\"argv\":[\"GET\",\"key\"],\"argv_truncated\":true,"));
}

static void test_secrets(void **state)
{
	(void)state;
	record(BYTES("*4\r\n$6\r\nconfig\r\n$3\r\nset\r\n$11\r\nREQUIREPASS\r\n$7\r\nhunter2\r\n"));
	assert_non_null(reply_has("[\"config\",\"set\",\"REQUIREPASS\",\"(redacted)\"],\"argc\":4,\"reply_bytes\""));
	/* A secret that is not UTF-8 does not make the other arguments escaped. */
	record(BYTES("*2\r\n$4\r\nAUTH\r\n$2\r\n\xff\xfe\r\n"));
	assert_non_null(reply_has("[\"AUTH\",\"(redacted)\"],\"argc\":2,\"reply_bytes\""));
	record(BYTES("auth hunter2"));
	assert_null(reply_has("hunter2"));
}

/* The longest argv: 32 times 128 bytes, each of which JSON writes longest. */
static void widest(char byte)
{
	char head[ARGV_HEAD_MAX];
	size_t len = (size_t)snprintf(head, sizeof(head), "*32\r\n");

	for (int i = 0; i < 32; i++) {
		len += (size_t)snprintf(head + len, sizeof(head) - len, "$%d\r\n", i ? 128 : 120);
		memset(head + len, byte, i ? 128 : 120);
		len += i ? 128 : 120;
		memcpy(head + len, "\r\n", 2);
		len += 2;
	}
	record(head, len);
	memset(&sample.rec.client_addr, 0xfe, 16);
	sample.rec.client_family = FAMILY_INET6;
	sample.rec.request_bytes = sample.rec.reply_bytes = sample.rec.client_id = UINT64_MAX;
	sample.rec.first_byte_ns = sample.rec.request_ns + 1;
	sample.rec.last_byte_ns = UINT64_MAX;
	sample.rec.writes = UINT32_MAX;
	stream.replies = UINT64_MAX - 1;
}

static void test_longest_line(void **state)
{
	const char bytes[] = { 1, (char)0xff, '\\', '"' };
	const char *line;
	size_t len;

	(void)state;
	for (size_t i = 0; i < sizeof(bytes); i++) {
		widest(bytes[i]);
		assert_int_equal(reply(), 0);
		line = arrived();
		len = strlen(line);
		assert_int_equal(len, stream.line_len);
		assert_in_range(len, i < 2 ? 13000 : 8000, STREAM_LINE_MAX);
		assert_ptr_equal(strchr(line, '\n'), line + len - 1);
		assert_int_equal(!!strstr(line, "\"argc\":32,\"argv_truncated\":true,"), i < 2);
		assert_non_null(strstr(line, "\"state\":\"complete\"}\n"));
	}
}

/* Anything but a record of replylog writes nothing. */
static void test_not_ours(void **state)
{
	struct stream before;

	(void)state;
	record(BYTES(LRANGE));
	before = stream;
	assert_int_equal(stream_reply(&stream, &sample.rec, sizeof(sample.rec) - 1), -EBADMSG);
	assert_int_equal(stream_reply(&stream, &sample.rec, sizeof(sample.rec) + sample.rec.argv_len - 1), -EBADMSG);
	for (size_t i = 0; i < 6; i++) {
		record(BYTES(LRANGE));
		*(uint8_t *[]){
			&sample.rec.kind,        &sample.rec.attribution, &sample.rec.state,
			&sample.rec.argv_status, &sample.rec.argv_from,   &sample.rec.client_family
		}[i] = (uint8_t[]){ 4, 2, 2, ARGV_STATUSES, ARGV_SOURCES, 4 }[i];
		assert_int_equal(reply(), -EBADMSG);
	}
	assert_string_equal(arrived(), "");
	assert_int_equal(stream.replies, before.replies);
	record(BYTES(LRANGE));
	assert_int_equal(stream_reply(&stream, &sample.rec, sizeof(sample)), 0);
}

static void test_start(void **state)
{
	static const char *const probes[] = { "connSocketRead+4", "a\"b" };
	struct stream_start start = {
		.version = "0.1.0",
		.server_exe = "/usr/bin/valkey-server",
		.server_build_id = "c0ffee",
		.server_version = "9.1.2",
		.threshold = 1048576,
		.tap = "socket",
		.probes = probes,
		.n_probes = 2,
	};
	char expected[512];
	const char *line;

	(void)state;
	assert_int_equal(stream_start(&stream, &start), 0);
	line = arrived();
	snprintf(expected, sizeof(expected),
		 "{\"event\":\"start\",\"server_pid\":4242,\"schema\":1,\"version\":\"0.1.0\",\"run_id\":\"%s\","
		 "\"ts\":\"%.30s\",\"server_exe\":\"/usr/bin/valkey-server\","
		 "\"server_build_id\":\"c0ffee\",\"server_version\":\"9.1.2\",\"threshold\":1048576,"
		 "\"tap\":\"socket\",\"probes\":[\"connSocketRead+4\",\"a\\\"b\"]}\n",
		 stream.run_id, strstr(line, "\"ts\":\"") + 6);
	assert_string_equal(line, expected);
	assert_int_equal(strlen(stream.run_id), 32);
	assert_int_equal(strspn(stream.run_id, "0123456789abcdef"), 32);

	start.server_build_id = start.server_version = NULL;
	start.n_probes = 0;
	assert_int_equal(stream_start(&stream, &start), 0);
	line = arrived();
	assert_null(strstr(line, "build_id"));
	assert_null(strstr(line, "server_version"));
	assert_non_null(strstr(line, "\"probes\":[]}\n"));
}

/* --max-overhead: the windows of a run, and the records about them. */
static void test_windows(void **state)
{
	struct stream_start start = {
		.version = "1", .tap = "socket", .max_overhead = 25, .probe_ns = 630, .tracepoint_ns = 27
	};
	struct stream_pause pause = { .observed_ns = 1500001999, .probes_ns = 180000999, .pause_ns = 3000000000 };
	const char *line;

	(void)state;
	stream.window = 1;
	assert_int_equal(stream_start(&stream, &start), 0);
	assert_non_null(strstr(arrived(), "\"tap\":\"socket\",\"max_overhead_permille\":25,\"probe_ns\":630,"
					  "\"tracepoint_ns\":27,\"probes\":[]}\n"));
	start.tracepoint_ns = 0;
	assert_int_equal(stream_start(&stream, &start), 0);
	assert_null(strstr(arrived(), "tracepoint_ns"));
	record(BYTES(LRANGE));
	assert_int_equal(reply(), 0);
	assert_non_null(strstr(arrived(), "\"state\":\"complete\",\"window\":1}\n"));
	assert_int_equal(stream_paused(&stream, &pause), 0);
	line = arrived();
	assert_non_null(strstr(line, "{\"event\":\"paused\",\"server_pid\":4242,\"ts\":\"20"));
	assert_non_null(strstr(line, "Z\",\"window\":1,\"observed_us\":1500001,\"probes_us\":180000,"
				     "\"pause_us\":3000000}\n"));
	assert_int_equal(stream_resumed(&stream, 3000001999), 0);
	line = arrived();
	assert_non_null(strstr(line, "{\"event\":\"resumed\",\"server_pid\":4242,\"ts\":\"20"));
	assert_non_null(strstr(line, "Z\",\"window\":2,\"paused_us\":3000001}\n"));
	record(BYTES(LRANGE));
	assert_int_equal(reply(), 0);
	assert_non_null(strstr(arrived(), "\"window\":2}\n"));
	stream.paused_ns += 5000;
	assert_int_equal(stream_stop(&stream, &(struct stream_stop){ .reason = STOP_SIGNAL }), 0);
	assert_non_null(strstr(
		arrived(),
		"\"left_out_bytes\":0,\"dispatch_unread\":0,\"dispatch_disagrees\":0,\"windows\":2,\"paused_us\":3000006}\n"));
}

static void test_start_long(void **state)
{
	static char path[4096], probe[1000];
	const char *probes[20];
	struct stream_start start = { .version = "1", .server_exe = path, .tap = "connection", .probes = probes };

	(void)state;
	memset(path, 1, sizeof(path) - 1);
	memset(probe, 'p', sizeof(probe) - 1);
	assert_int_equal(stream_start(&stream, &start), 0);
	assert_in_range(strlen(arrived()), 6 * STREAM_WORD_MAX, 6 * STREAM_WORD_MAX + 300);
	for (int i = 0; i < 20; i++)
		probes[i] = probe;
	start.n_probes = 20;
	assert_int_equal(stream_start(&stream, &start), -EMSGSIZE);
	assert_string_equal(arrived(), "");
}

static void test_run_ids_differ(void **state)
{
	struct stream other;

	(void)state;
	assert_int_equal(stream_init(&other, &sink, 1), 0);
	assert_string_not_equal(other.run_id, stream.run_id);
}

static void test_dropped(void **state)
{
	static const char *const names[] = { "ring_full", "clients_full", "framing",    "unreadable", "no_scratch",
					     "missed",    "turns",        "unfinished", "out_of_step" };
	char expected[160];

	(void)state;
	for (int i = 0; i < LOSS_KINDS; i++) {
		struct stream_loss lost = { .count = (uint64_t)i + 1, .replies = 252, .bytes = UINT64_MAX };

		assert_int_equal(stream_dropped(&stream, (enum loss)i, &lost), 0);
		snprintf(expected, sizeof(expected),
			 "{\"event\":\"dropped\",\"server_pid\":4242,\"count\":%d,\"reason\":\"%s\",\"replies\":252,"
			 "\"bytes\":18446744073709551615}\n",
			 i + 1, names[i]);
		assert_string_equal(arrived(), expected);
	}
	assert_int_equal(stream.dropped, 45);
	assert_int_equal(stream_dropped(&stream, LOSS_FRAMING, &(struct stream_loss){}), 0);
	assert_int_equal(stream_dropped(&stream, LOSS_KINDS, &(struct stream_loss){ .count = 1 }), -EINVAL);
	assert_string_equal(arrived(), "");
	assert_int_equal(stream.dropped, 45);
}

/* A loss grows after it was reported. */
static void test_dropped_more(void **state)
{
	(void)state;
	assert_int_equal(stream_dropped(&stream, LOSS_FRAMING, &(struct stream_loss){ .bytes = 7 }), 0);
	assert_string_equal(arrived(), "{\"event\":\"dropped\",\"server_pid\":4242,\"count\":0,\"reason\":\"framing\","
				       "\"replies\":0,\"bytes\":7}\n");
	assert_int_equal(stream_dropped(&stream, LOSS_FRAMING, &(struct stream_loss){ .replies = 1 }), 0);
	assert_non_null(strstr(arrived(), "\"count\":0,\"reason\":\"framing\",\"replies\":1,\"bytes\":0}\n"));
	assert_int_equal(stream.dropped, 0);
}

static void test_stop(void **state)
{
	static const char *const names[] = { "signal", "server_exited", "server_restarted", "error" };
	struct stream_stop stop = { .hits_main = 1, .hits_io = 2 };
	char expected[704];

	(void)state;
	stop.counter[COUNTER_JOINED] = 3;
	stop.counter[COUNTER_MONITORS] = 4;
	stop.counter[COUNTER_UNANSWERED] = 6;
	stop.counter[COUNTER_REPLY_BYTES] = 17;
	stop.counter[COUNTER_ATTRIBUTED_BYTES] = 10;
	stop.counter[COUNTER_UNATTRIBUTED_BYTES] = 5;
	stop.counter[COUNTER_EXCLUDED_BYTES] = 2;
	stop.counter[COUNTER_DISPATCH_UNREAD] = 8;
	stop.counter[COUNTER_DISPATCH_DISAGREES] = 9;
	record(BYTES(LRANGE));
	assert_int_equal(reply(), 0);
	assert_int_equal(stream_dropped(&stream, LOSS_RING_FULL, &(struct stream_loss){ .count = 9 }), 0);
	assert_int_equal(stream_dropped(&stream, LOSS_RING_FULL, &(struct stream_loss){ .count = 1 }), 0);
	arrived();
	for (int i = 0; i < STOP_REASONS; i++) {
		stop.reason = (enum stop_reason)i;
		assert_int_equal(stream_stop(&stream, &stop), 0);
		snprintf(
			expected, sizeof(expected),
			"{\"event\":\"stop\",\"server_pid\":4242,\"replies\":1,\"dropped\":10,\"reason\":\"%s\","
			"\"hits_main\":1,\"hits_io\":2,\"ambiguous\":0,\"held\":0,\"held_median_us\":0,\"held_max_us\":0,\"joined\":3,\"unjoined\":0,\"left_out_monitor\":4,\"left_out_replication\":0,"
			"\"left_out_cluster\":0,\"left_out_outgoing\":0,\"left_out_silenced\":0,\"left_out_other\":0,"
			"\"unanswered\":6,\"reply_bytes\":17,\"attributed_bytes\":10,\"unattributed_bytes\":5,"
			"\"left_out_bytes\":2,\"dispatch_unread\":8,\"dispatch_disagrees\":9}\n",
			names[i]);
		assert_string_equal(arrived(), expected);
	}
	stop.reason = STOP_REASONS;
	assert_int_equal(stream_stop(&stream, &stop), -EINVAL);
	assert_string_equal(arrived(), "");
}

static void ts_is(int64_t wall_ns, const char *expected)
{
	char part[64];

	record(BYTES(LRANGE));
	stream.clock.offset_ns = wall_ns - 1000;
	sample.rec.last_byte_ns = 1000;
	snprintf(part, sizeof(part), "\"ts\":\"%s\"", expected);
	assert_non_null(reply_has(part));
}

static void test_timestamps(void **state)
{
	(void)state;
	ts_is(0, "1970-01-01T00:00:00.000000000Z");
	ts_is(951782399999999999, "2000-02-28T23:59:59.999999999Z");
	ts_is(951782400000000000, "2000-02-29T00:00:00.000000000Z");
	ts_is(WALL_NS + 1234, TS);
	ts_is(4102444799000000001, "2099-12-31T23:59:59.000000001Z");
	setenv("TZ", "Asia/Tokyo", 1);
	tzset();
	ts_is(WALL_NS + 1234, TS);
}

static void test_clock(void **state)
{
	struct timespec wall, mono;
	struct clock_map m;
	int64_t expected;

	(void)state;
	assert_int_equal(clock_map_refresh(&m), 0);
	clock_gettime(CLOCK_REALTIME, &wall);
	clock_gettime(CLOCK_MONOTONIC, &mono);
	expected = (wall.tv_sec - mono.tv_sec) * 1000000000 + wall.tv_nsec - mono.tv_nsec;
	assert_true(llabs((long long)(m.offset_ns - expected)) < 50000000);
}

/* A pipe without a reader: -EPIPE, and then no more writes, even if there could be a reader again. */
static void test_sink_closed(void **state)
{
	int other[2];

	(void)state;
	close(out[0]);
	record(BYTES(LRANGE));
	assert_int_equal(reply(), -EPIPE);
	assert_int_equal(stream.replies, 0);
	assert_int_equal(pipe(other), 0);
	dup2(other[1], out[1]);
	out[0] = other[0];
	close(other[1]);
	assert_int_equal(reply(), -EPIPE);
	assert_int_equal(stream_stop(&stream, &(struct stream_stop){ .reason = STOP_ERROR }), -EPIPE);
	assert_string_equal(arrived(), "");
}

struct slow_reader {
	int fd;
	size_t total;
	bool newline_last;
};

static void *read_slowly(void *arg)
{
	struct slow_reader *r = arg;
	char buf[777];
	sigset_t all;
	ssize_t n;

	/* The signals are for the writer. */
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	while ((n = read(r->fd, buf, sizeof(buf))) > 0) {
		r->total += (size_t)n;
		r->newline_last = buf[n - 1] == '\n';
		usleep(100);
	}
	return NULL;
}

static void tick(int sig)
{
	(void)sig;
}

static void count_interruption(void *ctx)
{
	++*(unsigned int *)ctx;
}

/*
 * A small non-blocking buffer, and signals all the time: every partial, blocked or interrupted write is finished, and a
 * caller that wants to know about interruptions does.
 */
static void test_sink_signals(void **state)
{
	struct sigaction action = { .sa_handler = tick }, old;
	struct itimerspec every = { { 0, 300000 }, { 0, 300000 } };
	struct slow_reader reader = {};
	int pair[2], small = 4096;
	pthread_t thread;
	timer_t timer;
	size_t total = 0;
	unsigned int interruptions = 0;
	struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1 };

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	reader.fd = pair[0];
	sigaction(SIGUSR1, &action, &old);
	assert_int_equal(pthread_create(&thread, NULL, read_slowly, &reader), 0);
	assert_int_equal(timer_create(CLOCK_MONOTONIC, &event, &timer), 0);
	timer_settime(timer, 0, &every, NULL);
	sink_init(&sink, pair[1]);
	sink.interrupted = count_interruption;
	sink.ctx = &interruptions;
	for (int i = 0; i < 40; i++) {
		fcntl(pair[1], F_SETFL, i % 2 ? O_NONBLOCK : 0);
		widest(1);
		assert_int_equal(reply(), 0);
		total += stream.line_len;
	}
	timer_delete(timer);
	close(pair[1]);
	pthread_join(thread, NULL);
	close(pair[0]);
	sigaction(SIGUSR1, &old, NULL);
	assert_int_equal(reader.total, total);
	assert_true(interruptions > 0);
	assert_true(reader.newline_last);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_reply),        TEST(test_aborted),       TEST(test_unknown_values),
		TEST(test_push),         TEST(test_kinds),         TEST(test_who_asked),
		TEST(test_dispatched),   TEST(test_executed_argv), TEST(test_forgotten_execution),
		TEST(test_argv_lost),    TEST(test_addresses),     TEST(test_text),
		TEST(test_escaped),      TEST(test_cut_text),      TEST(test_truncated),
		TEST(test_secrets),      TEST(test_longest_line),  TEST(test_not_ours),
		TEST(test_start),        TEST(test_windows),       TEST(test_not_ours),
		TEST(test_start),        TEST(test_start_long),    TEST(test_run_ids_differ),
		TEST(test_dropped),      TEST(test_dropped_more),  TEST(test_stop),
		TEST(test_timestamps),   TEST(test_clock),         TEST(test_sink_closed),
		TEST(test_sink_signals),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests_name("stream", tests, NULL, NULL);
}
