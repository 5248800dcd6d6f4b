/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* --check's report, as JSON and in words. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "user/cli/check_report.h"

static struct check_report report;
static char output[64 * 1024];

static const struct check_cost tracepoint = {
	.key = "cost_per_io_ns",
	.where = "each read and each write of a plain connection",
	.probe = "raw_tracepoint",
	.timing = { .least = 140, .low = 144, .median = 148, .high = 175 },
};
static const struct check_cost dispatch = {
	.key = "cost_per_command_ns",
	.where = "each command, on the main thread",
	.probe = "uprobe_session at entry and return, single-stepped",
	.timing = { .least = 9900, .low = 10000, .median = 10123, .high = 10400 },
};

static int setup(void **state)
{
	(void)state;
	memset(&report, 0, sizeof(report));
	report.would_attach = true;
	report.mode = (struct attach_mode){ .attach = ATTACH_SESSION, .tap = TAP_CHOICE_SOCKET, .dispatch = true };
	report.cost[0] = tracepoint;
	report.cost[1] = dispatch;
	report.costs = 2;
	strcpy(report.cost_source, "measured just now");
	return 0;
}

static const char *written(int fd)
{
	ssize_t len = pread(fd, output, sizeof(output) - 1, 0);

	assert_true(len > 0);
	output[len] = '\0';
	return output;
}

static const char *as_json(void)
{
	int fd = memfd_create("check", MFD_CLOEXEC);
	struct sink sink;

	sink_init(&sink, fd);
	assert_int_equal(check_write_json(&report, &sink), 0);
	written(fd);
	close(fd);
	return output;
}

static const char *as_text(void)
{
	int fd = memfd_create("check", MFD_CLOEXEC);
	FILE *out = fdopen(fd, "w");

	assert_non_null(out);
	assert_int_equal(check_write_text(&report, out), 0);
	written(fd);
	fclose(out);
	return output;
}

static void assert_in(const char *text, const char *expected)
{
	if (!strstr(text, expected))
		fail_msg("not there: %s\nin: %s", expected, text);
}

static void assert_not_in(const char *text, const char *unexpected)
{
	if (strstr(text, unexpected))
		fail_msg("there: %s\nin: %s", unexpected, text);
}

static void test_json(void **state)
{
	(void)state;
	assert_in(as_json(), "\"tap\":\"socket\",\"attach\":\"uprobe_session\",\"cost_per_io_ns\":148,"
			     "\"cost_per_command_ns\":10123,\"cost_hits\":["
			     "\"raw_tracepoint 148 ns (144-175): each read and each write of a plain connection\","
			     "\"uprobe_session at entry and return, single-stepped 10123 ns (10000-10400): "
			     "each command, on the main thread\"],"
			     "\"cost_threads\":\"main\",\"cost_source\":\"measured just now\"}\n");
}

static void test_text(void **state)
{
	(void)state;
	assert_in(as_text(),
		  "\ncost          measured just now\n"
		  "              raw_tracepoint 148 ns (144-175): each read and each write of a plain connection\n"
		  "              uprobe_session at entry and return, single-stepped 10123 ns (10000-10400): "
		  "each command, on the main thread\n"
		  "              all on the main thread: there are no IO threads\n"
		  "tap           socket\nattach by     uprobe_session\nwould attach  yes\n");
}

static void test_io_threads(void **state)
{
	(void)state;
	report.io_threads = 3;
	assert_in(as_json(), "\"cost_threads\":\"io\"");
	assert_in(as_text(), "on the IO threads");
}

/* A median of 0 is no measurement: there is no number then. */
static void test_too_busy(void **state)
{
	static const char words[] =
		"raw_tracepoint not measured, this machine is too busy just now: each read and each write of a plain connection";

	(void)state;
	report.cost[0].timing = (struct probe_timing){ .high = 50 };
	assert_in(as_json(), words);
	assert_not_in(output, "cost_per_io_ns");
	assert_in(output, "\"cost_per_command_ns\":10123");
	assert_in(as_text(), words);
	assert_not_in(output, " 0 ns");
}

static void test_not_measured(void **state)
{
	(void)state;
	report.costs = 0;
	report.would_attach = false;
	strcpy(report.reason, "CAP_PERFMON is missing");
	strcpy(report.cost_source, "not measured: replylog would not attach, see the reason");
	assert_in(as_json(), "\"reason\":\"CAP_PERFMON is missing\"");
	assert_in(output, "\"cost_hits\":[],");
	assert_in(output, "\"cost_source\":\"not measured: replylog would not attach, see the reason\"");
	assert_not_in(output, "_ns\"");
	assert_in(as_text(), "\ncost          not measured: replylog would not attach, see the reason\nwould attach  no\n"
			     "reason        CAP_PERFMON is missing\n");
}

/* Paths may hold anything; a terminal takes no orders from them. */
static void test_hostile_path(void **state)
{
	(void)state;
	strcpy(report.listens.item[report.listens.n++], "unix /tmp/\033[2J");
	assert_in(as_text(), "unix /tmp/?[2J\n");
	assert_in(as_json(), "unix /tmp/\\u001b[2J");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_json, setup),         cmocka_unit_test_setup(test_text, setup),
		cmocka_unit_test_setup(test_io_threads, setup),   cmocka_unit_test_setup(test_too_busy, setup),
		cmocka_unit_test_setup(test_not_measured, setup), cmocka_unit_test_setup(test_hostile_path, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
