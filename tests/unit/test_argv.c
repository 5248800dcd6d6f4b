/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "user/output/argv.h"

#define BYTES(s) (s), sizeof(s) - 1

static struct argv a;
static char *copy;

/* Decode from an allocation of exactly len bytes: the address sanitizer sees every read outside. */
static int decode(const char *head, size_t len, bool cut)
{
	free(copy);
	copy = malloc(len ? len : 1);
	memcpy(copy, head, len);
	memset(&a, 0xa5, sizeof(a));
	a.truncated = false;
	return argv_decode(&a, len ? copy : copy + 1, len, cut);
}

static void decodes(const char *head, size_t len, uint64_t argc, unsigned int n, bool truncated)
{
	assert_int_equal(decode(head, len, false), 0);
	assert_int_equal(a.argc, argc);
	assert_int_equal(a.n, n);
	assert_int_equal(a.truncated, truncated);
}

static void refuses(const char *head, size_t len)
{
	assert_int_equal(decode(head, len, false), -EBADMSG);
	assert_int_equal(a.n, 0);
}

static void is_arg(unsigned int i, const char *bytes, size_t len, uint64_t true_len)
{
	assert_true(i < a.n);
	assert_int_equal(a.arg[i].len, len);
	assert_memory_equal(a.arg[i].bytes, bytes, len);
	assert_int_equal(a.arg[i].true_len, true_len);
}

static void inline_is(const char *line, size_t len, const char *first, size_t first_len)
{
	decodes(line, len, 1, 1, false);
	is_arg(0, first, first_len, first_len);
}

static void test_multibulk(void **state)
{
	(void)state;
	decodes(BYTES("*4\r\n$6\r\nLRANGE\r\n$3\r\nbig\r\n$1\r\n0\r\n$2\r\n-1\r\n"), 4, 4, false);
	is_arg(0, BYTES("LRANGE"), 6);
	is_arg(1, BYTES("big"), 3);
	is_arg(2, BYTES("0"), 1);
	is_arg(3, BYTES("-1"), 2);
	decodes(BYTES("*2\r\n$0\r\n\r\n$4\r\n\r\n\0\xff\r\n"), 2, 2, false);
	is_arg(0, "", 0, 0);
	is_arg(1, BYTES("\r\n\0\xff"), 4);
}

static void test_shortened(void **state)
{
	char head[512], payload[ARGV_MAX_ARG_BYTES + 2];
	int len;

	(void)state;
	memset(payload, 'v', sizeof(payload));
	len = snprintf(head, sizeof(head), "*3\r\n$3\r\nSET\r\n!1048576\r\n%.128s$2\r\nNX\r\n", payload);
	decodes(head, (size_t)len, 3, 3, true);
	is_arg(1, payload, 128, 1048576);
	is_arg(2, BYTES("NX"), 2);

	/* Whole on the wire and in the record, but longer than replylog keeps. */
	len = snprintf(head, sizeof(head), "*1\r\n$129\r\n%.129s\r\n", payload);
	decodes(head, (size_t)len, 1, 1, true);
	is_arg(0, payload, 128, 129);
	len = snprintf(head, sizeof(head), "*1\r\n$128\r\n%.128s\r\n", payload);
	decodes(head, (size_t)len, 1, 1, false);
	is_arg(0, payload, 128, 128);

	len = snprintf(head, sizeof(head), "*1\r\n!129\r\n%.128s", payload);
	decodes(head, (size_t)len, 1, 1, true);
	refuses(head, (size_t)len - 1);
	len = snprintf(head, sizeof(head), "*2\r\n!129\r\n%.127s", payload);
	refuses(head, (size_t)len);
	len = snprintf(head, sizeof(head), "*1\r\n!128\r\n%.128s", payload);
	refuses(head, (size_t)len);
}

static size_t many(char *head, size_t size, uint64_t argc, unsigned int present)
{
	size_t len = (size_t)snprintf(head, size, "*%llu\r\n", (unsigned long long)argc);

	for (unsigned int i = 0; i < present; i++)
		len += (size_t)snprintf(head + len, size - len, "$3\r\na%02u\r\n", i);
	return len;
}

static void test_many(void **state)
{
	char head[1024];

	(void)state;
	decodes(head, many(head, sizeof(head), 32, 32), 32, 32, false);
	is_arg(31, BYTES("a31"), 3);
	decodes(head, many(head, sizeof(head), 33, 32), 33, 32, true);
	decodes(head, many(head, sizeof(head), 1000000000000, 32), 1000000000000, 32, true);
	refuses(head, many(head, sizeof(head), 33, 33));
	refuses(head, many(head, sizeof(head), 33, 31));
	refuses(head, many(head, sizeof(head), 3, 4));
	refuses(head, many(head, sizeof(head), 4, 3));
}

static void test_malformed(void **state)
{
	static const char whole[] = "*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n";

	(void)state;
	for (size_t len = 0; len < sizeof(whole) - 1; len++)
		refuses(whole, len);
	refuses(BYTES("*0\r\n"));
	refuses(BYTES("*-1\r\n"));
	refuses(BYTES("*x\r\n"));
	refuses(BYTES("*\r\n"));
	refuses(BYTES("*1\n$3\r\nGET\r\n"));
	refuses(BYTES("*1\r\n$-1\r\n"));
	refuses(BYTES("*1\r\n+OK\r\n"));
	refuses(BYTES("*1\r\n$3\r\nGETxx"));
	refuses(BYTES("*1\r\n$3\r\nGET\rx"));
	refuses(BYTES("*1\r\n$3\r\nGET\r\n\n"));
	refuses(BYTES("*1\r\n$9223372036854775807\r\nGET\r\n"));
	refuses(BYTES("*1\r\n$18446744073709551615\r\nGET\r\n"));
	refuses(BYTES("*1\r\n$18446744073709551619\r\nGET\r\n"));
	refuses(BYTES("*18446744073709551617\r\n$3\r\nGET\r\n"));
	refuses(BYTES("*00000000000000000001\r\n$3\r\nGET\r\n"));
}

static void test_inline(void **state)
{
	(void)state;
	decodes(BYTES("GET key"), 2, 2, false);
	is_arg(0, BYTES("GET"), 3);
	is_arg(1, BYTES("key"), 3);
	decodes(BYTES(" \t\v\fGET \r\n key\t"), 2, 2, false);
	is_arg(1, BYTES("key"), 3);
	inline_is(BYTES("P\vNG"), BYTES("P\vNG"));
	refuses(BYTES(""));
	refuses(BYTES("  \t "));
	/* The line ends at a NUL, as in the server. */
	inline_is(BYTES("PING\0AUTH x"), BYTES("PING"));
	refuses(BYTES("\0PING"));
}

static void test_quotes(void **state)
{
	(void)state;
	inline_is(BYTES("\"a b\""), BYTES("a b"));
	inline_is(BYTES("'a b'"), BYTES("a b"));
	inline_is(BYTES("\"\""), "", 0);
	inline_is(BYTES("''"), "", 0);
	inline_is(BYTES("\"a'b\""), BYTES("a'b"));
	inline_is(BYTES("'a\"b'"), BYTES("a\"b"));
	inline_is(BYTES("\"\\n\\r\\t\\b\\a\\\\\\\"\\q\" "), BYTES("\n\r\t\b\a\\\"q"));
	inline_is(BYTES("\"\\x41\\xfF\\x00\" "), BYTES("A\xff\0"));
	inline_is(BYTES("\"\\x4\\xg1\" "), BYTES("x4xg1"));
	inline_is(BYTES("'it\\'s \\n \\x41' "), BYTES("it's \\n \\x41"));
	inline_is(BYTES("\\x41\\n"), BYTES("\\x41\\n"));
	/* Valkey 9.1 lets quotes open and close inside an argument, and reads AUTH here. */
	inline_is(BYTES("\"AU\"T'H'"), BYTES("AUTH"));
	/* Its escapes must end before the line does. */
	inline_is(BYTES("\"a\\\""), BYTES("a\\"));
	inline_is(BYTES("'a\\'"), BYTES("a\\"));
	inline_is(BYTES("\"\\x41\""), BYTES("A"));
}

static void test_unbalanced(void **state)
{
	(void)state;
	refuses(BYTES("GET \"key"));
	refuses(BYTES("GET 'key"));
	refuses(BYTES("GET \"key'"));
	refuses(BYTES("GET \"key\0\""));
	refuses(BYTES("\""));
	refuses(BYTES("a\"b\"\""));
	refuses(BYTES("\"\\x4"));
	refuses(BYTES("\"\\"));
	refuses(BYTES("\"a\\\"b"));
}

/* One CR does not belong to the line, so the escape before it is at the line's end. */
static void test_line_end(void **state)
{
	(void)state;
	decodes(BYTES("ECHO 'a\\'\r"), 2, 2, false);
	is_arg(1, BYTES("a\\"), 2);
	decodes(BYTES("ECHO \"a\\\"\r"), 2, 2, false);
	is_arg(1, BYTES("a\\"), 2);
	inline_is(BYTES("\"\\x41\"\r"), BYTES("A"));
	inline_is(BYTES("PING\r\r"), BYTES("PING"));
	refuses(BYTES("'a\\'\r\r"));
	refuses(BYTES("\r"));
}

/* Lines that servers read differently. */
static void test_disputed(void **state)
{
	(void)state;
	refuses(BYTES("A\xffUTH secret"));
	refuses(BYTES("SET k \xff"));
	refuses(BYTES("ECHO '\xff'"));
	refuses(BYTES("ECHO \"\\\xff\" "));
	refuses(BYTES("ECHO \"a\"\vb"));
	refuses(BYTES("ECHO 'a'\f"));
	decodes(BYTES("ECHO \"\\xff\""), 2, 2, false);
	is_arg(1, BYTES("\xff"), 1);
	decodes(BYTES("ECHO a\vb \v\"c\" \f"), 3, 3, false);
	is_arg(1, BYTES("a\vb"), 3);
}

static void test_inline_long(void **state)
{
	char line[4096], arg[200];
	size_t len = 0;

	(void)state;
	memset(arg, 'v', sizeof(arg));
	decodes(line, (size_t)snprintf(line, sizeof(line), "SET \"%.128s\"", arg), 2, 2, false);
	is_arg(1, arg, 128, 128);
	decodes(line, (size_t)snprintf(line, sizeof(line), "SET \"%.200s\" x", arg), 3, 3, true);
	is_arg(1, arg, 128, 200);
	is_arg(2, BYTES("x"), 1);
	for (int i = 0; i < 40; i++)
		len += (size_t)snprintf(line + len, sizeof(line) - len, "%d '' ", i);
	decodes(line, len, 80, 32, true);
	is_arg(30, BYTES("15"), 2);
	is_arg(31, "", 0, 0);
	memcpy(line + len, "'", 1);
	refuses(line, len + 1);
	/* The last argument that is kept and the first that is not are longer than the room for them. */
	for (len = 0; len < 62; len += 2)
		memcpy(line + len, "a ", 2);
	len += (size_t)snprintf(line + len, sizeof(line) - len, "%.200s %.200s", arg, arg);
	decodes(line, len, 33, 32, true);
	is_arg(31, arg, 128, 200);
}

/* A line that was cut: the missing part may have had the closing quote and more arguments. */
static void test_inline_cut(void **state)
{
	(void)state;
	assert_int_equal(decode(BYTES("SET key val"), true), 0);
	assert_int_equal(a.argc, 3);
	assert_true(a.truncated);
	is_arg(2, BYTES("val"), 3);
	assert_int_equal(decode(BYTES("SET key \"a b"), true), 0);
	assert_int_equal(a.argc, 3);
	assert_true(a.truncated);
	is_arg(2, BYTES("a b"), 3);
	/* An escape that may be cut is not decoded. */
	for (size_t len = 6; len < 10; len++) {
		assert_int_equal(decode("E \"ab\\x41\"", len, true), 0);
		is_arg(1, BYTES("ab"), 2);
	}
	assert_int_equal(decode(BYTES("E 'a\\'"), true), 0);
	is_arg(1, BYTES("a"), 1);
	assert_int_equal(decode(BYTES("E \"\\x41b"), true), 0);
	is_arg(1, BYTES("Ab"), 2);
	assert_int_equal(decode(BYTES("E ab\\"), true), 0);
	is_arg(1, BYTES("ab\\"), 3);
	/* The NUL, not the cut, ended this line inside its quotes. */
	assert_int_equal(decode(BYTES("SET key \"a\0b"), true), -EBADMSG);
}

static int teardown(void **state)
{
	(void)state;
	free(copy);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_multibulk),  cmocka_unit_test(test_shortened),   cmocka_unit_test(test_many),
		cmocka_unit_test(test_malformed),  cmocka_unit_test(test_inline),      cmocka_unit_test(test_quotes),
		cmocka_unit_test(test_unbalanced), cmocka_unit_test(test_inline_long), cmocka_unit_test(test_inline_cut),
		cmocka_unit_test(test_line_end),   cmocka_unit_test(test_disputed),
	};

	return cmocka_run_group_tests_name("argv", tests, NULL, teardown);
}
