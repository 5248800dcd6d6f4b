/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Pairing as BPF sees it: what is certain, what is doubtful, and which reply a command can't have. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "engine_host.h"

#define CMD1(a) "*1\r\n" a
#define CMD2(a, b) "*2\r\n" a b
#define CMD3(a, b, c) "*3\r\n" a b c
#define PING CMD1("$4\r\nPING\r\n")
#define GET(k) CMD2("$3\r\nGET\r\n", "$1\r\n" k "\r\n")
#define MULTI CMD1("$5\r\nMULTI\r\n")
#define EXEC CMD1("$4\r\nEXEC\r\n")
#define AUTH CMD3("$4\r\nAUTH\r\n", "$1\r\nu\r\n", "$1\r\np\r\n")
#define HELLO CMD2("$5\r\nHELLO\r\n", "$1\r\n3\r\n")
#define NEVER CMD1("$12\r\nunruly.never\r\n")
#define EVAL CMD3("$4\r\nEVAL\r\n", "$1\r\nx\r\n", "$1\r\n0\r\n")
#define NOBODY CMD1("$6\r\nNobody\r\n")

static void read_ok(struct host_conn *c, const char *request)
{
	assert_int_equal(host_read(c, request, strlen(request)), REQUEST_OK);
}

static enum reply_verdict answer(struct host_conn *c, const char *reply)
{
	return host_write(c, reply, strlen(reply));
}

static void test_alone_is_certain_and_bursts_are_not(void **state)
{
	struct host_conn *c = host_connect();

	(void)state;
	host_reset(0, 4);
	read_ok(c, GET("a"));
	assert_int_equal(answer(c, "$1\r\nA\r\n"), REPLY_OK);
	read_ok(c, GET("a") GET("b"));
	assert_int_equal(answer(c, "$1\r\nA\r\n$1\r\nB\r\n"), REPLY_OK);
	read_ok(c, GET("c"));
	assert_int_equal(answer(c, "$1\r\nC\r\n"), REPLY_OK);
	/* The second command comes in a read of its own, while the first one is outstanding. */
	read_ok(c, GET("d"));
	read_ok(c, GET("e"));
	assert_int_equal(answer(c, "$1\r\nD\r\n$1\r\nE\r\n"), REPLY_OK);
	assert_int_equal(host_count, 6);
	for (size_t i = 0; i < host_count; i++)
		assert_int_equal(host_records[i].certain, i == 0 || i == 3);
	free(c);
}

/* Each reply is one that its command can't have. */
static void test_misfits(void **state)
{
	static const struct {
		const char *request, *reply;
		enum reply_verdict verdict;
	} cases[] = {
		{ MULTI, "+OK\r\n", REPLY_OK },
		{ MULTI, "-ERR no\r\n", REPLY_OK },
		{ MULTI, "$2\r\nOK\r\n", REPLY_MISFIT },
		{ MULTI, "+OKAY\r\n", REPLY_MISFIT },
		{ MULTI, ":1\r\n", REPLY_MISFIT },
		{ MULTI GET("a"), "+OK\r\n+QUEUED\r\n", REPLY_OK },
		{ MULTI GET("a"), "+OK\r\n$1\r\nA\r\n", REPLY_MISFIT },
		{ MULTI GET("a"), "+OK\r\n-ERR no\r\n", REPLY_OK },
		{ MULTI GET("a") EXEC, "+OK\r\n+QUEUED\r\n*1\r\n:1\r\n", REPLY_OK },
		{ MULTI GET("a") EXEC, "+OK\r\n+QUEUED\r\n*-1\r\n", REPLY_OK },
		{ MULTI GET("a") EXEC, "+OK\r\n+QUEUED\r\n_\r\n", REPLY_OK },
		{ MULTI GET("a") EXEC, "+OK\r\n+QUEUED\r\n+QUEUED\r\n", REPLY_MISFIT },
		{ MULTI CMD1("$7\r\nDISCARD\r\n"), "+OK\r\n:0\r\n", REPLY_MISFIT },
		{ MULTI CMD1("$7\r\nDISCARD\r\n"), "+OK\r\n+OK\r\n", REPLY_OK },
		/* Without MULTI, or with one of another name. */
		{ CMD1("$7\r\nDISCARD\r\n"), "+OK\r\n", REPLY_MISFIT },
		{ EXEC, "*0\r\n", REPLY_MISFIT },
		{ EXEC, "-ERR EXEC without MULTI\r\n", REPLY_OK },
		{ AUTH, "+OK\r\n", REPLY_OK },
		{ AUTH, "$3\r\nbig\r\n", REPLY_MISFIT },
		{ AUTH, "+PONG\r\n", REPLY_MISFIT },
		{ HELLO, "%7\r\n$6\r\nserver\r\n", REPLY_OK },
		{ HELLO, "*14\r\n$6\r\nserver\r\n", REPLY_OK },
		{ HELLO, "%1\r\n$6\r\nfields\r\n$1\r\nx\r\n", REPLY_MISFIT },
		{ HELLO, "$13\r\n$6\r\nserver\r\n\r\n", REPLY_MISFIT },
		{ CMD2("$6\r\nSELECT\r\n", "$1\r\n1\r\n"), "$1\r\n1\r\n", REPLY_MISFIT },
		{ CMD3("$6\r\nCLIENT\r\n", "$7\r\nSETNAME\r\n", "$1\r\nx\r\n"), "*0\r\n", REPLY_MISFIT },
		{ CMD1("$5\r\nRESET\r\n"), "+RESET\r\n", REPLY_OK },
		{ CMD1("$5\r\nRESET\r\n"), "+OK\r\n", REPLY_MISFIT },
		{ CMD2("$9\r\nSUBSCRIBE\r\n", "$1\r\nc\r\n"), "-NOPERM no\r\n", REPLY_OK },
		{ CMD2("$9\r\nSUBSCRIBE\r\n", "$1\r\nc\r\n"), "+OK\r\n", REPLY_MISFIT },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		for (size_t cut = 0; cut < strlen(cases[i].reply); cut++) {
			struct host_conn *c = host_connect();
			enum reply_verdict verdict;

			host_reset(0, 4);
			read_ok(c, cases[i].request);
			verdict = host_write(c, cases[i].reply, cut);
			if (verdict == REPLY_OK)
				verdict = answer(c, cases[i].reply + cut);
			if (verdict != cases[i].verdict)
				fail_msg("%zu, cut at %zu: %s answered by %s: %d", i, cut, cases[i].request, cases[i].reply,
					 verdict);
			free(c);
		}
}

/* When a failing AUTH gets no reply, the next reply would be taken for AUTH's: see auth_may_be_silent(). */
static void test_auth_behind_others(void **state)
{
	static const struct {
		const char *request, *reply;
		bool silent;
		enum doubt doubt;
	} cases[] = {
		{ PING AUTH GET("a"), "+PONG\r\n+OK\r\n$1\r\nA\r\n", true, DOUBT_AUTH },
		{ PING AUTH GET("a"), "+PONG\r\n+OK\r\n$1\r\nA\r\n", false, DOUBT_NONE },
		{ PING HELLO GET("a"), "+PONG\r\n-ERR no\r\n$1\r\nA\r\n", true, DOUBT_AUTH },
		{ AUTH GET("a"), "+OK\r\n$1\r\nA\r\n", true, DOUBT_NONE },
		{ HELLO GET("a"),
		  "%7\r\n$6\r\nserver\r\n+a\r\n+a\r\n+a\r\n+a\r\n+a\r\n+a\r\n+a\r\n+a\r\n+a\r\n+a\r\n+a\r\n+a\r\n+a\r\n$1\r\nA\r\n",
		  true, DOUBT_NONE },
		{ MULTI AUTH EXEC, "+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n", true, DOUBT_EXEC },
		{ MULTI AUTH EXEC, "+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n", false, DOUBT_NONE },
		{ MULTI GET("a") EXEC, "+OK\r\n+QUEUED\r\n*1\r\n+A\r\n", true, DOUBT_NONE },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct host_conn *c = host_connect();

		host_reset(0, 4);
		host.auth_is_silent = cases[i].silent;
		read_ok(c, cases[i].request);
		assert_int_equal(answer(c, cases[i].reply), REPLY_OK);
		if (c->conn.doubt != cases[i].doubt)
			fail_msg("%zu: doubt is %d", i, c->conn.doubt);
		assert_int_equal(c->conn.unverified, cases[i].doubt != DOUBT_NONE);
		assert_true(pairing_adds_up(&c->conn));
		free(c);
	}
}

/*
 * A module's command may do anything. No error that names a command means that it was not executed. Errors of scripts
 * may contain anything.
 */
static void test_doubts(void **state)
{
	static const struct {
		const char *request, *reply;
		bool doubt;
	} cases[] = {
		{ NEVER, "+OK\r\n", true },
		{ NEVER, "-ERR wrong number of arguments\r\n", true },
		{ NEVER, "-ERR unknown command 'unruly.never', with args beginning with: \r\n", false },
		{ NEVER, "-ERR unknown command `unruly.never`, with args beginning with: \r\n", false },
		{ NEVER, "-ERR unknown command 'other', with args beginning with: \r\n", true },
		{ NOBODY, "-ERR unknown command 'Nobody', with args beginning with: \r\n", false },
		{ NOBODY, "-ERR unknown command 'Nobod', with args beginning with: \r\n", true },
		{ NOBODY, "-ERR unknown command |Nobody|, with args beginning with: \r\n", true },
		{ "Nobody a b\r\n", "-ERR unknown command 'Nobody', with args beginning with: 'a' 'b' \r\n", false },
		{ "unruly.twice\r\n", "+OK\r\n", true },
		{ CMD1("$20\r\ngeoradiusbymember_ro\r\n"), "*0\r\n", false },
		{ CMD1("$17\r\nGEORADIUSBYMEMBER\r\n"), "*0\r\n", false },
		{ CMD1("$17\r\ngeoradiusbymembex\r\n"), "*0\r\n",
		  false }, /* the same in all compared bytes, but the server refuses it anyway */
		{ CMD1("$16\r\nzrevrangebyscore\r\n"), "*0\r\n", false },
		{ CMD1("$16\r\nzrevrangebyscorX\r\n"), "*0\r\n", true },
		{ GET("a"), "+anything\r\n", false },
		{ "get a\r\n", "+anything\r\n", false },
		{ MULTI NEVER EXEC, "+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n", true },
		{ MULTI NOBODY EXEC, "+OK\r\n-ERR unknown command 'Nobody', with args beginning with: \r\n-EXECABORT no\r\n",
		  false },
		{ " \r\n" GET("a"), "+A\r\n", true },
		/* Errors of scripts may contain anything, wherever they are. */
		{ EVAL, "-ERR x\r\n", true },
		{ EVAL, "$1\r\nx\r\n", false },
		{ EVAL, "*2\r\n:1\r\n-ERR x\r\n", true },
		{ EVAL, "*2\r\n:1\r\n*1\r\n+x\r\n", false },
		{ "eval x 0\r\n", "-ERR x\r\n", true },
		{ CMD2("$7\r\nEVALSHA\r\n", "$1\r\nx\r\n"), "-NOSCRIPT no\r\n", true },
		{ CMD2("$7\r\neval_ro\r\n", "$1\r\nx\r\n"), "-ERR x\r\n", true },
		{ CMD2("$10\r\nEVALSHA_RO\r\n", "$1\r\nx\r\n"), "-ERR x\r\n", true },
		{ CMD2("$5\r\nFCALL\r\n", "$1\r\nx\r\n"), "-ERR x\r\n", true },
		{ CMD2("$8\r\nFCALL_RO\r\n", "$1\r\nx\r\n"), "-ERR x\r\n", true },
		{ CMD2("$8\r\nFUNCTION\r\n", "$4\r\nLOAD\r\n"), "-ERR x\r\n", true },
		{ CMD2("$6\r\nSCRIPT\r\n", "$4\r\nLOAD\r\n"), "-ERR x\r\n", true },
		{ "script load x\r\n", "-ERR x\r\n", true },
		{ MULTI EVAL GET("a") EXEC, "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n$1\r\nx\r\n-ERR x\r\n", false },
		{ MULTI GET("a") EVAL EXEC, "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n$1\r\nx\r\n-ERR x\r\n", true },
		{ MULTI GET("a") EVAL EXEC, "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n-ERR x\r\n$1\r\nx\r\n", false },
		/* EXEC is logged as a whole: a nested MULTI was refused. */
		{ MULTI EVAL MULTI EXEC, "+OK\r\n+QUEUED\r\n-ERR MULTI calls can not be nested\r\n*1\r\n-ERR x\r\n", true },
		{ MULTI EVAL EXEC, "+OK\r\n+QUEUED\r\n*1\r\n$1\r\nx\r\n", false },
		{ GET("a"), "-WRONGTYPE no\r\n", false },
		{ GET("a"), "-REDIRECT host:1\r\n", true },
		{ GET("a"), "-MOVED 1 host:1\r\n", true },
		{ GET("a"), "-ASK 1 host:1\r\n", true },
		{ GET("a"), "-ASKED x\r\n", false },
		{ GET("a"), "-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n", true },
		{ MULTI GET("a") EXEC, "+OK\r\n+QUEUED\r\n*1\r\n-ERR x\r\n", false },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		for (size_t cut = 0; cut < strlen(cases[i].reply); cut++) {
			struct host_conn *c = host_connect();

			host_reset(0, 4);
			host.blank_lines_confuse = true;
			read_ok(c, cases[i].request);
			assert_int_equal(host_write(c, cases[i].reply, cut), REPLY_OK);
			assert_int_equal(answer(c, cases[i].reply + cut), REPLY_OK);
			if ((c->conn.doubt != DOUBT_NONE) != cases[i].doubt)
				fail_msg("%zu, cut at %zu: %s answered by %s: doubt is %d", i, cut, cases[i].request,
					 cases[i].reply, c->conn.doubt);
			free(c);
		}
}

/* Behind a line of blanks, some servers read a multibulk as lines. An empty line changes nothing. */
static void test_lines_without_words(void **state)
{
	static const struct {
		const char *request;
		unsigned int commands, confused_commands;
		bool doubt;
	} cases[] = {
		{ "\r\n" GET("a"), 1, 1, false },         { "\n\r\n" GET("a"), 1, 1, false },
		{ " \r\n" GET("a"), 1, 5, true },         { "\t\n" GET("a") GET("b"), 2, 6, true },
		{ "\r\r\n" GET("a"), 1, 5, true },        { " \r\n \n" GET("a"), 1, 5, true },
		{ " \r\n\r\n" GET("a"), 1, 1, true },     { " \r\nPING\r\n" GET("a"), 2, 2, true },
		{ GET("a") "\v\n" GET("b"), 2, 6, true },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		for (size_t cut = 0; cut < strlen(cases[i].request); cut++)
			for (int confuse = 0; confuse < 2; confuse++) {
				struct host_conn *c = host_connect();

				host_reset(0, 4);
				host.blank_lines_confuse = confuse;
				assert_int_equal(host_read(c, cases[i].request, cut), REQUEST_OK);
				read_ok(c, cases[i].request + cut);
				assert_int_equal(c->conn.read_seq, confuse ? cases[i].confused_commands : cases[i].commands);
				assert_int_equal(c->conn.doubt, confuse && cases[i].doubt ? DOUBT_BLANK_LINE : DOUBT_NONE);
				free(c);
			}
}

static void test_a_modules_command_may_change_who_the_client_is(void **state)
{
	struct host_conn *c = host_connect();

	(void)state;
	host_reset(0, 4);
	c->conn.session.db = 3;
	c->conn.from_start = 1;
	read_ok(c, NOBODY);
	assert_int_equal(answer(c, "-ERR unknown command 'Nobody', with args beginning with: \r\n"), REPLY_OK);
	assert_int_equal(c->conn.session.db, 3);
	assert_int_equal(c->conn.from_start, 1);
	read_ok(c, NEVER);
	assert_int_equal(answer(c, "+OK\r\n"), REPLY_OK);
	assert_int_equal(c->conn.session.db, -1);
	assert_int_equal(c->conn.from_start, 0);
	free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_alone_is_certain_and_bursts_are_not),
		cmocka_unit_test(test_misfits),
		cmocka_unit_test(test_auth_behind_others),
		cmocka_unit_test(test_doubts),
		cmocka_unit_test(test_lines_without_words),
		cmocka_unit_test(test_a_modules_command_may_change_who_the_client_is),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
