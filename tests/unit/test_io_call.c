/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Recognises calls of the connection layer that another such call makes, and takes no other call for one. */
#include <linux/types.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bpf/tap/io_call.h"

#define CONN 0x1000
#define SP 0x7000

static char first[100], second[200], elsewhere[300];
static const struct server_iovec iov[] = {
	{ (unsigned long)first, sizeof(first) },
	{ (unsigned long)second, sizeof(second) },
};

static struct io_call writev_of(__u64 buffers)
{
	return (struct io_call){ .op = IO_WRITEV, .conn = CONN, .addr = (unsigned long)iov, .len = buffers, .sp = SP };
}

static bool hands_over(struct io_call *outer, const void *bytes, __u64 len)
{
	return io_call_hands_over(outer, IO_WRITE, CONN, (unsigned long)bytes, len, SP - 64);
}

static void test_one_by_one(void **state)
{
	struct io_call outer = writev_of(2);

	(void)state;
	assert_true(hands_over(&outer, first, sizeof(first)));
	assert_true(hands_over(&outer, second, sizeof(second)));
}

static void test_copied_together(void **state)
{
	struct io_call outer = writev_of(2);

	(void)state;
	assert_true(hands_over(&outer, elsewhere, sizeof(first) + sizeof(second)));
}

static void test_jump(void **state)
{
	struct io_call outer = writev_of(1);

	(void)state;
	assert_true(io_call_hands_over(&outer, IO_WRITE, CONN, (unsigned long)first, sizeof(first), SP));
}

/* replylog misses the return of each of these. The next write is a separate one. */
static void test_missed_return(void **state)
{
	struct io_call all = writev_of(2), some = writev_of(2), copy = writev_of(2), jump = writev_of(1);

	(void)state;
	hands_over(&all, first, sizeof(first));
	hands_over(&all, second, sizeof(second));
	assert_false(hands_over(&all, second, sizeof(second)));
	hands_over(&some, first, sizeof(first));
	assert_false(hands_over(&some, elsewhere, sizeof(elsewhere)));
	assert_false(hands_over(&some, second, sizeof(second) - 1));
	hands_over(&copy, elsewhere, sizeof(elsewhere));
	assert_false(hands_over(&copy, elsewhere, sizeof(elsewhere)));
	hands_over(&jump, first, sizeof(first));
	assert_false(hands_over(&jump, first, sizeof(first)));
}

static void test_others(void **state)
{
	struct io_call outer = writev_of(2), write = { .op = IO_WRITE, .conn = CONN, .sp = SP };
	__u64 addr = (unsigned long)first;

	(void)state;
	assert_false(io_call_hands_over(&outer, IO_READ, CONN, addr, sizeof(first), SP - 64));
	assert_false(io_call_hands_over(&outer, IO_WRITE, CONN + 16, addr, sizeof(first), SP - 64));
	assert_false(io_call_hands_over(&outer, IO_WRITE, CONN, addr, sizeof(first), SP + 8));
	assert_false(hands_over(&write, first, sizeof(first)));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_by_one),    cmocka_unit_test(test_copied_together), cmocka_unit_test(test_jump),
		cmocka_unit_test(test_missed_return), cmocka_unit_test(test_others),
	};

	return cmocka_run_group_tests_name("call", tests, NULL, NULL);
}
