/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What replylog keeps of a dispatched command (bpf/server/client.h, argv_snapshot.h, snapshot_ring.h), on made-up structs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "user/output/argv.h"
#include "bpf/env.h"

/* A part of memory that is not mapped. */
static struct {
	__u64 from, to;
} hole;

static long read_or_fail(void *dst, __u32 n, __u64 addr)
{
	return addr < hole.to && addr + n > hole.from ? -1 : env_read_server(dst, n, addr);
}

#define env_read_server read_or_fail

#include "bpf/dispatch/snapshot_ring.h"

/* As valkey 9 has it: the sds may be in the object itself. */
struct object {
	unsigned int type : 4, encoding : 4, lru : 24;
	unsigned int hasexpire : 1, hasembkey : 1, hasembval : 1, refcount : 29;
	void *ptr;
};

struct user {
	char *name;
};

struct db {
	int id;
};

struct client {
	uint64_t id;
	void *conn;
	struct db *db;
	struct user *user;
	struct object *name, *lib_name, *lib_ver;
	struct object **argv;
	int argc;
	int resp;
};

static struct {
	struct db db;
	struct user user;
	struct client client;
	void *conn[8];
	struct object *argv[64];
	struct snapshot_work work;
	void *made[512];
	size_t n_made;
} server;

/* clang-format off: one line each */
#define AT(type, member)                                                          \
	{                                                                         \
		offsetof(struct type, member), sizeof(((struct type *)0)->member) \
	}
/* clang-format on */

static int reset(void **state)
{
	(void)state;
	while (server.n_made)
		free(server.made[--server.n_made]);
	memset(&server, 0, sizeof(server));
	hole.from = hole.to = 0;
	client_layout = (struct client_layout){
		.conn = AT(client, conn),
		.db = AT(client, db),
		.user = AT(client, user),
		.name = AT(client, name),
		.lib_name = AT(client, lib_name),
		.lib_ver = { LAYOUT_ABSENT, 0 },
		.argv = AT(client, argv),
		.argc = AT(client, argc),
		.resp = AT(client, resp),
		.db_id = AT(db, id),
		.user_name = AT(user, name),
		.robj_ptr = AT(object, ptr),
		.robj_expiry = { 4, 1, 0 },
		.robj_key = { 4, 2, 0 },
		.robj_embedded = { 4, 4, 0 },
	};
	client_span = sizeof(struct client);
	server.conn[4] = &server.client;
	server.db.id = 3;
	server.client.conn = server.conn;
	server.client.db = &server.db;
	server.client.argv = server.argv;
	server.client.resp = 2;
	return 0;
}

static void *make(size_t size)
{
	return server.made[server.n_made++] = calloc(1, size);
}

/* src/sds.h: type 0 has its length in the type's byte, the others length and room of 1, 2, 4 or 8 bytes each. */
static char *make_sds(int type, const char *bytes, uint64_t len, uint64_t room)
{
	size_t field = type ? (size_t)1 << (type - 1) : 0;
	char *memory = (char *)make(32 + len + 1) + 8; /* the bytes before it can be read, too */

	memcpy(memory, &len, field);
	memcpy(memory + field, &room, field);
	memory[2 * field] = (char)(type ? (uint64_t)type : len << 3);
	memcpy(memory + 2 * field + 1, bytes, len);
	return memory + 2 * field + 1;
}

static struct object *make_object(char *sds)
{
	struct object *object = make(sizeof(*object));

	object->ptr = sds;
	return object;
}

static int type_for(size_t len)
{
	return len < 32 ? 0 : len < 256 ? 1 : len < 65536 ? 2 : 3;
}

static void add_argument(const char *bytes, size_t len)
{
	server.argv[server.client.argc++] = make_object(make_sds(type_for(len), bytes, len, len));
}

static void add(const char *word)
{
	add_argument(word, strlen(word));
}

static __u32 take(void)
{
	memset(&server.work, 0xa5, sizeof(server.work));
	return snapshot_take(&server.work, (unsigned long)&server.client, (unsigned long)server.conn);
}

/* What user space decodes. */
static void decode(struct argv *out)
{
	__u32 len = take();

	assert_int_equal(len, sizeof(struct argv_snapshot) + snapshot_len(&server.work.head));
	assert_int_equal(
		argv_decode(out, server.work.bytes + sizeof(struct argv_snapshot), server.work.head.argv_len, false), 0);
}

static void assert_argument(const struct argv *a, unsigned int i, const char *bytes, uint64_t true_len)
{
	assert_true(i < a->n);
	assert_int_equal(a->arg[i].true_len, true_len);
	assert_int_equal(a->arg[i].len, true_len < ARGV_MAX_ARG_BYTES ? true_len : ARGV_MAX_ARG_BYTES);
	assert_memory_equal(a->arg[i].bytes, bytes, a->arg[i].len);
}

static void test_argv(void **state)
{
	struct argv a;

	(void)state;
	add("SET");
	add("");
	add_argument("\0\r\n\xff", 4);
	decode(&a);
	assert_int_equal(a.argc, 3);
	assert_argument(&a, 0, "SET", 3);
	assert_argument(&a, 1, "", 0);
	assert_argument(&a, 2, "\0\r\n\xff", 4);
	assert_false(a.truncated);
	assert_int_equal(server.work.head.db, 3);
	assert_int_equal(server.work.head.resp, 2);
	assert_memory_equal(&server.work.name, "SET\0\0\0\0", 8);
}

/* Fields outside the part that is read at once. */
static void test_far_fields(void **state)
{
	struct argv a;

	(void)state;
	add("NAMEOFTHECOMMAND");
	for (client_span = 0; client_span <= sizeof(struct client); client_span++) {
		decode(&a);
		assert_argument(&a, 0, "NAMEOFTHECOMMAND", 16);
		assert_int_equal(server.work.head.db, 3);
		assert_memory_equal(&server.work.name, "NAMEOFTH", 8);
	}
}

/* Each type of sds, at the lengths where numbers get longer and arguments are cut. */
static void test_lengths(void **state)
{
	static const uint64_t lengths[] = {
		0, 1, 9, 10, 31, 99, 100, 127, 128, 129, 255, 256, 1000, 65535, 65536, 99999, 100000,
	};
	char *bytes = calloc(1, 100000);
	struct argv a;

	memset(bytes, 'x', 100000);
	for (int type = 0; type <= 4; type++) {
		for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
			if (lengths[i] >= (type ? type > 2 ? UINT64_MAX : 1ULL << 8 * type : 32))
				continue;
			reset(state);
			server.argv[server.client.argc++] = make_object(make_sds(type, bytes, lengths[i], lengths[i]));
			decode(&a);
			assert_argument(&a, 0, bytes, lengths[i]);
		}
	}
	free(bytes);
}

/* The longest length that a number can express: BPF reads only what it keeps. */
static void test_true_length(void **state)
{
	static const uint64_t lengths[] = { 99999999, 999999999999, 1000000000000 };
	const char bytes[200] = "0123456789";
	struct argv a;

	for (size_t i = 0; i < 3; i++) {
		char *sds;

		reset(state);
		sds = make_sds(4, bytes, sizeof(bytes), sizeof(bytes));
		memcpy(sds - 17, &lengths[i], 8);
		memcpy(sds - 9, &lengths[i], 8);
		server.argv[server.client.argc++] = make_object(sds);
		if (i == 2) {
			assert_int_equal(take(), 0);
			continue;
		}
		decode(&a);
		assert_argument(&a, 0, bytes, lengths[i]);
	}
}

static void test_many_arguments(void **state)
{
	char word[200];
	struct argv a;

	(void)state;
	for (int i = 0; i < 40; i++) {
		memset(word, 'a' + i % 26, sizeof(word));
		add_argument(word, sizeof(word));
	}
	decode(&a);
	assert_int_equal(a.argc, 40);
	assert_int_equal(a.n, ARGV_MAX_ARGS);
	assert_true(a.truncated);
	for (unsigned int i = 0; i < a.n; i++) {
		memset(word, 'a' + i % 26, sizeof(word));
		assert_argument(&a, i, word, sizeof(word));
	}
}

/* An allocation may start at the beginning of mapped memory: the shortest sds has one byte before the string and no more. */
static void test_beginning_of_memory(void **state)
{
	struct argv a;

	(void)state;
	add("GET");
	add("key");
	hole.to = (unsigned long)server.argv[1]->ptr - 1;
	hole.from = hole.to - 4;
	decode(&a);
	assert_argument(&a, 1, "key", 3);
	hole.to++;
	assert_int_equal(take(), 0);
}

/*
 * valkey 9: the string is in the object itself, with or without an expiry before it. An object with a key in it is no
 * argument.
 */
static void test_embedded(void **state)
{
	struct argv a;

	for (int expire = 0; expire < 2; expire++) {
		struct object *object;
		char *sds;

		reset(state);
		object = make(64);
		object->hasembval = 1;
		object->hasexpire = expire;
		object->encoding = 8;
		sds = (char *)object + 8 + 8 * expire + 3;
		memcpy(sds - 3, "\5\7\1hello", 8);
		server.argv[server.client.argc++] = object;
		decode(&a);
		assert_argument(&a, 0, "hello", 5);
		object->hasembkey = 1;
		assert_int_equal(take(), 0);
	}
}

static void test_who(void **state)
{
	const char *words;

	(void)state;
	add("PING");
	server.client.user = &server.user;
	server.user.name = make_sds(0, "alice", 5, 5);
	server.client.name = make_object(make_sds(1, "worker", 6, 6));
	server.client.lib_name = make_object(make_sds(0, "lib", 3, 3));
	server.client.lib_ver = make_object(make_sds(0, "not in this version", 19, 19));
	assert_true(take());
	words = (const char *)server.work.bytes + sizeof(struct argv_snapshot) + server.work.head.argv_len;
	assert_memory_equal(words, "aliceworkerlib", 14);
	assert_int_equal(server.work.head.word[WORD_USER], 5);
	assert_int_equal(server.work.head.word[WORD_NAME], 6);
	assert_int_equal(server.work.head.word[WORD_LIB_NAME], 3);
	assert_int_equal(server.work.head.word[WORD_LIB_VER], 0);
}

/* A name that would have to be cut is not known. */
static void test_long_name(void **state)
{
	char name[ARGV_MAX_ARG_BYTES + 1] = "";

	(void)state;
	add("PING");
	server.client.name = make_object(make_sds(1, name, sizeof(name), sizeof(name)));
	assert_true(take());
	assert_int_equal(server.work.head.word[WORD_NAME], 0);
	server.client.name = make_object(make_sds(1, name, sizeof(name) - 1, sizeof(name)));
	assert_true(take());
	assert_int_equal(server.work.head.word[WORD_NAME], ARGV_MAX_ARG_BYTES);
}

/* clang-format off: one line each */
static void nothing_wrong(void)
{
}
static void another_connection(void)
{
	server.conn[4] = NULL;
}
static void no_argc(void)
{
	server.client.argc = 0;
}
static void negative_argc(void)
{
	server.client.argc = -1;
}
static void no_argv(void)
{
	server.client.argv = NULL;
}
static void no_object(void)
{
	server.argv[1] = NULL;
}
static void no_sds(void)
{
	server.argv[1]->ptr = NULL;
}
static void another_type(void)
{
	server.argv[1]->type = 1;
}
static void a_number(void)
{
	server.argv[1]->encoding = 1;
}
static void unknown_sds(void)
{
	((char *)server.argv[1]->ptr)[-1] = 5;
}
static void sds_without_room(void)
{
	((char *)server.argv[1]->ptr)[-2] = 1;
}
static void no_db(void)
{
	server.client.db = NULL;
}
static void negative_db(void)
{
	server.db.id = -1;
}
static void odd_resp(void)
{
	server.client.resp = 4;
}
static void odd_name(void)
{
	server.client.name = (struct object *)8;
}
static void odd_user(void)
{
	server.client.user = (struct user *)8;
}
/* clang-format on */

/* Wrong structs: replylog keeps nothing. */
static void test_refused(void **state)
{
	static void (*const wrong[])(void) = {
		nothing_wrong, another_connection, no_argc,  negative_argc, no_argv,          no_object,
		no_sds,        another_type,       a_number, unknown_sds,   sds_without_room, no_db,
		negative_db,   odd_resp,           odd_name, odd_user,
	};

	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
		reset(state);
		add("GET");
		server.argv[server.client.argc++] = make_object(make_sds(1, "key", 3, 3));
		wrong[i]();
		assert_int_equal(!take(), i > 0);
	}
}

/* ---- the ring ---- */

static struct snapshot_ring snapshots;

static __u32 keep(char fill, __u32 argv_len)
{
	server.work.head = (struct argv_snapshot){ .argv_len = argv_len };
	memset(server.work.bytes + sizeof(struct argv_snapshot), fill, argv_len);
	return snapshots_keep(&snapshots, &server.work, sizeof(struct argv_snapshot) + argv_len);
}

static bool is_kept(__u32 place, char fill, __u32 argv_len)
{
	struct argv_snapshot head;
	__u8 bytes[SNAPSHOT_MAX];

	if (!snapshots_read(&snapshots, place, &head) || head.argv_len != argv_len ||
	    snapshots_copy(&snapshots, snapshots_argv(place), argv_len, bytes, 0, sizeof(bytes),
			   SNAPSHOT_MAX - sizeof(head)) ||
	    !snapshots_hold(&snapshots, place, sizeof(head) + argv_len))
		return false;
	for (__u32 i = 0; i < argv_len; i++)
		assert_int_equal(bytes[i], fill);
	return true;
}

/* Every snapshot that the ring returns is whole, and the last 4 KiB are there, also where positions start again at 0. */
static void test_ring(void **state)
{
	static const __u32 begins[] = { 0, 8, 4088, 0xffffffff - 4095, 0xffffffff - 7 };
	static const __u32 lengths[] = { 1, 14, 100, 5000, 3, 2000, 2000, 60, 4080, 4081, 7, 5360 };
	enum { N = 400, LENGTHS = sizeof(lengths) / sizeof(lengths[0]) };
	__u32 place[N], len[N];

	(void)state;
	for (size_t b = 0; b < sizeof(begins) / sizeof(begins[0]); b++) {
		unsigned int kept = 0;

		snapshots.end = begins[b];
		for (int i = 0; i < N; i++) {
			__u32 since = 0;

			len[i] = lengths[(unsigned int)i * 7 % LENGTHS];
			place[i] = keep((char)('a' + i % 26), len[i]);
			for (int j = i; j >= 0; j--) {
				since += snapshots_room(sizeof(struct argv_snapshot) + len[j]);
				assert_int_equal(is_kept(place[j], (char)('a' + j % 26), len[j]),
						 since <= SNAPSHOTS_RING || i == j);
				kept += since <= SNAPSHOTS_RING || i == j;
			}
		}
		assert_true(kept > N);
	}
}

static void test_nothing_kept(void **state)
{
	struct argv_snapshot head;

	(void)state;
	assert_int_equal(snapshots_keep(&snapshots, &server.work, 0), SNAPSHOT_NONE);
	assert_false(snapshots_read(&snapshots, SNAPSHOT_NONE, &head));
}

/* ---- is it the same command? ---- */

/* A request as on the wire, and its argv as the argv log keeps it, which shortens long arguments over the budget. */
static __u8 asked[2 * ARGV_HEAD_MAX];
static __u32 asked_len;

static void ask_argument(const char *bytes, size_t len, bool whole)
{
	asked_len += (__u32)sprintf((char *)asked + asked_len, "%c%zu\r\n", whole ? '$' : '!', len);
	memcpy(asked + asked_len, bytes, whole ? len : ARGV_MAX_ARG_BYTES);
	asked_len += whole ? len : ARGV_MAX_ARG_BYTES;
	if (!whole)
		return;
	memcpy(asked + asked_len, "\r\n", 2);
	asked_len += 2;
}

static void ask_count(int argc)
{
	asked_len = (__u32)sprintf((char *)asked, "*%d\r\n", argc);
}

/* Executes the added command, wherever it is in the ring, and compares. */
static bool same_as_executed(void)
{
	static const __u32 ends[] = { 0, 8, SNAPSHOTS_RING - 8, SNAPSHOTS_RING - 64 };
	struct snapshots_compare compare;
	int differ = -1;

	for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
		__u32 len = take(), place;
		int result;

		assert_true(len);
		snapshots.end = ends[i];
		place = snapshots_keep(&snapshots, &server.work, len);
		memset(&compare, 0xa5, sizeof(compare));
		result = snapshots_differ(&compare, asked, asked_len, &snapshots, place);
		assert_true(differ < 0 || differ == result);
		differ = result;
	}
	return !differ;
}

static void test_same(void **state)
{
	static const size_t lengths[] = { 0, 1, 7, 8, 9, 16, 126, 127, 128 };
	char word[128];

	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		reset(state);
		memset(word, 'x', sizeof(word));
		add("SET");
		add_argument(word, lengths[i]);
		add("v");
		ask_count(3);
		ask_argument("SET", 3, true);
		ask_argument(word, lengths[i], true);
		ask_argument("v", 1, true);
		assert_true(same_as_executed());
		asked_len--;
		assert_false(same_as_executed());
		asked_len += 2;
		assert_false(same_as_executed());
		asked_len--;
		if (!lengths[i])
			continue;
		((char *)server.argv[1]->ptr)[lengths[i] - 1] = 'y'; /* the last byte of it */
		assert_false(same_as_executed());
	}
}

/* Every byte of the name and of each argument counts, and so does their number. */
static void test_other_commands(void **state)
{
	static const char *const other[][3] = {
		{ "GET", "b", "v" }, { "set", "a", "v" },  { "SET", "aa", "v" }, { "SET", "", "v" },    { "SET", "a", "w" },
		{ "SET", "a", "" },  { "SETX", "a", "v" }, { "SET", "a", NULL }, { "SET", NULL, NULL },
	};

	for (size_t i = 0; i < sizeof(other) / sizeof(other[0]); i++) {
		reset(state);
		for (int j = 0; j < 3 && other[i][j]; j++)
			add(other[i][j]);
		ask_count(3);
		ask_argument("SET", 3, true);
		ask_argument("a", 1, true);
		ask_argument("v", 1, true);
		assert_false(same_as_executed());
	}
	reset(state);
	add("SET"), add("a"), add("v"), add("");
	assert_false(same_as_executed());
}

/* An argument may be whole in the request's argv and shortened in the snapshot: true lengths and common bytes count. */
static void test_shortened(void **state)
{
	char word[1000], *kept;

	for (int shortened = 0; shortened < 2; shortened++) {
		for (size_t len = 129; len < sizeof(word); len += 290) {
			reset(state);
			memset(word, 'x', sizeof(word));
			add("SET");
			add_argument(word, len);
			add("after it");
			ask_count(3);
			ask_argument("SET", 3, true);
			ask_argument(word, len, !shortened);
			ask_argument("after it", 8, true);
			assert_true(same_as_executed());
			kept = server.argv[1]->ptr;
			kept[128] = 'y'; /* at most the request's argv has this byte */
			assert_true(same_as_executed());
			kept[127] = 'y';
			assert_false(same_as_executed());
			kept[127] = 'x';
			memcpy(server.argv[2]->ptr, "after iT", 8);
			assert_false(same_as_executed());
			memcpy(server.argv[2]->ptr, "after it", 8);
			server.argv[1] = make_object(make_sds(2, word, len + 1, len + 1));
			assert_false(same_as_executed());
		}
	}
}

/* Lengths of any number of digits: only kept bytes are read. */
static void test_long_compared(void **state)
{
	static const uint64_t lengths[] = { 999999, 9999999, 10000000, 123456789, 999999999999 };
	const char bytes[200] = "0123456789";

	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		char *sds;

		reset(state);
		add("SET");
		sds = make_sds(4, bytes, sizeof(bytes), sizeof(bytes));
		memcpy(sds - 17, &lengths[i], 8);
		memcpy(sds - 9, &lengths[i], 8);
		server.argv[server.client.argc++] = make_object(sds);
		add("after it");
		ask_count(3);
		ask_argument("SET", 3, true);
		ask_argument(bytes, lengths[i], false);
		ask_argument("after it", 8, true);
		assert_true(same_as_executed());
		for (int digit = 0; digit < 6; digit++) {
			asked[14 + digit] ^= 1;
			assert_false(same_as_executed());
			asked[14 + digit] ^= 1;
		}
		sds[100] = 'y';
		assert_false(same_as_executed());
	}
}

/* The longest of as many arguments as are kept: the last byte counts. */
static void test_many_compared(void **state)
{
	char word[128];

	(void)state;
	memset(word, 'x', sizeof(word));
	ask_count(40);
	for (int i = 0; i < 40; i++) {
		add_argument(word, sizeof(word));
		if (i < ARGV_MAX_ARGS)
			ask_argument(word, sizeof(word), true);
	}
	assert_true(asked_len <= ARGV_HEAD_MAX);
	assert_true(same_as_executed());
	((char *)server.argv[ARGV_MAX_ARGS]->ptr)[0] = 'y'; /* neither side keeps this argument */
	assert_true(same_as_executed());
	((char *)server.argv[ARGV_MAX_ARGS - 1]->ptr)[127] = 'y';
	assert_false(same_as_executed());
}

/* Whatever the request's argv contains: the comparison reads nothing beyond it, and never matches another command. */
static void test_damaged(void **state)
{
	(void)state;
	add("SET");
	add("key");
	ask_count(2);
	ask_argument("SET", 3, true);
	ask_argument("key", 3, true);
	for (__u32 len = 0; len < asked_len; len++) {
		__u32 whole = asked_len;
		bool same;

		asked_len = len;
		same = same_as_executed();
		asked_len = whole;
		assert_false(same);
		if (asked[len] == '\r' || asked[len] == '\n')
			continue;
		asked[len] ^= 0x08;
		assert_false(same_as_executed());
		asked[len] ^= 0x08;
	}
	assert_true(same_as_executed());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_argv, reset),           cmocka_unit_test_setup(test_far_fields, reset),
		cmocka_unit_test_setup(test_lengths, reset),        cmocka_unit_test_setup(test_true_length, reset),
		cmocka_unit_test_setup(test_many_arguments, reset), cmocka_unit_test_setup(test_beginning_of_memory, reset),
		cmocka_unit_test_setup(test_embedded, reset),       cmocka_unit_test_setup(test_who, reset),
		cmocka_unit_test_setup(test_long_name, reset),      cmocka_unit_test_setup(test_refused, reset),
		cmocka_unit_test_setup(test_ring, reset),           cmocka_unit_test_setup(test_nothing_kept, reset),
		cmocka_unit_test_setup(test_same, reset),           cmocka_unit_test_setup(test_other_commands, reset),
		cmocka_unit_test_setup(test_shortened, reset),      cmocka_unit_test_setup(test_long_compared, reset),
		cmocka_unit_test_setup(test_many_compared, reset),  cmocka_unit_test_setup(test_damaged, reset),
	};
	int failed = cmocka_run_group_tests(tests, NULL, NULL);

	reset(NULL);
	return failed;
}
