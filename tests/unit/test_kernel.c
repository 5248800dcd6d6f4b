/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernel.h"

/* The releases on which a return probe kills a server under a seccomp filter, and their neighbours. */
static void test_uretprobe_and_seccomp(void **state)
{
	static const char *const deadly[] = { "6.11.0", "6.11.11-amd64", "6.12.0", "6.12.13", "6.12.9-1-generic", "6.13.0-rc3",
					      "6.13.2+" };
	static const char *const fine[] = { "5.15.0", "6.1.0-30-amd64", "6.10.14", "6.12.14", "6.12.117", "6.13.3", "6.14.0-rc1",
					    "6.18.44-fc-v445", "7.11.0", "16.11.0", "", "6", "x.y" };
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(deadly) / sizeof(deadly[0]); i++)
		if (!kernel_uretprobe_kills_seccomp(deadly[i], "x86_64"))
			fail_msg("%s was let through", deadly[i]);
	for (i = 0; i < sizeof(fine) / sizeof(fine[0]); i++)
		if (kernel_uretprobe_kills_seccomp(fine[i], "x86_64"))
			fail_msg("%s was refused", fine[i]);
	/* The system call that the filter does not know is x86-64's alone. */
	for (i = 0; i < sizeof(deadly) / sizeof(deadly[0]); i++)
		if (kernel_uretprobe_kills_seccomp(deadly[i], "aarch64"))
			fail_msg("%s was refused on arm64", deadly[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_uretprobe_and_seccomp) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
