/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "user/kernel/filtered_child.h"

static int one_more(int n)
{
	return n + 1;
}

/* Acts like a kernel whose return probes make a system call that filters see. */
static int calls_the_kernel(int n)
{
	syscall(SYS_getppid);
	return n + 1;
}

/* Acts like a filter that answers with an error instead of a signal: the call fails. */
static int returns_an_error(int n)
{
	return -EPERM;
}

static int is_killed(int n)
{
	__builtin_trap();
}

static int hangs(int n)
{
	for (;;)
		asm volatile("");
	return n + 1;
}

static int attaches(pid_t child, void *ctx)
{
	*(pid_t *)ctx = child;
	return 0;
}

static int fails(pid_t child, void *ctx)
{
	*(pid_t *)ctx = child;
	return -EPERM;
}

static int kills_it(pid_t child, void *ctx)
{
	return kill(child, SIGKILL) ? -errno : 0;
}

static int open_fds(void)
{
	int count = 0;

	for (int fd = 0; fd < 256; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

/* Returns the outcome. Checks that no child or file is left, and that signals are as before. */
static enum filtered_child try(int (*function)(int), int (*attach)(pid_t, void *), int *err)
{
	pid_t child = 0;
	struct filtered_trial trial = { .function = function, .attach = attach, .ctx = &child };
	int fds = open_fds();
	enum filtered_child outcome = filtered_child_try(&trial, err);
	sigset_t blocked;

	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
	assert_int_equal(open_fds(), fds);
	sigprocmask(SIG_BLOCK, NULL, &blocked);
	assert_false(sigismember(&blocked, SIGTERM));
	return outcome;
}

static void test_survives(void **state)
{
	int err = -1;

	assert_int_equal(try(one_more, attaches, &err), CHILD_SURVIVED);
	assert_int_equal(err, 0);
}

static void test_dies(void **state)
{
	int err = -1;

	assert_int_equal(try(calls_the_kernel, attaches, &err), CHILD_DIED);
	assert_int_equal(try(returns_an_error, attaches, &err), CHILD_DIED);
	assert_int_equal(try(is_killed, attaches, &err), CHILD_DIED);
	assert_int_equal(err, 0);
}

static void test_hangs(void **state)
{
	int err = -1;

	assert_int_equal(try(hangs, attaches, &err), CHILD_DIED);
	assert_int_equal(err, 0);
}

static void test_not_tried(void **state)
{
	int err = 0;

	assert_int_equal(try(calls_the_kernel, fails, &err), CHILD_NOT_TRIED);
	assert_int_equal(err, EPERM);
}

/* Another process's signal looks like a death by the filter, and leads to the same refusal. */
static void test_killed_by_others(void **state)
{
	int err = 0;

	assert_int_not_equal(try(one_more, kills_it, &err), CHILD_SURVIVED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_survives),
		cmocka_unit_test(test_dies),
		cmocka_unit_test(test_hangs),
		cmocka_unit_test(test_not_tried),
		cmocka_unit_test(test_killed_by_others),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
