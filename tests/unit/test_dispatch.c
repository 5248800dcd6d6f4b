/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Which execution belongs to a reply (dispatch.h). Execution number n takes n + 1 ns here, so its time identifies it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "engine_host.h"

#define CMD(len, name) "*1\r\n$" len "\r\n" name "\r\n"
#define PING CMD("4", "PING")
#define MULTI CMD("5", "MULTI")
#define EXEC CMD("4", "EXEC")
#define DISCARD CMD("7", "DISCARD")
#define OK "+OK\r\n"
#define PONG "+PONG\r\n"
#define QUEUED "+QUEUED\r\n"
#define ERROR "-ERR no\r\n"
#define LARGE "$16\r\nxxxxxxxxxxxxxxxx\r\n"

static struct host_conn *connect_probed(__u64 threshold)
{
	host_reset(threshold, 4);
	host.dispatch = true;
	return host_connect();
}

/* The server reads commands; as in engine_read(). */
static void ask(struct host_conn *c, const char *commands)
{
	if (argv_idle(&c->conn))
		dispatch_align(&c->conn);
	assert_int_equal(host_read(c, commands, strlen(commands)), REQUEST_OK);
}

static void answer(struct host_conn *c, const char *replies)
{
	assert_int_equal(host_write(c, replies, strlen(replies)), REPLY_OK);
}

static void begin(void)
{
	host.dispatches.done[host.dispatches.count++ % DISPATCHES].exec_ns = 0;
}

static void end(void)
{
	host.dispatches.done[(host.dispatches.count - 1) % DISPATCHES].exec_ns = host.dispatches.count;
}

static void execute(int times)
{
	while (times--) {
		begin();
		host.dispatches.done[(host.dispatches.count - 1) % DISPATCHES].inner = 0;
		end();
	}
}

/* EXEC executes this many commands, which take 1001 ns and more. */
static void execute_inside(__u32 times)
{
	begin();
	host.dispatches.inner_of = host.dispatches.count - 1;
	host.dispatches.done[host.dispatches.inner_of % DISPATCHES].inner = times;
	for (__u32 i = 0; i < times && i < DISPATCHES_INNER; i++)
		host.dispatches.inner[i].exec_ns = 1001 + i;
	end();
}

#define assert_times(...)                                                       \
	do {                                                                    \
		const __u64 times[] = { __VA_ARGS__ };                          \
		assert_int_equal(host_count, sizeof(times) / sizeof(times[0])); \
		for (size_t i = 0; i < host_count; i++)                         \
			assert_int_equal(host_records[i].exec_ns, times[i]);    \
	} while (0)

static void test_in_order(void **state)
{
	struct host_conn *c = connect_probed(0);

	(void)state;
	execute(3); /* before the connection was joined */
	ask(c, PING PING PING);
	execute(3);
	answer(c, PONG PONG PONG);
	ask(c, PING);
	execute(1);
	answer(c, PONG);
	assert_times(4, 5, 6, 7);
	free(c);
}

/* By a server that doesn't mark it. */
static void test_executed_twice(void **state)
{
	struct host_conn *c = connect_probed(0);

	(void)state;
	ask(c, PING PING PING);
	execute(4); /* the first one twice, without a mark */
	answer(c, PONG);
	assert_false(dispatch_in_step(&c->conn));
	answer(c, PONG PONG);
	assert_times(1, 2, 0); /* the last reply shows it; the ones before it were uncertain until then */
	assert_int_equal(host.disagreed, 1);
	assert_false(dispatch_in_step(&c->conn));
	ask(c, PING);
	execute(1);
	answer(c, PONG);
	assert_true(dispatch_in_step(&c->conn));
	assert_times(1, 2, 0, 5);
	free(c);
}

/* Nothing else is outstanding, so one execution too many shows at once. */
static void test_alone_and_executed_twice(void **state)
{
	struct host_conn *c = connect_probed(0);

	(void)state;
	ask(c, PING);
	execute(2);
	answer(c, PONG);
	ask(c, PING);
	execute(1);
	answer(c, PONG);
	assert_times(0, 3);
	assert_int_equal(host.disagreed, 1);
	free(c);
}

/* The number of executions is right at every point, also where numbers start again at 0. */
static void test_in_step(void **state)
{
	const __u32 begins[] = { 0, 7, 0xffffffff, 0xfffffffd };

	(void)state;
	for (size_t i = 0; i < sizeof(begins) / sizeof(begins[0]); i++) {
		struct host_conn *c = connect_probed(0);

		host.dispatches.count = begins[i];
		assert_false(dispatch_in_step(&c->conn)); /* nothing is known yet */
		ask(c, PING MULTI PING PING EXEC PING);
		assert_int_equal(host.dispatches.settled, begins[i]);
		assert_false(dispatch_in_step(&c->conn));
		execute(2);
		execute_inside(2);
		execute(1);
		answer(c, PONG OK QUEUED);
		assert_false(dispatch_in_step(&c->conn)); /* one more command turns out to be queued later */
		answer(c, QUEUED "*2\r\n" PONG PONG PONG);
		assert_true(dispatch_in_step(&c->conn));
		ask(c, PING);
		assert_int_equal(host.dispatches.settled, host.dispatches.count);
		assert_false(dispatch_in_step(&c->conn));
		execute(1);
		assert_true(dispatch_in_step(&c->conn));
		answer(c, PONG);
		assert_true(dispatch_in_step(&c->conn));
		execute(1);
		assert_false(dispatch_in_step(&c->conn));
		ask(c, PING);
		execute(1);
		answer(c, ERROR);
		assert_true(dispatch_in_step(&c->conn)); /* it was executed or not: one execution or none */
		execute(1);
		assert_false(dispatch_in_step(&c->conn));
		ask(c, PING PING PING);
		execute(1);
		answer(c, PONG ERROR ERROR);
		assert_true(dispatch_in_step(&c->conn));
		ask(c, PING PING PING);
		execute(1);
		answer(c, PONG PONG ERROR);
		assert_false(dispatch_in_step(&c->conn));
		free(c);
	}
}

/* Until nothing is outstanding, nobody can tell whether the failing command was executed. */
static void test_error(void **state)
{
	struct host_conn *c = connect_probed(0);

	(void)state;
	ask(c, PING PING PING);
	execute(2);
	answer(c, PONG ERROR PONG);
	ask(c, PING);
	execute(1);
	answer(c, PONG);
	assert_times(1, 0, 0, 3);
	free(c);
}

/* The framer takes several small replies at once, and must not miss their errors. */
static void test_error_among_small_ones(void **state)
{
	const char *const small[] = { OK ERROR, ERROR OK, OK OK, "!5\r\nERR x\r\n" OK, "|1\r\n+a\r\n+b\r\n" ERROR OK };
	const __u64 time[] = { 0, 0, 3, 0, 0 };

	(void)state;
	for (size_t i = 0; i < sizeof(small) / sizeof(small[0]); i++) {
		struct host_conn *c = connect_probed(16);

		ask(c, PING PING PING);
		execute(3);
		answer(c, small[i]);
		host_count = 0;
		answer(c, LARGE);
		assert_times(time[i]);
		free(c);
	}
}

static void test_transaction(void **state)
{
	struct host_conn *c = connect_probed(0);

	(void)state;
	ask(c, PING MULTI PING PING EXEC PING);
	execute(2);
	execute_inside(2);
	execute(1);
	answer(c, PONG OK QUEUED QUEUED "*2\r\n" PONG PONG PONG);
	assert_times(1, 2, 0, 0, 1001, 1002, 4);
	free(c);
}

static void test_exec_as_a_whole(void **state)
{
	struct host_conn *c = connect_probed(16);

	(void)state;
	ask(c, MULTI PING PING PING EXEC);
	execute(1);
	execute_inside(3);
	answer(c, OK QUEUED QUEUED QUEUED "*3\r\n" PONG PONG PONG);
	assert_times(2);
	free(c);
}

static void test_discarded(void **state)
{
	struct host_conn *c = connect_probed(0);

	(void)state;
	ask(c, MULTI PING DISCARD PING);
	execute(3);
	answer(c, OK QUEUED OK PONG);
	assert_times(1, 0, 2, 3);
	free(c);
}

/* A command that ACL refuses inside EXEC has an error as its element. The other elements are unaffected. */
static void test_refused_inside_exec(void **state)
{
	struct host_conn *c = connect_probed(0);

	(void)state;
	ask(c, MULTI PING PING EXEC PING);
	execute(1);
	execute_inside(1);
	execute(1);
	answer(c, OK QUEUED QUEUED "*2\r\n" ERROR PONG PONG);
	assert_times(1, 0, 0, 0, 0, 3);
	free(c);
}

static void test_many_inside_exec(void **state)
{
	struct host_conn *c = connect_probed(0);
	int i;

	(void)state;
	ask(c, MULTI);
	execute(1);
	answer(c, OK);
	for (i = 0; i < DISPATCHES_INNER + 1; i++) {
		ask(c, PING);
		answer(c, QUEUED);
	}
	ask(c, EXEC);
	execute_inside(DISPATCHES_INNER + 1);
	host_count = 0;
	answer(c, "*17\r\n");
	for (i = 0; i < DISPATCHES_INNER + 1; i++)
		answer(c, PONG);
	assert_int_equal(host_count, DISPATCHES_INNER + 1);
	for (i = 0; i < DISPATCHES_INNER + 1; i++)
		assert_int_equal(host_records[i].exec_ns, i < DISPATCHES_INNER ? 1001 + i : 0);
	free(c);
}

/* replylog keeps only the last executions. */
static void test_deep_pipeline(void **state)
{
	struct host_conn *c = connect_probed(0);
	int i;

	(void)state;
	for (i = 0; i < DISPATCHES + 2; i++)
		ask(c, PING);
	execute(DISPATCHES + 2);
	for (i = 0; i < DISPATCHES + 2; i++)
		answer(c, PONG);
	assert_int_equal(host_count, DISPATCHES + 2);
	for (i = 0; i < DISPATCHES + 2; i++)
		assert_int_equal(host_records[i].exec_ns, i < 2 ? 0 : i + 1);
	free(c);
}

static void test_not_done(void **state)
{
	struct host_conn *c = connect_probed(0);

	(void)state;
	ask(c, PING PING);
	execute(1);
	begin();
	answer(c, PONG PONG);
	assert_times(1, 0);
	free(c);
}

/* A reply without an execution must not take another's. */
static void test_not_executed(void **state)
{
	struct host_conn *c = connect_probed(0);

	(void)state;
	execute(1);
	ask(c, PING);
	answer(c, PONG);
	assert_times(0);
	free(c);
}

/* The client disconnects while the server sends the reply. */
static void test_cut_off(void **state)
{
	struct host_conn *c = connect_probed(0);

	(void)state;
	ask(c, PING PING);
	execute(2);
	answer(c, PONG "$16\r\nxxxx");
	assert_true(attribution_closes(&c->conn, &c->work));
	assert_times(1, 2);
	free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_in_order),
		cmocka_unit_test(test_executed_twice),
		cmocka_unit_test(test_alone_and_executed_twice),
		cmocka_unit_test(test_in_step),
		cmocka_unit_test(test_error),
		cmocka_unit_test(test_error_among_small_ones),
		cmocka_unit_test(test_transaction),
		cmocka_unit_test(test_exec_as_a_whole),
		cmocka_unit_test(test_discarded),
		cmocka_unit_test(test_refused_inside_exec),
		cmocka_unit_test(test_many_inside_exec),
		cmocka_unit_test(test_deep_pipeline),
		cmocka_unit_test(test_not_done),
		cmocka_unit_test(test_not_executed),
		cmocka_unit_test(test_cut_off),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
