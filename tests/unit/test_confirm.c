/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Records that wait for a check, and the check from outside the server. This process acts as the server: it has a
 * made-up struct client and struct connection, which are read as a server's are. The BPF map of connections is a file
 * in memory.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "user/session/confirm.h"

/* The same struct that BPF fills. */
#include "bpf/conn/connection.h"

#define CONNECTIONS 4
#define MS 1000000ULL
#define WAIT (1000 * MS)

__u64 env_now(void)
{
	return 0;
}

/* The server's structs with the offsets of valkey 8.1, and only the fields that are read. */
struct made_up_client {
	__u64 id, flags, conn, querybuf, qb_pos, reply, bufpos, sentlen, deferred_reply;
	__u32 reqtype, argc;
	__s32 nwritten;
	__u8 io_write_state;
};

struct made_up_list {
	__u64 head, len;
};

struct made_up_node {
	__u64 prev, next, value;
};

struct made_up_block {
	__u64 size, used;
};

#define NODES 66

#define FIELD(type, field)                                                      \
	{                                                                       \
		offsetof(struct type, field), sizeof(((struct type *)0)->field) \
	}
#define NO_FIELD                 \
	{                        \
		LAYOUT_ABSENT, 0 \
	}
#define FLAG_BIT(n)                                                 \
	{                                                           \
		offsetof(struct made_up_client, flags), 1 << (n), 0 \
	}

static const struct client_layout layout = {
	.valid = LAYOUT_TABLE,
	.client_size = sizeof(struct made_up_client),
	.not_plain = { 0x7 },
	.id = FIELD(made_up_client, id),
	.conn = FIELD(made_up_client, conn),
	.querybuf = FIELD(made_up_client, querybuf),
	.qb_pos = FIELD(made_up_client, qb_pos),
	.reqtype = FIELD(made_up_client, reqtype),
	.argc = FIELD(made_up_client, argc),
	.queued = NO_FIELD,
	.bufpos = FIELD(made_up_client, bufpos),
	.reply = FIELD(made_up_client, reply),
	.sentlen = FIELD(made_up_client, sentlen),
	.deferred_reply = FIELD(made_up_client, deferred_reply),
	.io_write_state = FIELD(made_up_client, io_write_state),
	.nwritten = FIELD(made_up_client, nwritten),
	.slot_migration_job = NO_FIELD,
	.flags = FIELD(made_up_client, flags),
	.list_len = FIELD(made_up_list, len),
	.flag[FLAG_BLOCKED] = FLAG_BIT(0),
	.flag[FLAG_PUBSUB] = FLAG_BIT(1),
};

static struct {
	struct sink sink;
	struct stream stream;
	struct client_identities identities;
	struct confirm confirm;
	struct engine_state state;
	struct connection *conn; /* number 2 of the map */
	struct made_up_client client;
	struct made_up_list list, deferred;
	struct made_up_node node[NODES];
	struct made_up_block block[NODES];
	__u64 server_conn[8];
	int out[2], map_fd;
	char sds[16];
} t;

static int setup(void **state)
{
	size_t size = ((sizeof(struct connection) + 7) & ~(size_t)7) * CONNECTIONS;
	struct confirm_setup with = {
		.stream = &t.stream,
		.identities = &t.identities,
		.wait_ns = WAIT,
		.verify = { .layout = &layout,
			    .server = getpid(),
			    .connections = CONNECTIONS,
			    .dispatches_fd = -1,
			    .state = &t.state },
	};

	(void)state;
	memset(&t, 0, sizeof(t));
	assert_int_equal(pipe(t.out), 0);
	fcntl(t.out[0], F_SETFL, O_NONBLOCK);
	sink_init(&t.sink, t.out[1]);
	assert_int_equal(stream_init(&t.stream, &t.sink, 1), 0);
	assert_int_equal(client_identities_init(&t.identities, CONNECTIONS), 0);
	t.stream.identities = &t.identities;
	t.map_fd = with.verify.connections_fd = memfd_create("connections", 0);
	assert_int_equal(ftruncate(t.map_fd, size), 0);
	assert_int_equal(confirm_init(&t.confirm, &with), 0);
	t.conn = (struct connection *)(t.confirm.verifier.connections.entries + 2 * t.confirm.verifier.connections.stride);
	t.state.ready = 1;
	t.conn->key = 1;
	t.conn->mode = MODE_FOLLOWED;
	t.conn->id.generation = 7;
	t.conn->server_conn = (__u64)t.server_conn;
	t.server_conn[4] = (__u64)&t.client;
	t.client.conn = (__u64)t.server_conn;
	t.client.reply = (__u64)&t.list;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	confirm_close(&t.confirm);
	client_identities_free(&t.identities);
	close(t.map_fd);
	close(t.out[0]);
	close(t.out[1]);
	return 0;
}

static enum verify_verdict verify(void)
{
	const struct reply_record rec = { .connection = 2, .generation = 7 };
	bool executions;

	return verify_connection(&t.confirm.verifier, &rec, &executions);
}

struct sent {
	struct reply_record rec;
	char head[64];
};

/* A record of connection 2, with argv. */
static struct sent record(const char *head, __u8 type, __u8 check)
{
	struct sent sent = { .rec = {
				     .event = EVENT_REPLY,
				     .connection = 2,
				     .generation = 7,
				     .from_start = 1,
				     .db = 5,
				     .kind = KIND_PIPELINED,
				     .check = check,
				     .reply_type = type,
				     .reply_bytes = 10,
				     .client_id = 9,
				     .argv_len = strlen(head),
			     } };

	strcpy(sent.head, head);
	return sent;
}

#define GET_A "*2\r\n$3\r\nGET\r\n$1\r\na\r\n"
#define AUTH_BOB "*3\r\n$4\r\nAUTH\r\n$3\r\nbob\r\n$1\r\np\r\n"

static int take(const struct sent *sent, uint64_t now)
{
	return confirm_take(&t.confirm, &sent->rec, sizeof(sent->rec) + sent->rec.argv_len, now);
}

static void take_get(__u8 check, uint64_t now)
{
	struct sent sent = record(GET_A, '$', check);

	assert_int_equal(take(&sent, now), 0);
}

static void take_checked(__u8 attribution, __u8 out_of_step)
{
	struct sent sent = { .rec = { .event = EVENT_CHECKED,
				      .connection = 2,
				      .generation = 7,
				      .client_id = 9,
				      .attribution = attribution,
				      .out_of_step = out_of_step } };

	assert_int_equal(take(&sent, MS), 0);
}

/* What was written: "E" for each exact reply, "A" for an ambiguous one, "D" for a loss. */
static const char *written(void)
{
	static char text[65536], said[64];
	ssize_t n = read(t.out[0], text, sizeof(text) - 1);
	char *line, *end;
	size_t lines = 0;

	text[n < 0 ? 0 : n] = '\0';
	for (line = text; (end = strchr(line, '\n')) && lines < sizeof(said) - 1; line = end + 1) {
		*end = '\0';
		said[lines++] = strstr(line, "\"reason\":\"out_of_step\"")      ? 'D'
				: strstr(line, "\"attribution\":\"exact\"")     ? 'E'
				: strstr(line, "\"attribution\":\"ambiguous\"") ? 'A'
										: '?';
		/* Only exact records count for database and user. */
		if (said[lines - 1] == 'A' &&
		    (strstr(line, "\"db\"") || strstr(line, "\"user\"") || strstr(line, "\"resp\"")))
			fail_msg("%s", line);
	}
	said[lines] = '\0';
	return said;
}

static void test_certain_records_do_not_wait(void **state)
{
	(void)state;
	take_get(CHECK_CERTAIN, MS);
	assert_string_equal(written(), "E");
	assert_true(confirm_next_ns(&t.confirm) == UINT64_MAX);
}

static void test_pending_records_wait_for_bpf(void **state)
{
	(void)state;
	t.conn->read_seq = 1; /* nothing is proven from outside */
	take_get(CHECK_PENDING, MS);
	take_get(CHECK_PENDING, MS);
	take_get(CHECK_CERTAIN, MS); /* in their order */
	assert_string_equal(written(), "");
	take_checked(ATTRIBUTION_EXACT, 0);
	assert_string_equal(written(), "EEE");
	take_get(CHECK_PENDING, MS);
	take_checked(ATTRIBUTION_AMBIGUOUS, 0);
	assert_string_equal(written(), "A");
	take_get(CHECK_PENDING, MS);
	take_checked(ATTRIBUTION_AMBIGUOUS, 1);
	assert_string_equal(written(), "DA");
	assert_int_equal(t.confirm.told_by_bpf, 1);
}

static void test_proven_from_outside(void **state)
{
	uint64_t next;

	(void)state;
	take_get(CHECK_PENDING, MS);
	next = confirm_next_ns(&t.confirm);
	assert_true(next > MS && next < 5 * MS);
	assert_int_equal(confirm_look(&t.confirm, next - 1), 0);
	assert_string_equal(written(), "");
	assert_int_equal(confirm_look(&t.confirm, next), 0);
	assert_string_equal(written(), "E");
	assert_int_equal(t.confirm.waits.records, 1);
	assert_true(confirm_next_ns(&t.confirm) == UINT64_MAX);
}

/* Each of these alone means that something is outstanding, or that nobody can tell. */
static void test_not_proven(void **state)
{
	static const struct {
		const char *what;
		size_t offset;
		uint64_t value;
		size_t size;
	} cases[] = {
		{ "bufpos", offsetof(struct made_up_client, bufpos), 1, 8 },
		{ "argc", offsetof(struct made_up_client, argc), 1, 4 },
		{ "reqtype", offsetof(struct made_up_client, reqtype), 2, 4 },
		{ "blocked", offsetof(struct made_up_client, flags), 1, 8 },
		{ "another connection's client", offsetof(struct made_up_client, conn), 1, 8 },
		{ "an unreadable list", offsetof(struct made_up_client, reply), 8, 8 },
		{ "an unreadable querybuf", offsetof(struct made_up_client, querybuf), 8, 8 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct made_up_client whole = t.client;

		memcpy((char *)&t.client + cases[i].offset, &cases[i].value, cases[i].size);
		if (verify() != VERIFY_NOT_YET)
			fail_msg("%s", cases[i].what);
		t.client = whole;
		assert_int_equal(verify(), VERIFY_IN_STEP);
	}
}

static void test_what_counts_as_parsed(void **state)
{
	(void)state;
	/* An sds of type 8: length, room, type. */
	memcpy(t.sds, "\5\10\1hello", 8);
	t.client.querybuf = (__u64)t.sds + 3;
	assert_int_equal(verify(), VERIFY_NOT_YET);
	t.client.qb_pos = 5;
	assert_int_equal(verify(), VERIFY_IN_STEP);
	t.list.len = 1;
	assert_int_equal(verify(), VERIFY_NOT_YET);
	t.list.len = 0;
	t.client.flags = 2; /* a subscriber */
	assert_int_equal(verify(), VERIFY_IN_STEP);
}

/* Gives the reply list this many nodes, each with 100 bytes. */
static void make_nodes(int count)
{
	for (int i = 0; i < count; i++) {
		t.block[i] = (struct made_up_block){ .size = 16384, .used = 100 };
		t.node[i] = (struct made_up_node){
			.prev = i ? (__u64)&t.node[i - 1] : 0,
			.next = i + 1 < count ? (__u64)&t.node[i + 1] : 0,
			.value = (__u64)&t.block[i],
		};
	}
	t.list = (struct made_up_list){ .head = count ? (__u64)&t.node[0] : 0, .len = count };
}

/* An IO thread has written this much. */
static enum verify_verdict verify_written(__s32 nwritten)
{
	t.client.io_write_state = 2;
	t.client.nwritten = nwritten;
	return verify();
}

static void test_written_but_not_accounted_for(void **state)
{
	(void)state;
	t.client.bufpos = 50;
	assert_int_equal(verify_written(50), VERIFY_IN_STEP);
	assert_int_equal(verify_written(49), VERIFY_NOT_YET);
	assert_int_equal(verify_written(51), VERIFY_NOT_YET);
	assert_int_equal(verify_written(0), VERIFY_NOT_YET);
	assert_int_equal(verify_written(-1), VERIFY_NOT_YET);
	t.client.sentlen = 20; /* sent by an earlier job */
	assert_int_equal(verify_written(30), VERIFY_IN_STEP);
	assert_int_equal(verify_written(50), VERIFY_NOT_YET);
	t.client.sentlen = 51;
	assert_int_equal(verify_written(-1), VERIFY_NOT_YET);
	t.client.sentlen = 0;
	t.deferred.len = 1;
	t.client.deferred_reply = (__u64)&t.deferred;
	assert_int_equal(verify_written(50), VERIFY_NOT_YET);
	t.deferred.len = 0;
	assert_int_equal(verify_written(50), VERIFY_IN_STEP);
	/* Nothing is left to write, whatever the last write has taken. */
	t.client.bufpos = 0;
	assert_int_equal(verify_written(-1), VERIFY_IN_STEP);
	assert_int_equal(verify_written(50), VERIFY_IN_STEP);
}

/* A pending job (1) and a job that the server has accounted for (0) say nothing about the current buffers. */
static void test_only_a_completed_write_counts(void **state)
{
	(void)state;
	t.client.bufpos = t.client.nwritten = 50;
	for (__u8 io_write_state = 0; io_write_state < 4; io_write_state++) {
		t.client.io_write_state = io_write_state;
		assert_int_equal(verify(), io_write_state == 2 ? VERIFY_IN_STEP : VERIFY_NOT_YET);
	}
}

static void test_nodes_written(void **state)
{
	(void)state;
	t.client.bufpos = 50;
	make_nodes(2);
	assert_int_equal(verify_written(250), VERIFY_IN_STEP);
	assert_int_equal(verify_written(249), VERIFY_NOT_YET);
	assert_int_equal(verify_written(150), VERIFY_NOT_YET);
	assert_int_equal(verify_written(50), VERIFY_NOT_YET);
	t.client.sentlen = 20; /* bytes of buf */
	assert_int_equal(verify_written(230), VERIFY_IN_STEP);
	t.client.bufpos = 0; /* bytes of the first node alone */
	assert_int_equal(verify_written(180), VERIFY_IN_STEP);
	assert_int_equal(verify_written(160), VERIFY_NOT_YET);
	assert_int_equal(verify_written(200), VERIFY_NOT_YET);
	t.client.sentlen = 101;
	assert_int_equal(verify_written(99), VERIFY_NOT_YET);
	t.client.sentlen = 0;
	/* A node reserved for the length of an array that the server still builds. */
	t.node[1].value = 0;
	assert_int_equal(verify_written(100), VERIFY_NOT_YET);
	assert_int_equal(verify_written(200), VERIFY_NOT_YET);
	t.node[1].value = (__u64)&t.block[1];
	t.block[1].used = 0;
	assert_int_equal(verify_written(100), VERIFY_IN_STEP);
	t.block[1].used = ~0ULL;
	assert_int_equal(verify_written(99), VERIFY_NOT_YET);
}

static void test_many_nodes(void **state)
{
	(void)state;
	make_nodes(64);
	assert_int_equal(verify_written(6400), VERIFY_IN_STEP);
	make_nodes(65);
	assert_int_equal(verify_written(6500), VERIFY_NOT_YET);
	assert_int_equal(verify_written(6400), VERIFY_NOT_YET);
	make_nodes(2);
	t.node[1].next = (__u64)&t.node[0]; /* a circle */
	assert_int_equal(verify_written(6400), VERIFY_NOT_YET);
}

static void test_what_bpf_counts(void **state)
{
	const struct reply_record next = { .connection = 2, .generation = 8 }, beyond = { .connection = CONNECTIONS };
	bool executions;

	(void)state;
	assert_int_equal(verify_connection(&t.confirm.verifier, &next, &executions), VERIFY_NOT_YET);
	assert_int_equal(verify_connection(&t.confirm.verifier, &beyond, &executions), VERIFY_NOT_YET);
	t.conn->doubt = 1;
	assert_int_equal(verify(), VERIFY_DOUBT);
	t.conn->doubt = 0;
	t.conn->read_seq = 1;
	assert_int_equal(verify(), VERIFY_OUT_OF_STEP);
	t.conn->read_seq = 0;
	t.conn->reply.owed = 1;
	assert_int_equal(verify(), VERIFY_OUT_OF_STEP);
	t.conn->reply.owed = 0;
	t.conn->request.state = REQUEST_ARGS;
	assert_int_equal(verify(), VERIFY_NOT_YET);
	t.conn->request.state = REQUEST_BOUNDARY;
	t.conn->mode = MODE_UNJOINED;
	assert_int_equal(verify(), VERIFY_NOT_YET);
	t.conn->mode = MODE_FOLLOWED;
	t.conn->id.client_id = 4; /* the struct has another id */
	assert_int_equal(verify(), VERIFY_NOT_YET);
	t.client.id = 4;
	assert_int_equal(verify(), VERIFY_IN_STEP);
}

/* The ring may still have BPF's records about this connection. They come before anything seen now. */
static void test_not_before_what_bpf_has_said(void **state)
{
	(void)state;
	take_get(CHECK_PENDING, MS);
	t.conn->checks = 1;
	assert_int_equal(confirm_look(&t.confirm, 10 * MS), 0);
	assert_string_equal(written(), "");
	take_checked(ATTRIBUTION_AMBIGUOUS, 0);
	assert_string_equal(written(), "A");
}

static void test_counters_stand_still_when_nothing_is_observed(void **state)
{
	(void)state;
	t.state.ready = 0;
	assert_int_equal(verify(), VERIFY_NOT_YET);
	t.state.ready = t.state.executed = 1;
	assert_int_equal(verify(), VERIFY_NOT_YET);
	t.state.executed = 0;
	assert_int_equal(verify(), VERIFY_IN_STEP);
}

/* Every waiting record is checked, however many there are. */
static void test_every_waiting_record_is_checked(void **state)
{
	struct sent sent = record(GET_A, '$', CHECK_PENDING);

	(void)state;
	t.conn->read_seq = 1;
	for (__u32 i = 0; i < CONNECTIONS; i++) {
		sent.rec.connection = i;
		assert_int_equal(take(&sent, MS), 0);
	}
	for (__u32 i = 0; i < CONNECTIONS; i++) {
		assert_int_equal(t.confirm.held.all->number, i);
		held_to_end(&t.confirm.held, t.confirm.held.all);
	}
	assert_int_equal(t.confirm.held.all->number, 0);
	held_close(&t.confirm.held, t.confirm.held.last);
	assert_int_equal(t.confirm.held.last->number, CONNECTIONS - 2);
}

static void test_waits_no_longer_than_it_may(void **state)
{
	(void)state;
	t.client.bufpos = 1;
	take_get(CHECK_PENDING, MS);
	take_get(CHECK_PENDING, 500 * MS);
	assert_int_equal(confirm_look(&t.confirm, WAIT), 0);
	assert_string_equal(written(), "");
	assert_int_equal(confirm_look(&t.confirm, WAIT + 100 * MS), 0);
	assert_string_equal(written(), "A");
	assert_int_equal(confirm_look(&t.confirm, WAIT + 600 * MS), 0);
	assert_string_equal(written(), "A");
	assert_int_equal(t.conn->refuted, 0);
}

/* The server has nothing outstanding for as long as a record may wait, but replylog does. */
static void test_out_of_step_is_reported_once(void **state)
{
	(void)state;
	t.conn->read_seq = 1;
	take_get(CHECK_PENDING, MS);
	assert_int_equal(confirm_look(&t.confirm, 10 * MS), 0);
	assert_string_equal(written(), "");
	assert_int_equal(confirm_look(&t.confirm, WAIT + 100 * MS), 0);
	assert_string_equal(written(), "DA");
	assert_int_equal(t.conn->refuted, 1);
	/* Until BPF has joined the connection again, none of its records is exact. */
	take_get(CHECK_CERTAIN, WAIT + 200 * MS);
	assert_string_equal(written(), "A");
	take_checked(ATTRIBUTION_AMBIGUOUS, 1);
	take_get(CHECK_CERTAIN, WAIT + 300 * MS);
	assert_string_equal(written(), "E");
}

static void test_misfit_is_out_of_step(void **state)
{
	struct sent misfit = record("*2\r\n$4\r\nINCR\r\n$1\r\na\r\n", '$', CHECK_PENDING);

	(void)state;
	take_get(CHECK_PENDING, MS);
	assert_int_equal(take(&misfit, MS), 0);
	assert_string_equal(written(), "DAA");
	assert_int_equal(t.conn->refuted, 1);
}

static void test_identity_waits_too(void **state)
{
	struct sent auth = record(AUTH_BOB, '+', CHECK_PENDING), get = record(GET_A, '$', CHECK_PENDING);

	(void)state;
	auth.rec.event = EVENT_IDENTITY;
	assert_int_equal(take(&auth, MS), 0);
	assert_int_equal(take(&get, MS), 0);
	assert_null(client_identities_find(&t.identities, &get.rec) &&
				    client_identities_find(&t.identities, &get.rec)->user.len
			    ? &get
			    : NULL);
	take_checked(ATTRIBUTION_EXACT, 0);
	assert_int_equal(client_identities_find(&t.identities, &get.rec)->user.len, 3);
	assert_string_equal(written(), "E");
	assert_int_equal(take(&auth, MS), 0);
	take_checked(ATTRIBUTION_AMBIGUOUS, 0);
	assert_null(client_identities_find(&t.identities, &get.rec));
}

static void test_pushes_stay_exact(void **state)
{
	struct sent push = record(">2\r\n$1\r\na\r\n", '>', CHECK_CERTAIN);

	(void)state;
	push.rec.kind = KIND_PUSH;
	push.rec.argv_status = ARGV_PUSH;
	t.conn->read_seq = 1;
	take_get(CHECK_PENDING, MS);
	assert_int_equal(take(&push, MS), 0);
	take_checked(ATTRIBUTION_AMBIGUOUS, 0);
	assert_string_equal(written(), "AE");
}

static void test_numbers_are_used_again(void **state)
{
	struct sent next = record(GET_A, '$', CHECK_CERTAIN);

	(void)state;
	take_get(CHECK_PENDING, MS);
	next.rec.generation = 8;
	assert_int_equal(take(&next, MS), 0);
	assert_string_equal(written(), "AE");
}

static void test_the_end(void **state)
{
	(void)state;
	take_get(CHECK_PENDING, MS);
	take_get(CHECK_PENDING, MS);
	assert_int_equal(confirm_give_up(&t.confirm, 3 * MS), 0);
	assert_string_equal(written(), "AA");
	assert_true(waits_median_us(&t.confirm.waits) >= 2000 * 8 / 9 && waits_median_us(&t.confirm.waits) <= 2000 * 9 / 8);
	assert_int_equal(t.confirm.waits.max_us, 2000);
}

static void test_foreign_bytes(void **state)
{
	struct sent sent = record(GET_A, '$', CHECK_PENDING);

	(void)state;
	assert_int_equal(confirm_take(&t.confirm, &sent.rec, sizeof(sent.rec) - 1, MS), -EBADMSG);
	sent.rec.connection = CONNECTIONS;
	assert_int_equal(take(&sent, MS), -EBADMSG);
}

#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_certain_records_do_not_wait),
		T(test_pending_records_wait_for_bpf),
		T(test_proven_from_outside),
		T(test_not_proven),
		T(test_what_counts_as_parsed),
		T(test_what_bpf_counts),
		T(test_written_but_not_accounted_for),
		T(test_only_a_completed_write_counts),
		T(test_nodes_written),
		T(test_many_nodes),
		T(test_not_before_what_bpf_has_said),
		T(test_counters_stand_still_when_nothing_is_observed),
		T(test_every_waiting_record_is_checked),
		T(test_waits_no_longer_than_it_may),
		T(test_out_of_step_is_reported_once),
		T(test_misfit_is_out_of_step),
		T(test_identity_waits_too),
		T(test_pushes_stay_exact),
		T(test_numbers_are_used_again),
		T(test_the_end),
		T(test_foreign_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
