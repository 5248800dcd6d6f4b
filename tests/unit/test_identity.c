/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <errno.h>

#include "user/output/client_identity.h"

#define CONNECTIONS 4

static struct client_identities all;

static struct {
	struct reply_record rec;
	char head[ARGV_HEAD_MAX];
} event;

static int setup(void **state)
{
	(void)state;
	return client_identities_init(&all, CONNECTIONS);
}

static int teardown(void **state)
{
	(void)state;
	client_identities_free(&all);
	return 0;
}

/* The server answers the next one with an error. */
static bool fails;

/* Connection 1, generation 7, sends this (words up to a NULL). */
static int says(const char *word, ...)
{
	char *out = event.head;
	const char *words[16];
	size_t n = 0, i;
	va_list args;

	va_start(args, word);
	for (; word; word = va_arg(args, const char *))
		words[n++] = word;
	va_end(args);
	out += sprintf(out, "*%zu\r\n", n);
	for (i = 0; i < n; i++)
		if (strlen(words[i]) <= ARGV_MAX_ARG_BYTES)
			out += sprintf(out, "$%zu\r\n%s\r\n", strlen(words[i]), words[i]);
		else
			out += sprintf(out, "!%zu\r\n%.*s", strlen(words[i]), ARGV_MAX_ARG_BYTES, words[i]);
	event.rec = (struct reply_record){
		.event = fails ? EVENT_IDENTITY_FAILED : EVENT_IDENTITY,
		.connection = 1,
		.generation = 7,
		.from_start = 1,
		.argv_len = (uint32_t)(out - event.head),
	};
	return client_identities_learn(&all, &event.rec, sizeof(event.rec) + event.rec.argv_len);
}

static const struct client_identity *known(void)
{
	struct reply_record rec = { .connection = 1, .generation = 7, .from_start = 1 };

	return client_identities_find(&all, &rec);
}

static void check_word(const struct identity_word *word, const char *expected)
{
	assert_int_equal(word->len, strlen(expected));
	assert_memory_equal(word->bytes, expected, word->len);
}

static void check_known(const char *name, const char *user, int resp)
{
	assert_non_null(known());
	check_word(&known()->client_name, name);
	check_word(&known()->user, user);
	assert_int_equal(known()->resp, resp);
}

static void test_nothing_said(void **state)
{
	(void)state;
	check_known("", "", 2);
}

static void test_hello(void **state)
{
	(void)state;
	says("HELLO", "3", NULL);
	check_known("", "", 3);
	says("hello", "2", "AUTH", "bob", "secret", "setname", "pool", NULL);
	check_known("pool", "bob", 2);
	says("HELLO", NULL);
	check_known("pool", "bob", 2);
	says("HELLO", "3", "SETNAME", "other", NULL);
	check_known("other", "bob", 3);
}

/* What replylog keeps contains no password. */
static void test_no_password_is_kept(void **state)
{
	(void)state;
	says("HELLO", "3", "AUTH", "bob", "sesame", NULL);
	says("AUTH", "sesame", NULL);
	says("AUTH", "alice", "sesame", NULL);
	assert_null(memmem(all.of, CONNECTIONS * sizeof(*all.of), "sesame", 6));
	check_known("", "alice", 3);
}

static void test_auth(void **state)
{
	(void)state;
	says("AUTH", "x", NULL);
	check_known("", "default", 2);
	says("AUTH", "bob", "x", NULL);
	check_known("", "bob", 2);
}

static void test_client(void **state)
{
	(void)state;
	says("client", "SetName", "pool", NULL);
	says("CLIENT", "SETINFO", "LIB-NAME", "redis-py", NULL);
	says("CLIENT", "SETINFO", "lib-ver", "5.0", NULL);
	says("CLIENT", "LIST", NULL);
	check_known("pool", "", 2);
	check_word(&known()->lib_name, "redis-py");
	check_word(&known()->lib_ver, "5.0");
	says("CLIENT", "SETNAME", "", NULL);
	check_known("", "", 2);
	says("CLIENT", "SETNAME", "again", NULL);
	says("AUTH", "bob", "x", NULL);
	says("RESET", NULL);
	check_known("", "", 2);
	check_word(&known()->lib_name, "redis-py");
}

static void test_long_words_are_not_known(void **state)
{
	char name[200];

	(void)state;
	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	says("CLIENT", "SETNAME", "pool", NULL);
	says("CLIENT", "SETNAME", name, NULL);
	check_known("", "", 2);
	name[ARGV_MAX_ARG_BYTES] = '\0';
	says("CLIENT", "SETNAME", name, NULL);
	check_known(name, "", 2);
}

/* A command that replylog did not understand may have changed anything. */
static void test_lost_for_good(void **state)
{
	(void)state;
	says("CLIENT", "SETNAME", "pool", NULL);
	says("HELLO", "3", "NEWOPTION", NULL);
	assert_null(known());
	says("CLIENT", "SETNAME", "pool", NULL);
	assert_null(known());
}

/* Bob authenticates, and then a HELLO fails. */
static bool survives_failing(const char *words[], bool hello_in_parts)
{
	bool survived;

	all = (struct client_identities){ 0 };
	assert_int_equal(client_identities_init(&all, CONNECTIONS), 0);
	assert_true(all.hello_in_parts);
	all.hello_in_parts = hello_in_parts;
	fails = false;
	says("AUTH", "bob", "x", NULL);
	fails = true;
	says("HELLO", words[0], words[1], words[2], words[3], words[4], words[5], NULL);
	fails = false;
	survived = known();
	if (survived)
		check_known("", "bob", 2);
	client_identities_free(&all);
	return survived;
}

/* Redis 6.0 and 7.0 authenticate and take the name before they find an error in the rest. */
static void test_hello_that_fails_half_way(void **state)
{
	static struct {
		const char *words[6];
		bool survives;
	} cases[] = {
		{ { NULL }, true },
		{ { "3" }, true },
		{ { "4", "AUTH", "alice", "x", "SETNAME", "y" }, true },
		{ { "2", "AUTH", "alice", "wrong" }, true },
		{ { "2", "auth", "alice", "x", "SETNAME", "x y" }, false },
		{ { "2", "AUTH", "alice", "x", "NONSENSE" }, false },
		{ { "3", "SETNAME", "me" }, false },
		{ { "3", "SETNAME", "me", "AUTH", "alice", "wrong" }, false },
		{ { "3", "AUTH", "alice" }, false },
	};

	(void)state;
	client_identities_free(&all);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		if (survives_failing(cases[i].words, true) != cases[i].survives)
			fail_msg("case %zu", i);
		assert_true(survives_failing(cases[i].words, false));
	}
	assert_int_equal(client_identities_init(&all, CONNECTIONS), 0);
}

static void test_lost_on_the_way(void **state)
{
	(void)state;
	says("CLIENT", "SETNAME", "pool", NULL);
	event.rec.event = EVENT_IDENTITY_LOST;
	event.rec.argv_len = 0;
	assert_int_equal(client_identities_learn(&all, &event.rec, sizeof(event.rec)), 0);
	assert_null(known());
}

static void test_another_generation_starts_afresh(void **state)
{
	struct reply_record rec = { .connection = 1, .generation = 8, .from_start = 1 };

	(void)state;
	says("CLIENT", "SETNAME", "pool", NULL);
	assert_int_equal(client_identities_find(&all, &rec)->client_name.len, 0);
	rec.from_start = 0;
	assert_null(client_identities_find(&all, &rec));
}

static void test_not_ours(void **state)
{
	(void)state;
	says("AUTH", "x", NULL);
	event.rec.connection = CONNECTIONS;
	assert_int_equal(client_identities_learn(&all, &event.rec, sizeof(event)), -EBADMSG);
	event.rec.connection = 1;
	event.rec.event = EVENT_REPLY;
	assert_int_equal(client_identities_learn(&all, &event.rec, sizeof(event)), -EBADMSG);
	event.rec.event = EVENT_IDENTITY;
	assert_int_equal(client_identities_learn(&all, &event.rec, sizeof(event.rec) + event.rec.argv_len - 1), -EBADMSG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_nothing_said, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hello, setup, teardown),
		cmocka_unit_test_setup_teardown(test_no_password_is_kept, setup, teardown),
		cmocka_unit_test_setup_teardown(test_auth, setup, teardown),
		cmocka_unit_test_setup_teardown(test_client, setup, teardown),
		cmocka_unit_test_setup_teardown(test_long_words_are_not_known, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lost_for_good, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lost_on_the_way, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hello_that_fails_half_way, setup, teardown),
		cmocka_unit_test_setup_teardown(test_another_generation_starts_afresh, setup, teardown),
		cmocka_unit_test_setup_teardown(test_not_ours, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
