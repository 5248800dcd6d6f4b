/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "user/server/cluster.h"

/* This process acts as a server: it has the same title, and holds the same files. */

static int temporary(void)
{
	char path[] = "/tmp/test_cluster.XXXXXX";
	int fd = mkstemp(path);

	assert_true(fd >= 0);
	unlink(path); /* redis 8.0, valkey 8.0 and later rename a new nodes.conf over the old one */
	return fd;
}

static void test_no_lock(void **state)
{
	struct flock record = { .l_type = F_WRLCK };
	int fd = temporary(), pair[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_int_equal(cluster_find(getpid()), CLUSTER_NO);
	/* A lock of another kind is not one of a cluster's. */
	assert_int_equal(fcntl(fd, F_SETLK, &record), 0);
	assert_int_equal(cluster_find(getpid()), CLUSTER_NO);
	close(fd);
	close(pair[0]);
	close(pair[1]);
}

static void test_lock(void **state)
{
	int before = temporary(), fd = temporary(), after = temporary();

	(void)state;
	assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
	assert_int_equal(cluster_find(getpid()), CLUSTER_UNKNOWN); /* the lock may be a module's */
	assert_int_equal(flock(fd, LOCK_UN), 0);
	assert_int_equal(cluster_find(getpid()), CLUSTER_NO);
	close(before);
	close(fd);
	close(after);
}

static char self[4096];

/* Runs a child that executes this program again with a cluster server's title. Returns what cluster_find() says about it. */
static enum cluster child(const char *how)
{
	int said[2], told[2];
	enum cluster cluster;
	char ready;
	pid_t pid;

	assert_int_equal(pipe2(said, O_CLOEXEC), 0);
	assert_int_equal(pipe2(told, O_CLOEXEC), 0);
	pid = fork();
	if (!pid) {
		dup2(told[0], STDIN_FILENO);
		dup2(said[1], STDOUT_FILENO);
		execl(self, "valkey-server 127.0.0.1:6379 [cluster]", how, (char *)NULL);
		_exit(1);
	}
	close(said[1]);
	assert_int_equal(read(said[0], &ready, 1), 1);
	cluster = cluster_find(pid);
	close(told[0]);
	close(told[1]);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	close(said[0]);
	return cluster;
}

/* The child waits here until the test ends it. */
static int be_a_server(bool locks)
{
	int fd = temporary();
	char none;

	if (locks && flock(fd, LOCK_EX | LOCK_NB))
		return 1;
	return write(STDOUT_FILENO, "", 1) != 1 || read(STDIN_FILENO, &none, 1);
}

static void test_title(void **state)
{
	(void)state;
	assert_int_equal(child("locks"), CLUSTER_YES);
	assert_int_equal(child("title"), CLUSTER_UNKNOWN);
}

static void test_gone(void **state)
{
	pid_t pid = fork();

	(void)state;
	if (!pid)
		_exit(0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(cluster_find(pid), CLUSTER_UNKNOWN);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_lock),
		cmocka_unit_test(test_lock),
		cmocka_unit_test(test_title),
		cmocka_unit_test(test_gone),
	};
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (argc > 1)
		return be_a_server(argv[1][0] == 'l');
	if (n < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
