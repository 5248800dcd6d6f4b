/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "user/server/commands.h"
#include "user/session/reply_fits.h"

#define NAME(s) (s), sizeof(s) - 1

static bool fits(const char *line, char first_byte, unsigned int resp)
{
	static struct argv a;

	assert_int_equal(argv_decode(&a, line, strlen(line), false), 0);
	return reply_fits_command(&a, (__u8)first_byte, resp);
}

/* Returns the types that fit. */
static void answers(const char *line, unsigned int resp, const char *expected)
{
	char found[32] = "";
	size_t n = 0;

	for (const char *type = "+-:$*%~,#(=_>!|"; *type; type++)
		if (fits(line, *type, resp))
			found[n++] = *type;
	assert_string_equal(found, expected);
}

#define EVERYTHING "+-:$*%~,#(=_>!|"

static void test_find(void **state)
{
	(void)state;
	assert_string_equal(command_find(NAME("get"))->name, "get");
	assert_string_equal(command_find(NAME("GeT"))->name, "get");
	assert_string_equal(command_find(NAME("SORT_RO"))->name, "sort_ro");
	assert_string_equal(command_find(NAME("restore-asking"))->name, "restore-asking");
	assert_null(command_find(NAME("")));
	assert_null(command_find(NAME("ge")));
	assert_null(command_find(NAME("gett")));
	assert_null(command_find(NAME("get\0")));
	assert_null(command_find(NAME("get ")));
	assert_null(command_find(NAME("config|get")));
	assert_null(command_find(NAME("config|")));
	assert_null(command_find(NAME("json.get")));
	/* '@' is not a letter, although the bit that makes letters small applies to it. */
	assert_null(command_find(NAME("\x07"
				      "ET")));
	assert_null(command_find("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 70));
}

/* Each command is found by its name, so the table is sorted, and appears once. */
static void test_all(void **state)
{
	const struct command_info *command, *previous = NULL;
	unsigned int n = 0;

	(void)state;
	for (command = command_next(NULL); command; command = command_next(command)) {
		assert_ptr_equal(command_find(command->name, strlen(command->name)), command);
		assert_null(strchr(command->name, '|'));
		assert_true(!previous || strcmp(previous->name, command->name) < 0);
		assert_true(command->resp2 && command->resp3);
		previous = command;
		n++;
	}
	assert_true(n > 250);
}

static void test_fits(void **state)
{
	(void)state;
	answers("GET k", 2, "-$");
	answers("get k", 3, "-$_");
	answers("GET k", 0, "-$_");
	answers("HGETALL k", 2, "-*");
	answers("HGETALL k", 3, "-%");
	answers("HGETALL k", 0, "-*%");
	answers("ZSCORE k m", 3, "-,_");
	answers("INCR k", 0, "-:");
	answers("SUBSCRIBE x", 3, "->");
	answers("PING", 2, "+-$*");
	answers("EVAL x 0", 3, EVERYTHING);
	answers("JSON.GET k", 2, EVERYTHING);
	answers("\"get\\x00x\" k", 2, EVERYTHING);
	assert_false(fits("GET k", '\0', 2));
	assert_false(fits("GET k", 'O', 2));
}

static void test_subcommands(void **state)
{
	(void)state;
	answers("CONFIG GET *", 3, "-%");
	answers("config SET a b", 3, "+-");
	answers("CLIENT LIST", 3, "-=");
	answers("CLIENT ID", 0, "-:");
	answers("COMMAND", 2, "-:*");
	answers("COMMAND COUNT", 2, "-:");
	answers("CLIENT NOSUCH", 2, EVERYTHING);
	answers("CLIENT \"\"", 2, EVERYTHING);
	answers("CLIENT \"LIST\\x00\"", 2, EVERYTHING);
	answers("CLIENT aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 2, EVERYTHING);
	/* A command that is no container has no subcommands, whatever its argument is called. */
	answers("GET LIST", 2, "-$");
}

/* A name that was cut is not known. */
static void test_cut(void **state)
{
	struct argv a = { .argc = 2, .n = 2 };

	(void)state;
	a.arg[0] = (struct argv_arg){ "GET", 3, 300 };
	a.arg[1] = (struct argv_arg){ "k", 1, 1 };
	assert_true(reply_fits_command(&a, '*', 2));
	a.arg[0] = (struct argv_arg){ "CLIENT", 6, 6 };
	a.arg[1] = (struct argv_arg){ "LIST", 4, 400 };
	assert_true(reply_fits_command(&a, '*', 2));
	a.n = 0;
	assert_true(reply_fits_command(&a, '*', 2));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_find),        cmocka_unit_test(test_all), cmocka_unit_test(test_fits),
		cmocka_unit_test(test_subcommands), cmocka_unit_test(test_cut),
	};

	return cmocka_run_group_tests_name("commands", tests, NULL, NULL);
}
