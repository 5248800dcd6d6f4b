/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "user/cli/size.h"

static void accepts(const char *s, uint64_t expected)
{
	uint64_t bytes = 42;

	assert_int_equal(size_parse(s, &bytes), 0);
	assert_true(bytes == expected);
}

static void refuses(const char *s, int err)
{
	uint64_t bytes = 42;

	assert_int_equal(size_parse(s, &bytes), err);
	assert_true(bytes == 42);
}

static void test_units(void **state)
{
	(void)state;
	accepts("0", 0);
	accepts("1", 1);
	accepts("7b", 7);
	accepts("1k", 1000);
	accepts("1kb", 1024);
	accepts("2m", 2000000);
	accepts("1mb", 1048576);
	accepts("3g", 3000000000);
	accepts("1gb", 1073741824);
	accepts("5GB", 5368709120);
	accepts("1Kb", 1024);
	accepts("1kB", 1024);
	accepts("10B", 10);
	accepts("007k", 7000);
}

static void test_limits(void **state)
{
	(void)state;
	accepts("18446744073709551615", UINT64_MAX);
	refuses("18446744073709551616", -ERANGE);
	refuses("99999999999999999999999999999999999999999999999999999999999999999", -ERANGE);
	accepts("18446744073709551k", 18446744073709551000u);
	refuses("18446744073709552k", -ERANGE);
	accepts("17179869183gb", 18446744072635809792u);
	refuses("17179869184gb", -ERANGE);
	accepts("00000000000000000000000000000000000000000001", 1);
}

static void test_refused(void **state)
{
	static const char *const words[] = {
		"",      " ",
		"b",     "kb",
		"mb",    "-1",
		"+1",    "-",
		" 1",    "1 ",
		"1 kb",  "1k b",
		"1kbb",  "12x",
		"1.5mb", "0x10",
		"1e6",   "1t",
		"1tb",   "1bk",
		"1_000", "\xd9\xa1",
		"1\n",   "1kb\n",
		"nan",   "99999999999999999999x",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		refuses(words[i], -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_units),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_refused),
	};

	return cmocka_run_group_tests_name("size", tests, NULL, NULL);
}
