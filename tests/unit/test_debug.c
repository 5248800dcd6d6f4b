/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* --debug: what BPF says when a framer stops, and the words for it, in which nothing of a client's or server's payload is. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "engine_host.h"

#include "user/output/debug_line.h"

#define SECRET "hunter2"

static struct debug_event lost(void)
{
	return (struct debug_event){
		.client_id = 7,
		.client_addr = { 127, 0, 0, 1 },
		.client_port = 51234,
		.client_family = FAMILY_INET,
		.connection = 3,
		.generation = 1,
		.position = DEBUG_NOWHERE,
		.read_bytes = 60,
		.written_bytes = 1048576,
		.read_seq = 3,
		.reply_seq = 4,
		.from = DEBUG_FOLLOWED,
		.to = DEBUG_UNJOINED,
		.why = WHY_REPLY_UNASKED,
		.exact = 1,
	};
}

static void test_a_line(void **state)
{
	struct debug_event event = lost();
	char text[DEBUG_LINE_TEXT];

	(void)state;
	assert_int_equal(debug_line(text, &event, sizeof(event)), 0);
	assert_string_equal(
		text,
		"client 7 127.0.0.1:51234 (connection 3.1) reply byte 1048576: followed -> unjoined: the server wrote a "
		"reply although no command is outstanding (loss: out_of_step); 3 commands read, 4 replies written; 60 "
		"bytes read, 1048576 bytes written");
}

static void test_the_longest_line(void **state)
{
	struct debug_event event;
	char text[DEBUG_LINE_TEXT];

	(void)state;
	memset(&event, 0xff, sizeof(event));
	event.client_family = FAMILY_INET6;
	event.from = event.to = DEBUG_PASSED_OVER;
	event.exact = 0;
	for (event.why = 0; event.why < WHYS; event.why++)
		for (event.form = 0; event.form < FORMS; event.form++)
			for (event.doubt = 0; event.doubt < DOUBTS; event.doubt++) {
				assert_int_equal(debug_line(text, &event, sizeof(event)), 0);
				assert_null(strstr(text, "(null)"));
				assert_non_null(strstr(text, "; ambiguous"));
			}
}

static void test_no_events_of_ours(void **state)
{
	struct debug_event event = lost(), bad;
	char text[DEBUG_LINE_TEXT];

	(void)state;
	assert_int_equal(debug_line(text, &event, sizeof(event) - 1), -EBADMSG);
	bad = event, bad.why = WHYS;
	assert_int_equal(debug_line(text, &bad, sizeof(bad)), -EBADMSG);
	bad = event, bad.from = DEBUG_STATES;
	assert_int_equal(debug_line(text, &bad, sizeof(bad)), -EBADMSG);
	bad = event, bad.to = DEBUG_STATES;
	assert_int_equal(debug_line(text, &bad, sizeof(bad)), -EBADMSG);
	bad = event, bad.form = FORMS;
	assert_int_equal(debug_line(text, &bad, sizeof(bad)), -EBADMSG);
	bad = event, bad.doubt = DOUBTS;
	assert_int_equal(debug_line(text, &bad, sizeof(bad)), -EBADMSG);
}

/* Any byte may be one of a password, but for those that the protocol is made of. */
static void test_which_bytes_are_shown(void **state)
{
	static const char shown[] = "+-:$*_#,(!=%~>|";
	struct debug_event event = lost();
	char text[DEBUG_LINE_TEXT], quoted[4];

	(void)state;
	event.why = WHY_REPLY_REFUSED;
	event.has_seen = 1;
	for (int c = 0; c < 256; c++) {
		event.seen = (__u8)c;
		assert_int_equal(debug_line(text, &event, sizeof(event)), 0);
		snprintf(quoted, sizeof(quoted), "'%c'", c);
		if (c && strchr(shown, c))
			assert_non_null(strstr(text, quoted));
		else if (c == '\r' || c == '\n')
			assert_non_null(strstr(text, "begins with a line end"));
		else
			assert_non_null(strstr(text, "(not shown)"));
	}
}

static const struct {
	const char *request, *reply;
	enum debug_form form;
	int seen; /* -1: the framer stopped at the end */
	__u64 position;
} refused[] = {
	{ "*x\r\n", NULL, FORM_REQUEST_ARGC, '*', 0 },
	{ "*-9z\r\n", NULL, FORM_REQUEST_ARGC, '*', 0 },
	{ "*00\r\n", NULL, FORM_REQUEST_ARGC, '*', 0 },
	{ "*2\r\n$4\r\nAUTH\r\n" SECRET "\r\n", NULL, FORM_REQUEST_ARGUMENT, 'h', 14 },
	{ "*2\r\n$4\r\nAUTH\r\n$" SECRET "\r\n", NULL, FORM_REQUEST_LENGTH, '$', 14 },
	{ "AUTH " SECRET "\1\r\n", NULL, FORM_REQUEST_CONTROL, -2, 0 },
	{ NULL, "?stray\r\n", FORM_REPLY_HEADER, '?', 0 },
	{ NULL, "?12\r\n", FORM_REPLY_TYPE, -2, 0 },
	{ NULL, "$" SECRET "\r\n", FORM_REPLY_HEADER, '$', 0 },
	{ NULL, "$?\r\n", FORM_REPLY_HEADER, '$', 0 },
	{ NULL, "*2\r\n+a\r\nb\r\n", FORM_REPLY_HEADER, 'b', 8 },
};

static void test_what_framers_refuse(void **state)
{
	char text[DEBUG_LINE_TEXT];

	(void)state;
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		const char *request = refused[i].request, *reply = refused[i].reply;
		struct host_conn *c = host_connect();

		host_reset(0, 4);
		if (request) {
			assert_int_equal(host_read(c, request, strlen(request)), REQUEST_MALFORMED);
			debug_stops(&c->conn, &c->work, WHY_REQUEST_REFUSED, DEBUG_DRAINING, c->conn.read_bytes);
		} else {
			assert_int_equal(host_read(c, "*1\r\n$4\r\nPING\r\n", 14), REQUEST_OK);
			assert_int_equal(host_write(c, reply, strlen(reply)), REPLY_MALFORMED);
			debug_stops(&c->conn, &c->work, WHY_REPLY_REFUSED, DEBUG_UNJOINED, c->conn.written_bytes);
		}
		assert_int_equal(host_debug.last.from, DEBUG_FOLLOWED);
		assert_int_equal(host_debug.last.to, request ? DEBUG_DRAINING : DEBUG_UNJOINED);
		if (host_debug.last.form != refused[i].form)
			fail_msg("%zu: form is %d", i, host_debug.last.form);
		if (refused[i].seen != -2) {
			assert_int_equal(host_debug.last.seen, refused[i].seen);
			assert_int_equal(host_debug.last.position, refused[i].position);
		}
		assert_int_equal(debug_line(text, &host_debug.last, sizeof(host_debug.last)), 0);
		assert_null(strstr(text, SECRET));
		assert_null(strstr(text, "'h'"));
		free(c);
	}
}

/* Out of step: the position is where the surplus reply begins. */
static void test_a_reply_too_many(void **state)
{
	struct host_conn *c = host_connect();

	(void)state;
	host_reset(0, 4);
	assert_int_equal(host_read(c, "*1\r\n$4\r\nPING\r\n", 14), REQUEST_OK);
	assert_int_equal(host_write(c, "+PONG\r\n+PONG\r\n", 14), REPLY_UNASKED);
	debug_stops(&c->conn, &c->work, WHY_REPLY_UNASKED, DEBUG_UNJOINED, c->conn.written_bytes);
	assert_int_equal(host_debug.last.why, WHY_REPLY_UNASKED);
	assert_int_equal(host_debug.last.position, 7);
	assert_int_equal(host_debug.last.read_seq, 1);
	assert_int_equal(host_debug.last.reply_seq, 1);
	assert_int_equal(host_debug.last.seen, '+');
	free(c);
}

static void test_a_connection_begins(void **state)
{
	struct host_conn *c = host_connect();

	(void)state;
	c->conn.mode = MODE_ACCEPTED;
	debug_notes(&c->conn, WHY_ACCEPTED);
	assert_int_equal(host_debug.last.from, DEBUG_UNKNOWN);
	assert_int_equal(host_debug.last.to, DEBUG_ACCEPTED);
	debug_moves(&c->conn, WHY_FIRST_READ, DEBUG_FOLLOWED, 0);
	assert_int_equal(host_debug.last.from, DEBUG_ACCEPTED);
	assert_int_equal(host_debug.last.to, DEBUG_FOLLOWED);
	free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_line),
		cmocka_unit_test(test_the_longest_line),
		cmocka_unit_test(test_no_events_of_ours),
		cmocka_unit_test(test_which_bytes_are_shown),
		cmocka_unit_test(test_what_framers_refuse),
		cmocka_unit_test(test_a_reply_too_many),
		cmocka_unit_test(test_a_connection_begins),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
