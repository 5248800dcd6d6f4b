/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "user/server/listen.h"
#include "user/server/proc.h"

/* This process listens, and reads from the kernel where. */

static int tcp_socket(int family, uint16_t *port)
{
	struct sockaddr_in6 a6 = {
		.sin6_family = AF_INET6,
		.sin6_port = htons(*port),
		.sin6_addr = IN6ADDR_LOOPBACK_INIT,
	};
	struct sockaddr_in a4 = {
		.sin_family = AF_INET,
		.sin_port = htons(*port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	bool v6 = family == AF_INET6;
	socklen_t len = v6 ? sizeof(a6) : sizeof(a4);
	struct sockaddr *a = v6 ? (struct sockaddr *)&a6 : (struct sockaddr *)&a4;
	int fd = socket(family, SOCK_STREAM, 0);

	if (fd < 0 || bind(fd, a, len) || getsockname(fd, a, &len)) {
		if (fd >= 0)
			close(fd);
		return -1;
	}
	*port = ntohs(v6 ? a6.sin6_port : a4.sin_port);
	return fd;
}

static int unix_socket(const char *path, bool listens)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	memcpy(a.sun_path, path, strlen(path));
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	if (listens)
		assert_int_equal(listen(fd, 1), 0);
	return fd;
}

static int ask(endpoint_filter filter, const void *ctx, struct endpoint *out, size_t max)
{
	struct listen_table table = {};
	int n = listen_endpoints(&table, getpid(), filter, ctx, out, max);

	listen_table_free(&table);
	return n;
}

static void test_nothing(void **state)
{
	uint16_t port = 0;
	int fd = tcp_socket(AF_INET, &port);
	struct endpoint out[4];

	(void)state;
	assert_int_equal(ask(NULL, NULL, out, 4), 0); /* a bound socket does not listen yet */
	close(fd);
}

static bool is_port(const struct endpoint *endpoint, pid_t pid, const void *ctx)
{
	return endpoint->port == *(const uint16_t *)ctx;
}

static void test_tcp(void **state)
{
	uint16_t port = 0, other = 0;
	int v4 = tcp_socket(AF_INET, &port), v6, second = tcp_socket(AF_INET, &other);
	struct endpoint out[4];

	(void)state;
	assert_int_equal(listen(v4, 1), 0);
	assert_int_equal(listen(second, 1), 0);
	v6 = tcp_socket(AF_INET6, &port); /* IPv6 may be missing, or the port may be in use */
	if (v6 >= 0)
		assert_int_equal(listen(v6, 1), 0);
	assert_int_equal(ask(NULL, NULL, out, 4), 2);
	assert_int_equal(out[0].port, port);
	assert_int_equal(out[1].port, other);
	assert_string_equal(out[0].path, "");
	assert_int_equal(ask(is_port, &other, out, 4), 1);
	assert_int_equal(out[0].port, other);
	assert_int_equal(ask(NULL, NULL, out, 1), 1);
	close(v4);
	if (v6 >= 0) {
		assert_int_equal(ask(is_port, &port, out, 4), 1);
		close(v6);
	}
	assert_int_equal(ask(is_port, &port, out, 4), 0);
	close(second);
}

static void test_unix(void **state)
{
	char dir[] = "/tmp/replylog-listen-XXXXXX", path[64], link[64], twin[64];
	struct endpoint out[4];
	int fd, bound;

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/with space", dir);
	snprintf(twin, sizeof(twin), "%s/only bound", dir);
	snprintf(link, sizeof(link), "%s/sub", dir);
	fd = unix_socket(path, true);
	bound = unix_socket(twin, false);
	assert_int_equal(ask(NULL, NULL, out, 4), 1);
	assert_int_equal(out[0].port, 0);
	assert_string_equal(out[0].path, path);

	assert_true(endpoint_is_file(&out[0], getpid(), path));
	assert_true(endpoint_is_file(&out[0], 0, path));
	assert_false(endpoint_is_file(&out[0], getpid(), twin));
	assert_false(endpoint_is_file(&out[0], 0, twin));
	assert_int_equal(symlink(".", link), 0);
	snprintf(link, sizeof(link), "%s/sub/with space", dir);
	assert_true(endpoint_is_file(&out[0], getpid(), link));
	/* Another file of the same name. */
	assert_int_equal(unlink(path), 0);
	close(unix_socket(path, true));
	assert_true(endpoint_is_file(&out[0], getpid(), path)); /* the name now leads there for both */
	assert_int_equal(unlink(path), 0);
	assert_true(endpoint_is_file(&out[0], getpid(), path)); /* no such file: the same name */
	assert_false(endpoint_is_file(&out[0], getpid(), "/elsewhere/with space"));
	assert_int_equal(unlink(twin), 0);
	snprintf(link, sizeof(link), "%s/sub", dir);
	unlink(link);
	rmdir(dir);
	close(fd);
	close(bound);
}

static void test_no_process(void **state)
{
	struct listen_table table = {};
	struct endpoint out;
	pid_t child = fork();

	(void)state;
	if (!child)
		_exit(0);
	waitpid(child, NULL, 0);
	assert_true(listen_endpoints(&table, child, NULL, NULL, &out, 1) < 0);
	listen_table_free(&table);
}

/* A name that looks like the rest of the line. */
static void test_proc_stat(void **state)
{
	struct proc_stat parent, child;
	int go[2];
	pid_t pid;

	(void)state;
	prctl(PR_SET_NAME, ") R 1 1 1 (");
	assert_int_equal(proc_stat(getpid(), &parent), 0);
	assert_int_equal(parent.parent, getppid());
	assert_false(parent.forked);
	assert_int_equal(parent.threads, 1);
	assert_true(parent.started > 0);
	assert_int_equal(pipe(go), 0);
	pid = fork();
	if (!pid) {
		char byte;

		close(go[1]);
		_exit(read(go[0], &byte, 1) != 0);
	}
	assert_int_equal(proc_stat(pid, &child), 0);
	assert_int_equal(child.parent, getpid());
	assert_true(child.forked);
	assert_true(child.started >= parent.started);
	close(go[1]);
	close(go[0]);
	waitpid(pid, NULL, 0);
	assert_int_equal(proc_stat(pid, &child), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nothing),    cmocka_unit_test(test_tcp),       cmocka_unit_test(test_unix),
		cmocka_unit_test(test_no_process), cmocka_unit_test(test_proc_stat),
	};

	return cmocka_run_group_tests_name("listen", tests, NULL, NULL);
}
