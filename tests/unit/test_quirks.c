/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "user/server/quirks.h"

static const struct {
	const char *version;
	bool silent, confuse, in_parts;
} cases[] = {
	{ "redis 6.0.16", false, false, true },
	{ "redis 7.0.15", false, false, true },
	{ "redis 7.2.7", true, false, true },
	{ "redis 8.0.2", true, false, false },
	{ "redis 8.6.3", true, false, false },
	{ "valkey 7.2.7", true, false, true },
	{ "valkey 8.0.1", true, true, false },
	{ "valkey 8.1.1", true, true, false },
	{ "valkey 9.0.0", false, true, false },
	{ "valkey 9.1.2", false, false, false },
	{ "valkey 10.0.0", false, false, false },
	/* An unknown version may have any quirk. */
	{ "valkey", true, true, true },
	{ "", true, true, true },
	{ "keydb 6.3.4", true, true, true },
};

static void test_versions(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		if (quirk_auth_is_silent(cases[i].version) != cases[i].silent)
			fail_msg("AUTH of %s", cases[i].version);
		if (quirk_blank_lines_confuse(cases[i].version) != cases[i].confuse)
			fail_msg("blank lines of %s", cases[i].version);
		if (quirk_hello_in_parts(cases[i].version) != cases[i].in_parts)
			fail_msg("HELLO of %s", cases[i].version);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_versions) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
