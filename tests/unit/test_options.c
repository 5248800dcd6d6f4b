/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "user/cli/options.h"

#define ARGS_MAX 80
#define PERCENT " is not a percentage: use 0.1 to 100, with at most one decimal digit"

/* Returns what options_parse wrote to a standard stream, which leads to a file meanwhile. */
struct capture {
	FILE *file, *stream;
	int saved;
	char text[4096];
};

static void capture_begin(struct capture *c, FILE *stream)
{
	c->stream = stream;
	c->file = tmpfile();
	assert_non_null(c->file);
	fflush(stream);
	c->saved = dup(fileno(stream));
	dup2(fileno(c->file), fileno(stream));
}

static void capture_end(struct capture *c)
{
	size_t len;

	fflush(c->stream);
	dup2(c->saved, fileno(c->stream));
	close(c->saved);
	rewind(c->file);
	len = fread(c->text, 1, sizeof(c->text) - 1, c->file);
	c->text[len] = '\0';
	fclose(c->file);
}

/*
 * words: the command line after the program's name, separated by single spaces ("" between two is an empty
 * word).
 */
static enum options_result parse(const char *words, struct options *o, struct capture *out, struct capture *err)
{
	char line[512], *argv[ARGS_MAX] = { "replylog" }, *p = line, *word;
	enum options_result result;
	int argc = 1;

	snprintf(line, sizeof(line), "%s", words);
	while (*words && (word = strsep(&p, " ")))
		argv[argc++] = word;
	capture_begin(out, stdout);
	capture_begin(err, stderr);
	result = options_parse(argc, argv, o);
	capture_end(err);
	capture_end(out);
	return result;
}

static struct options accepts(const char *words)
{
	struct capture out, err;
	struct options o;

	assert_int_equal(parse(words, &o, &out, &err), OPTIONS_RUN);
	assert_string_equal(out.text, "");
	assert_string_equal(err.text, "");
	return o;
}

/* One line, exactly this one. */
static void refuses(const char *words, const char *message)
{
	struct capture out, err;
	char line[256];
	struct options o;

	assert_int_equal(parse(words, &o, &out, &err), OPTIONS_BAD);
	assert_int_equal(OPTIONS_BAD, 2);
	assert_string_equal(out.text, "");
	snprintf(line, sizeof(line), "replylog: %s\n", message);
	assert_string_equal(err.text, line);
}

static void test_defaults(void **state)
{
	struct options o = accepts("-p 1234");

	(void)state;
	assert_int_equal(o.n_selectors, 1);
	assert_int_equal(o.selectors[0].kind, SELECT_PID);
	assert_int_equal(o.selectors[0].pid, 1234);
	assert_false(o.follow || o.check || o.json);
	assert_int_equal(o.engine.threshold, 1048576);
	assert_int_equal(o.engine.max_clients, 10000);
	assert_int_equal(o.engine.max_pipeline, 4096);
	assert_int_equal(o.engine.argv_memory, 16777216);
	assert_int_equal(o.engine.ring_size, 8388608);
	assert_int_equal(o.mode.attach, ATTACH_AUTO);
}

static void test_attach(void **state)
{
	(void)state;
	assert_int_equal(accepts("-p 1 --attach auto").mode.attach, ATTACH_AUTO);
	assert_int_equal(accepts("-p 1 --attach session").mode.attach, ATTACH_SESSION);
	assert_int_equal(accepts("-p 1 --attach=multi").mode.attach, ATTACH_MULTI);
	assert_int_equal(accepts("-p 1 --attach perf").mode.attach, ATTACH_PERF);
	refuses("-p 1 --attach kprobe", "--attach: 'kprobe' is not one of its values: use auto, session, multi or perf");
	assert_int_equal(accepts("-p 1").mode.tap, TAP_CHOICE_AUTO);
	assert_int_equal(accepts("-p 1 --tap socket").mode.tap, TAP_CHOICE_SOCKET);
	assert_int_equal(accepts("-p 1 --tap connection").mode.tap, TAP_CHOICE_CONNECTION);
	refuses("-p 1 --tap wire", "--tap: 'wire' is not one of its values: use auto, socket or connection");
	assert_int_equal(accepts("-p 1").argv_from, FROM_REQUEST);
	assert_false(accepts("-p 1 --argv-from request").mode.dispatch);
	assert_int_equal(accepts("-p 1 --argv-from dispatch").argv_from, FROM_DISPATCH);
	assert_true(accepts("-p 1 --argv-from dispatch").mode.dispatch);
	refuses("-p 1 --argv-from reply", "--argv-from: 'reply' is not one of its values: use request or dispatch");
	refuses("-p 1 --attach", "--attach: needs a value: see replylog --help");
}

static void test_all(void **state)
{
	struct options o = accepts("--threshold=0 --max-clients 5 --max-pipeline=16384 --argv-memory 1gb "
				   "--ring-size 1gb --pid 4194304");

	(void)state;
	assert_int_equal(o.selectors[0].pid, 4194304);
	assert_int_equal(o.engine.threshold, 0);
	assert_int_equal(o.engine.max_clients, 5);
	assert_int_equal(o.engine.max_pipeline, 16384);
	assert_int_equal(o.engine.argv_memory, 1073741824);
	assert_int_equal(o.engine.ring_size, 1073741824);
	assert_int_equal(accepts("-p1 -t18446744073709551615").engine.threshold, UINT64_MAX);
	assert_int_equal(accepts("-p 1 -t 1k -t 2k").engine.threshold, 2000);
}

static void test_rounding(void **state)
{
	(void)state;
	assert_int_equal(accepts("-p 1 --ring-size 64kb").engine.ring_size, 65536);
	assert_int_equal(accepts("-p 1 --ring-size 65537").engine.ring_size, 131072);
	assert_int_equal(accepts("-p 1 --ring-size 1m").engine.ring_size, 1048576);
	assert_int_equal(accepts("-p 1 --argv-memory 16kb").engine.argv_memory, 16384);
	assert_int_equal(accepts("-p 1 --argv-memory 16385").engine.argv_memory, 32768);
}

#define NO_SERVER                                                                              \
	"no server is named: use --pid, as in replylog -p $(pidof valkey-server), or --port, " \
	"--unixsocket or --all"

static void test_selectors(void **state)
{
	struct options o = accepts("-p 7 --port 6379 --unixsocket=/run/a.sock --pid=8 --port 65535 --follow");
	char many[512] = "-p 1";

	(void)state;
	assert_int_equal(o.n_selectors, 5);
	assert_int_equal(o.selectors[0].pid, 7);
	assert_int_equal(o.selectors[1].kind, SELECT_PORT);
	assert_int_equal(o.selectors[1].port, 6379);
	assert_int_equal(o.selectors[1].pid, 0);
	assert_int_equal(o.selectors[2].kind, SELECT_UNIXSOCKET);
	assert_int_equal(o.selectors[3].pid, 8);
	assert_int_equal(o.selectors[4].port, 65535);
	assert_true(o.follow);
	o = accepts("--all -f");
	assert_int_equal(o.n_selectors, 1);
	assert_int_equal(o.selectors[0].kind, SELECT_ALL);
	assert_true(o.follow);
	refuses("--all -p 1", "--all: already selects every server: leave out --pid, --port and --unixsocket");
	refuses("--port 1 --all", "--all: already selects every server: leave out --pid, --port and --unixsocket");
	refuses("--port 0", "--port: '0' is out of range: use 1 to 65535");
	refuses("--port 65536", "--port: '65536' is out of range: use 1 to 65535");
	refuses("--port http", "--port: 'http' is not a number: use 1 to 65535");
	refuses("--unixsocket=", "--unixsocket: the path is empty: give the path of the socket");
	refuses("--unixsocket", "--unixsocket: needs a value: see replylog --help");
	refuses("--all=1", "--all: takes no value: see replylog --help");
	for (int i = 1; i < SELECTORS_MAX; i++)
		strcat(many, " -p1");
	assert_int_equal(accepts(many).n_selectors, SELECTORS_MAX);
	refuses(strcat(many, " -p1"), "--pid: more than 64 servers are named: use --all");
}

static void test_check(void **state)
{
	(void)state;
	assert_true(accepts("-p 1 --check").check);
	assert_true(accepts("--all --check --json").json);
	refuses("-p 1 --json", "--json: works only with --check: without --check the output is always JSON");
	refuses("-p 1 --check --follow",
		"--follow: does not work with --check, which looks only once: leave out one of them");
}

static void test_debug(void **state)
{
	(void)state;
	assert_false(accepts("-p 1").engine.debug);
	assert_true(accepts("-p 1 --debug").engine.debug);
	assert_null(accepts("--debug -p 1").debug_file);
	assert_true(accepts("-p 1 --debug=x").engine.debug);
	assert_non_null(accepts("-p 1 --debug=x").debug_file);
	refuses("-p 1 --debug=", "--debug: the path of the file is empty: use --debug, or --debug=FILE");
	refuses("-p 1 --debug x", "'x': replylog takes only options: see replylog --help");
}

static void test_pid(void **state)
{
	(void)state;
	refuses("", NO_SERVER);
	refuses("-t 1mb", NO_SERVER);
	refuses("-p 0", "--pid: '0' is out of range: use 1 to 4194304");
	refuses("-p 4194305", "--pid: '4194305' is out of range: use 1 to 4194304");
	refuses("-p 99999999999999999999", "--pid: '99999999999999999999' is out of range: use 1 to 4194304");
	refuses("-p 4294967297", "--pid: '4294967297' is out of range: use 1 to 4194304");
	refuses("-p -1", "--pid: '-1' is not a number: use 1 to 4194304");
	refuses("-p 1k", "--pid: '1k' is not a number: use 1 to 4194304");
	refuses("-p ", "--pid: '' is not a number: use 1 to 4194304");
	refuses("-p valkey", "--pid: 'valkey' is not a number: use 1 to 4194304");
	refuses("-p", "--pid: needs a value: see replylog --help");
}

static void test_sizes(void **state)
{
	(void)state;
	refuses("-p 1 --threshold 12x", "--threshold: '12x' is not a size: use bytes or 1k, 1kb, 1m, 1mb, 1g, 1gb");
	refuses("-p 1 -t -1", "--threshold: '-1' is not a size: use bytes or 1k, 1kb, 1m, 1mb, 1g, 1gb");
	refuses("-p 1 -t 18446744073709551616",
		"--threshold: '18446744073709551616' does not fit in 64 bits: use a smaller size");
	refuses("-p 1 --ring-size 65535", "--ring-size: '65535' is out of range: use 65536 to 1073741824 bytes");
	refuses("-p 1 --ring-size 2gb", "--ring-size: '2gb' is out of range: use 65536 to 1073741824 bytes");
	refuses("-p 1 --argv-memory 16383", "--argv-memory: '16383' is out of range: use 16384 to 1073741824 bytes");
	refuses("-p 1 --argv-memory 5gb", "--argv-memory: '5gb' is out of range: use 16384 to 1073741824 bytes");
}

static void test_numbers(void **state)
{
	(void)state;
	refuses("-p 1 --max-clients 0", "--max-clients: '0' is out of range: use 1 to 1000000");
	refuses("-p 1 --max-clients 1000001", "--max-clients: '1000001' is out of range: use 1 to 1000000");
	refuses("-p 1 --max-pipeline 16385", "--max-pipeline: '16385' is out of range: use 1 to 16384");
	refuses("-p 1 --max-pipeline 1kb", "--max-pipeline: '1kb' is not a number: use 1 to 16384");
}

static void test_percent(void **state)
{
	(void)state;
	assert_int_equal(accepts("-p 1").engine.max_overhead, 0);
	assert_int_equal(accepts("-p 1 --max-overhead 5").engine.max_overhead, 50);
	assert_int_equal(accepts("-p 1 --max-overhead 0.1").engine.max_overhead, 1);
	assert_int_equal(accepts("-p 1 --max-overhead 99.9").engine.max_overhead, 999);
	assert_int_equal(accepts("-p 1 --max-overhead 100").engine.max_overhead, 1000);
	refuses("-p 1 --max-overhead 0", "--max-overhead: '0'" PERCENT);
	refuses("-p 1 --max-overhead 0.0", "--max-overhead: '0.0'" PERCENT);
	refuses("-p 1 --max-overhead 100.1", "--max-overhead: '100.1'" PERCENT);
	refuses("-p 1 --max-overhead 18446744073709551617", "--max-overhead: '18446744073709551617'" PERCENT);
	refuses("-p 1 --max-overhead 5%", "--max-overhead: '5%'" PERCENT);
	refuses("-p 1 --max-overhead 5.25", "--max-overhead: '5.25'" PERCENT);
	refuses("-p 1 --max-overhead 5.", "--max-overhead: '5.'" PERCENT);
	refuses("-p 1 --max-overhead .5", "--max-overhead: '.5'" PERCENT);
	refuses("-p 1 --max-overhead -1", "--max-overhead: '-1'" PERCENT);
	refuses("-p 1 --max-overhead ", "--max-overhead: ''" PERCENT);
}

static void test_unknown(void **state)
{
	(void)state;
	refuses("-p 1 --bogus", "--bogus: unknown or ambiguous option: see replylog --help");
	refuses("-p 1 --max 5", "--max: unknown or ambiguous option: see replylog --help");
	refuses("-p 1 -x", "-x: unknown option: see replylog --help");
	refuses("-xh", "-x: unknown option: see replylog --help");
	refuses("-p 1 -?", "-?: unknown option: see replylog --help");
	refuses("--help=yes", "--help: takes no value: see replylog --help");
	refuses("-p 1 --max-clients", "--max-clients: needs a value: see replylog --help");
	refuses("-p 1 extra", "'extra': replylog takes only options: see replylog --help");
	refuses("extra -p 1", "'extra': replylog takes only options: see replylog --help");
	refuses("-p 1 -- -t", "'-t': replylog takes only options: see replylog --help");
	refuses("-p 1 line\nbreak", "'line?break': replylog takes only options: see replylog --help");
	refuses("-p 1 aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffgggggggggg",
		"'aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffff...': "
		"replylog takes only options: see replylog --help");
}

static void test_help(void **state)
{
	struct capture out, err;
	struct options o;

	(void)state;
	assert_int_equal(parse("--help", &o, &out, &err), OPTIONS_DONE);
	assert_int_equal(OPTIONS_DONE, 0);
	assert_string_equal(err.text, "");
	assert_non_null(strstr(out.text, "usage: replylog {-p PID | --port N"));
	assert_non_null(strstr(out.text, "  -t, --threshold SIZE "));
	assert_non_null(strstr(out.text, "(default 1mb)"));
	assert_non_null(strstr(out.text, "      --max-pipeline N "));
	assert_non_null(strstr(out.text, "(default 4096)"));
	for (char *line = strtok(out.text, "\n"); line; line = strtok(NULL, "\n"))
		assert_true(strlen(line) <= 110);
	assert_int_equal(parse("-t 12x -h", &o, &out, &err), OPTIONS_BAD);
	assert_int_equal(parse("-h -t 12x", &o, &out, &err), OPTIONS_DONE);
}

static void test_version(void **state)
{
	struct capture out, err;
	struct options o;

	(void)state;
	assert_int_equal(parse("-V", &o, &out, &err), OPTIONS_DONE);
	assert_string_equal(out.text, "replylog unit-test\n");
	assert_string_equal(err.text, "");
}

static void test_stdout_full(void **state)
{
	char *argv[] = { "replylog", "-V", NULL };
	FILE *full = fopen("/dev/full", "w");
	struct capture err;
	struct options o;
	int saved = dup(1);
	enum options_result result;

	(void)state;
	assert_non_null(full);
	fflush(stdout);
	dup2(fileno(full), 1);
	capture_begin(&err, stderr);
	result = options_parse(2, argv, &o);
	capture_end(&err);
	dup2(saved, 1);
	close(saved);
	fclose(full);
	assert_int_equal(result, OPTIONS_BAD);
	assert_string_equal(err.text, "replylog: stdout: No space left on device\n");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_selectors),   cmocka_unit_test(test_check),    cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_attach),      cmocka_unit_test(test_defaults), cmocka_unit_test(test_all),
		cmocka_unit_test(test_rounding),    cmocka_unit_test(test_debug),    cmocka_unit_test(test_pid),
		cmocka_unit_test(test_sizes),       cmocka_unit_test(test_numbers),  cmocka_unit_test(test_percent),
		cmocka_unit_test(test_unknown),     cmocka_unit_test(test_help),     cmocka_unit_test(test_version),
		cmocka_unit_test(test_stdout_full),
	};

	return cmocka_run_group_tests_name("options", tests, NULL, NULL);
}
