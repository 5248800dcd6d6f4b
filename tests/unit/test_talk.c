/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What replies mean: transactions, subscriptions, pushes and what else makes a connection more than one reply to one
 * command. Each conversation is replayed with its replies cut in two at every byte, and byte by byte.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "engine_host.h"

#define CMD1(a) "*1\r\n" a
#define CMD2(a, b) "*2\r\n" a b
#define CMD3(a, b, c) "*3\r\n" a b c
#define W4 "$4\r\n"
#define MULTI CMD1("$5\r\nMULTI\r\n")
#define EXEC CMD1(W4 "EXEC\r\n")
#define DISCARD CMD1("$7\r\nDiscard\r\n")
#define RESET CMD1("$5\r\nRESET\r\n")
#define PING CMD1(W4 "PING\r\n")
#define GET(k) CMD2("$3\r\nGET\r\n", "$1\r\n" k "\r\n")
#define SELECT(n) CMD2("$6\r\nSELECT\r\n", "$1\r\n" n "\r\n")
#define SUB2(a, b) CMD3("$9\r\nSUBSCRIBE\r\n", "$1\r\n" a "\r\n", "$1\r\n" b "\r\n")
#define SUB(a) CMD2("$9\r\nSUBSCRIBE\r\n", "$1\r\n" a "\r\n")
#define PSUB(a) CMD2("$10\r\nPSUBSCRIBE\r\n", "$1\r\n" a "\r\n")
#define SSUB(a) CMD2("$10\r\nSSUBSCRIBE\r\n", "$1\r\n" a "\r\n")
#define UNSUB(a) CMD2("$11\r\nUNSUBSCRIBE\r\n", "$1\r\n" a "\r\n")
#define UNSUB_ALL CMD1("$11\r\nUNSUBSCRIBE\r\n")
#define PUNSUB_ALL CMD1("$12\r\nPUNSUBSCRIBE\r\n")
#define SUNSUB(a) CMD2("$12\r\nSUNSUBSCRIBE\r\n", "$1\r\n" a "\r\n")

/* t is the type byte: '*' in RESP2, '>' in RESP3. */
#define CONFIRM(t, len, word, channel, n) t "3\r\n$" len "\r\n" word "\r\n$1\r\n" channel "\r\n:" n "\r\n"
#define SUBSCRIBED(t, channel, n) CONFIRM(t, "9", "subscribe", channel, n)
#define UNSUBSCRIBED(t, channel, n) CONFIRM(t, "11", "unsubscribe", channel, n)
#define MESSAGE(t, channel, payload) t "3\r\n$7\r\nmessage\r\n$1\r\n" channel "\r\n$3\r\n" payload "\r\n"
#define PMESSAGE(t, payload) t "4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$1\r\nc\r\n$3\r\n" payload "\r\n"
#define INVALIDATE ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"

struct want {
	const char *request; /* the command that is answered; NULL: a push */
	const char *reply;
	__u8 kind;
};

#define WANTS 12

struct conversation_case {
	const char *name;
	const char *requests[WANTS];
	const char *replies;
	__u64 threshold;
	struct want want[WANTS];
};

#define P KIND_PIPELINED
#define M KIND_MULTI
#define PUSHED(reply) { NULL, reply, KIND_PUSH }

static const struct conversation_case cases[] = {
	{ "RESP2 subscription, messages, and what follows",
	  { GET("a"), SUB2("c", "d"), UNSUB("c"), UNSUB("d"), GET("b") },
	  "$1\r\nA\r\n" SUBSCRIBED("*", "c", "1") SUBSCRIBED("*", "d", "2") MESSAGE("*", "c", "one") UNSUBSCRIBED("*", "c", "1")
	  MESSAGE("*", "d", "two") UNSUBSCRIBED("*", "d", "0") "$1\r\nB\r\n", 0,
	  { { GET("a"), "$1\r\nA\r\n", P },
	    { SUB2("c", "d"), SUBSCRIBED("*", "c", "1") SUBSCRIBED("*", "d", "2"), P },
	    PUSHED(MESSAGE("*", "c", "one")),
	    { UNSUB("c"), UNSUBSCRIBED("*", "c", "1"), P },
	    PUSHED(MESSAGE("*", "d", "two")),
	    { UNSUB("d"), UNSUBSCRIBED("*", "d", "0"), P },
	    { GET("b"), "$1\r\nB\r\n", P } } },
	{ "RESP3 subscription between other commands",
	  { SUB2("c", "d"), GET("a"), UNSUB_ALL, GET("b") },
	  SUBSCRIBED(">", "c", "1") SUBSCRIBED(">", "d", "2") MESSAGE(">", "c", "one") "$1\r\nA\r\n"
	  UNSUBSCRIBED(">", "c", "1") UNSUBSCRIBED(">", "d", "0") "$1\r\nB\r\n", 0,
	  { { SUB2("c", "d"), SUBSCRIBED(">", "c", "1") SUBSCRIBED(">", "d", "2"), P },
	    PUSHED(MESSAGE(">", "c", "one")),
	    { GET("a"), "$1\r\nA\r\n", P },
	    { UNSUB_ALL, UNSUBSCRIBED(">", "c", "1") UNSUBSCRIBED(">", "d", "0"), P },
	    { GET("b"), "$1\r\nB\r\n", P } } },
	{ "subscribing twice to the same channel, patterns, and unsubscribing from all of a kind",
	  { SUB2("c", "c"), PSUB("*"), UNSUB_ALL, PUNSUB_ALL, PUNSUB_ALL, PING },
	  SUBSCRIBED("*", "c", "1") SUBSCRIBED("*", "c", "1") CONFIRM("*", "10", "psubscribe", "*", "2") PMESSAGE("*", "one")
	  UNSUBSCRIBED("*", "c", "1") CONFIRM("*", "12", "punsubscribe", "*", "0")
	  "*3\r\n$12\r\npunsubscribe\r\n$-1\r\n:0\r\n" "+PONG\r\n", 0,
	  { { SUB2("c", "c"), SUBSCRIBED("*", "c", "1") SUBSCRIBED("*", "c", "1"), P },
	    { PSUB("*"), CONFIRM("*", "10", "psubscribe", "*", "2"), P },
	    PUSHED(PMESSAGE("*", "one")),
	    { UNSUB_ALL, UNSUBSCRIBED("*", "c", "1"), P },
	    { PUNSUB_ALL, CONFIRM("*", "12", "punsubscribe", "*", "0"), P },
	    { PUNSUB_ALL, "*3\r\n$12\r\npunsubscribe\r\n$-1\r\n:0\r\n", P },
	    { PING, "+PONG\r\n", P } } },
	{ "shard channels, and the server unsubscribing by itself",
	  { SSUB("s"), SSUB("t"), SUNSUB("t"), GET("a") },
	  CONFIRM("*", "10", "ssubscribe", "s", "1") CONFIRM("*", "10", "ssubscribe", "t", "2")
	  "*3\r\n$8\r\nsmessage\r\n$1\r\ns\r\n$1\r\nx\r\n" CONFIRM("*", "12", "sunsubscribe", "t", "1")
	  CONFIRM("*", "12", "sunsubscribe", "s", "0") "$1\r\nA\r\n", 0,
	  { { SSUB("s"), CONFIRM("*", "10", "ssubscribe", "s", "1"), P },
	    { SSUB("t"), CONFIRM("*", "10", "ssubscribe", "t", "2"), P },
	    PUSHED("*3\r\n$8\r\nsmessage\r\n$1\r\ns\r\n$1\r\nx\r\n"),
	    { SUNSUB("t"), CONFIRM("*", "12", "sunsubscribe", "t", "1"), P },
	    PUSHED(CONFIRM("*", "12", "sunsubscribe", "s", "0")),
	    { GET("a"), "$1\r\nA\r\n", P } } },
	{ "PING of a RESP2 subscriber, and a subscription that is refused",
	  { SUB("c"), PING, SUB("d"), UNSUB("c"), SUB("e"), GET("a") },
	  SUBSCRIBED("*", "c", "1") "*2\r\n$4\r\npong\r\n$0\r\n\r\n" "-NOPERM no\r\n" UNSUBSCRIBED("*", "c", "0")
	  "-NOPERM no\r\n" "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$3\r\nabc\r\n", 0,
	  { { SUB("c"), SUBSCRIBED("*", "c", "1"), P },
	    { PING, "*2\r\n$4\r\npong\r\n$0\r\n\r\n", P },
	    { SUB("d"), "-NOPERM no\r\n", P },
	    { UNSUB("c"), UNSUBSCRIBED("*", "c", "0"), P },
	    { SUB("e"), "-NOPERM no\r\n", P },
	    /* Nothing is subscribed: this is what GET (LRANGE, rather) answers. */
	    { GET("a"), "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$3\r\nabc\r\n", P } } },
	{ "a list that looks like a message before anything is subscribed",
	  { GET("a"), SUB("c") },
	  MESSAGE("*", "c", "abc") SUBSCRIBED("*", "c", "1"), 0,
	  { { GET("a"), MESSAGE("*", "c", "abc"), P }, { SUB("c"), SUBSCRIBED("*", "c", "1"), P } } },
	{ "invalidations before, between and inside replies",
	  { GET("a"), GET("b"), GET("c") },
	  INVALIDATE "*2\r\n$1\r\nx\r\n" INVALIDATE "*1\r\n:7\r\n" INVALIDATE "$1\r\nB\r\n" INVALIDATE "%1\r\n+k\r\n" INVALIDATE
	  "+v\r\n", 0,
	  { PUSHED(INVALIDATE),
	    PUSHED(INVALIDATE),
	    { GET("a"), "*2\r\n$1\r\nx\r\n" "*1\r\n:7\r\n", P },
	    PUSHED(INVALIDATE),
	    { GET("b"), "$1\r\nB\r\n", P },
	    PUSHED(INVALIDATE),
	    PUSHED(INVALIDATE),
	    { GET("c"), "%1\r\n+k\r\n" "+v\r\n", P } } },
	{ "a transaction: each inner reply is its own command's",
	  { MULTI, GET("a"), PING, GET("b"), EXEC, GET("c") },
	  "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*3\r\n$1\r\nA\r\n+PONG\r\n*2\r\n*1\r\n:1\r\n_\r\n" "$1\r\nC\r\n", 0,
	  { { MULTI, "+OK\r\n", P },
	    { GET("a"), "+QUEUED\r\n", M },
	    { PING, "+QUEUED\r\n", M },
	    { GET("b"), "+QUEUED\r\n", M },
	    { GET("a"), "$1\r\nA\r\n", M },
	    { PING, "+PONG\r\n", M },
	    { GET("b"), "*2\r\n*1\r\n:1\r\n_\r\n", M },
	    { GET("c"), "$1\r\nC\r\n", P } } },
	{ "a transaction of which only one inner reply is large",
	  { MULTI, GET("a"), GET("b"), EXEC }, "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n$1\r\nA\r\n$20\r\n01234567890123456789\r\n", 20,
	  { { GET("b"), "$20\r\n01234567890123456789\r\n", M } } },
	{ "a transaction that is large only as a whole",
	  { MULTI, GET("a"), GET("b"), EXEC }, "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n$5\r\nAAAAA\r\n$5\r\nBBBBB\r\n", 20,
	  { { EXEC, "*2\r\n$5\r\nAAAAA\r\n$5\r\nBBBBB\r\n", M } } },
	{ "transactions that end without inner replies",
	  { MULTI, GET("a"), EXEC, MULTI, GET("b"), DISCARD, MULTI, GET("c"), EXEC, MULTI, EXEC, EXEC },
	  "+OK\r\n+QUEUED\r\n*-1\r\n" "+OK\r\n+QUEUED\r\n+OK\r\n" "+OK\r\n-ERR wrong number of arguments\r\n"
	  "-EXECABORT Transaction discarded\r\n" "+OK\r\n*0\r\n" "-ERR EXEC without MULTI\r\n", 10,
	  { { GET("c"), "-ERR wrong number of arguments\r\n", M },
	    { EXEC, "-EXECABORT Transaction discarded\r\n", M },
	    { EXEC, "-ERR EXEC without MULTI\r\n", P } } },
	{ "a nested MULTI is refused and the transaction goes on: EXEC is logged whole",
	  { MULTI, GET("a"), MULTI, EXEC, MULTI, GET("b"), EXEC },
	  "+OK\r\n+QUEUED\r\n-ERR MULTI calls can not be nested\r\n*1\r\n$9\r\n012345678\r\n"
	  "+OK\r\n+QUEUED\r\n*1\r\n$12\r\n012345678901\r\n", 15,
	  { { MULTI, "-ERR MULTI calls can not be nested\r\n", M },
	    { EXEC, "*1\r\n$9\r\n012345678\r\n", M },
	    { GET("b"), "$12\r\n012345678901\r\n", M } } },
	{ "pushes inside a transaction's reply are none of its bytes",
	  { MULTI, GET("a"), GET("b"), EXEC },
	  "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n" INVALIDATE "*1\r\n" INVALIDATE "$5\r\nAAAAA\r\n" INVALIDATE "$5\r\nBBBBB\r\n", 31,
	  { PUSHED(INVALIDATE), PUSHED(INVALIDATE), PUSHED(INVALIDATE) } },
	{ "the same, and the transaction is large as a whole",
	  { MULTI, GET("a"), GET("b"), EXEC },
	  "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n" INVALIDATE "*1\r\n" INVALIDATE "$5\r\nAAAAA\r\n" INVALIDATE "$5\r\nBBBBB\r\n", 30,
	  { PUSHED(INVALIDATE), PUSHED(INVALIDATE), PUSHED(INVALIDATE),
	    { EXEC, "*2\r\n" "*1\r\n" "$5\r\nAAAAA\r\n" "$5\r\nBBBBB\r\n", M } } },
	{ "RESET ends a transaction and all subscriptions",
	  { MULTI, GET("a"), RESET, GET("b"), SUB("c"), RESET, GET("d") },
	  "+OK\r\n+QUEUED\r\n+RESET\r\n$1\r\nB\r\n" SUBSCRIBED("*", "c", "1") "+RESET\r\n" MESSAGE("*", "c", "abc"), 0,
	  { { MULTI, "+OK\r\n", P },
	    { GET("a"), "+QUEUED\r\n", M },
	    { RESET, "+RESET\r\n", M },
	    { GET("b"), "$1\r\nB\r\n", P },
	    { SUB("c"), SUBSCRIBED("*", "c", "1"), P },
	    { RESET, "+RESET\r\n", P },
	    { GET("d"), MESSAGE("*", "c", "abc"), P } } },
};

static struct host_conn *ask(const struct conversation_case *t)
{
	struct host_conn *c = host_connect();
	size_t i;

	host_reset(t->threshold, 8);
	for (i = 0; i < WANTS && t->requests[i]; i++)
		assert_int_equal(host_read(c, t->requests[i], strlen(t->requests[i])), REQUEST_OK);
	return c;
}

static void check_record(const struct conversation_case *t, size_t i, size_t cut)
{
	const struct host_record *rec = &host_records[i];
	const struct want *want = &t->want[i];
	const char *head = want->request ? want->request : want->reply;
	size_t kept = strlen(head);

	if (rec->bytes != strlen(want->reply))
		fail_msg("%s, cut at %zu: record %zu has %llu bytes, not %zu", t->name, cut, i, rec->bytes, strlen(want->reply));
	/* The last outstanding command is no longer pipelined, unless it was read so. */
	if (rec->kind != want->kind && !(want->kind == P && rec->kind == KIND_SIMPLE))
		fail_msg("%s, cut at %zu: record %zu is of kind %u", t->name, cut, i, rec->kind);
	/* What is kept of a push may reach beyond its end. */
	if (want->request)
		assert_int_equal(rec->head_len, kept);
	else if (rec->head_len < kept && rec->head_len < PUSH_HEAD)
		fail_msg("%s, cut at %zu: record %zu keeps %u bytes of the push", t->name, cut, i, rec->head_len);
	if (memcmp(rec->head, head, kept))
		fail_msg("%s, cut at %zu: record %zu has head %.*s", t->name, cut, i, (int)rec->head_len, rec->head);
}

static void check_case(const struct conversation_case *t, struct host_conn *c, size_t cut)
{
	size_t i, wanted = 0;

	while (wanted < WANTS && t->want[wanted].reply)
		wanted++;
	for (i = 0; i < wanted && i < host_count; i++)
		check_record(t, i, cut);
	if (host_count != wanted)
		fail_msg("%s, cut at %zu: %zu records, not %zu", t->name, cut, host_count, wanted);
	assert_int_equal(outstanding(&c->conn), 0);
	assert_int_equal(turns_outstanding(&c->conn), 0);
	assert_int_equal(c->conn.plain_until, TURNS_NONE);
	assert_int_equal(host.free_count, 8);
}

static void write_or_fail(const struct conversation_case *t, struct host_conn *c, const char *bytes, size_t len, size_t cut)
{
	enum reply_verdict verdict = host_write(c, bytes, len);

	if (verdict != REPLY_OK)
		fail_msg("%s, cut at %zu: verdict %d", t->name, cut, verdict);
}

static void test_conversations_at_every_split(void **state)
{
	size_t i, cut, len;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		for (len = strlen(cases[i].replies), cut = 0; cut < len; cut++) {
			struct host_conn *c = ask(&cases[i]);

			if (cut)
				write_or_fail(&cases[i], c, cases[i].replies, cut, cut);
			write_or_fail(&cases[i], c, cases[i].replies + cut, len - cut, cut);
			check_case(&cases[i], c, cut);
			free(c);
		}
}

static void test_conversations_byte_by_byte(void **state)
{
	size_t i, at;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct host_conn *c = ask(&cases[i]);

		for (at = 0; cases[i].replies[at]; at++)
			write_or_fail(&cases[i], c, cases[i].replies + at, 1, at);
		check_case(&cases[i], c, 1);
		free(c);
	}
}

/* Requests cut at every byte make the same turns. */
static void test_requests_at_every_split(void **state)
{
	char requests[1024];
	size_t i, j, cut;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		for (requests[0] = '\0', j = 0; j < WANTS && cases[i].requests[j]; j++)
			strcat(requests, cases[i].requests[j]);
		for (cut = 1; cut < strlen(requests); cut++) {
			struct host_conn *c = host_connect();

			host_reset(cases[i].threshold, 8);
			assert_int_equal(host_read(c, requests, cut), REQUEST_OK);
			assert_int_equal(host_read(c, requests + cut, strlen(requests) - cut), REQUEST_OK);
			write_or_fail(&cases[i], c, cases[i].replies, strlen(cases[i].replies), cut);
			check_case(&cases[i], c, cut);
			free(c);
		}
	}
}

/* ---- what a connection says of itself ---- */

static void say(struct host_conn *c, const char *request, const char *reply)
{
	assert_int_equal(host_read(c, request, strlen(request)), REQUEST_OK);
	assert_int_equal(host_write(c, reply, strlen(reply)), REPLY_OK);
}

static void test_identity(void **state)
{
	struct host_conn *c = host_connect();

	(void)state;
	host_reset(0, 4);
	say(c, CMD2("$5\r\nhello\r\n", "$1\r\n3\r\n"), "%1\r\n+server\r\n+redis\r\n");
	say(c, CMD2("$4\r\nAUTH\r\n", "$1\r\nx\r\n"), "-WRONGPASS no\r\n");
	say(c, CMD2("$4\r\nAUTH\r\n", "$1\r\nx\r\n"), "+OK\r\n");
	say(c, CMD3("$6\r\nCLIENT\r\n", "$7\r\nSetName\r\n", "$1\r\nx\r\n"), "+OK\r\n");
	say(c, CMD2("$6\r\nCLIENT\r\n", "$2\r\nID\r\n"), ":5\r\n");
	say(c, "client setname y\r\n", "+OK\r\n");
	assert_int_equal(host_identity_count, 4);
	assert_int_equal(host_identities[0], 0);
	assert_int_equal(host_identities[1], 2);
	assert_int_equal(host_identities[2], 3);
	assert_int_equal(host_identities[3], 5);
	say(c, MULTI, "+OK\r\n");
	say(c, CMD3("$6\r\nCLIENT\r\n", "$7\r\nSETNAME\r\n", "$1\r\nx\r\n"), "+QUEUED\r\n");
	assert_int_equal(host_identity_count, 4);
	assert_int_equal(host_identity_losses, 1);
	free(c);
}

static void test_selected_database(void **state)
{
	static const char select_16[] = "*2\r\n$6\r\nSELECT\r\n$2\r\n16\r\n";
	size_t cut;

	(void)state;
	for (cut = 1; cut < strlen(select_16); cut++) {
		struct host_conn *c = host_connect();

		host_reset(0, 4);
		say(c, SELECT("3"), "+OK\r\n");
		assert_int_equal(c->conn.talk.db, 3);
		say(c, SELECT("9"), "-ERR DB index is out of range\r\n");
		assert_int_equal(c->conn.talk.db, 3);
		assert_int_equal(host_read(c, select_16, cut), REQUEST_OK);
		say(c, select_16 + cut, "+OK\r\n");
		assert_int_equal(c->conn.talk.db, 16);
		say(c, RESET, "+RESET\r\n");
		assert_int_equal(c->conn.talk.db, 0);
		say(c, MULTI, "+OK\r\n");
		say(c, SELECT("3"), "+QUEUED\r\n");
		assert_int_equal(c->conn.talk.db, -1);
		free(c);
	}
}

/* ---- what can't be followed ---- */

static void test_subscribing_in_a_transaction(void **state)
{
	struct host_conn *c = host_connect();

	(void)state;
	host_reset(0, 4);
	say(c, MULTI, "+OK\r\n");
	assert_int_equal(host_read(c, SUB("c"), strlen(SUB("c"))), REQUEST_OK);
	assert_int_equal(host_write(c, "+QUEUED\r\n", 9), REPLY_LEAVES);
	free(c);
}

static void test_too_many_turns(void **state)
{
	struct host_conn *c = host_connect();
	int i;

	(void)state;
	host_reset(0, 8);
	for (i = 0; i < TURNS; i++)
		assert_int_equal(host_read(c, SELECT("1"), strlen(SELECT("1"))), REQUEST_OK);
	assert_int_equal(host_read(c, GET("a"), strlen(GET("a"))), REQUEST_OK);
	assert_int_equal(host_read(c, SELECT("2"), strlen(SELECT("2"))), REQUEST_TOO_MANY_TURNS);
	assert_int_equal(outstanding(&c->conn), TURNS + 1);
	for (i = 0; i < TURNS; i++)
		assert_int_equal(host_write(c, "+OK\r\n", 5), REPLY_OK);
	assert_int_equal(host_write(c, "$-1\r\n", 5), REPLY_OK);
	assert_int_equal(host_count, TURNS + 1);
	assert_int_equal(host_write(c, "+OK\r\n", 5), REPLY_UNASKED);
	free(c);
}

static void test_confirmations_that_do_not_add_up(void **state)
{
	static const char *const replies[] = {
		SUBSCRIBED("*", "c", "1") "$1\r\nA\r\n",           /* the second one is missing */
		SUBSCRIBED("*", "c", "1") MESSAGE("*", "c", "abc"), /* nothing comes in between */
		SUBSCRIBED("*", "c", "1") UNSUBSCRIBED("*", "c", "0"),
		"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:x\r\n",
		"*4\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n:1\r\n",
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(replies) / sizeof(replies[0]); i++) {
		struct host_conn *c = host_connect();

		host_reset(0, 4);
		assert_int_equal(host_read(c, SUB2("c", "d"), strlen(SUB2("c", "d"))), REQUEST_OK);
		assert_int_equal(host_read(c, GET("a"), strlen(GET("a"))), REQUEST_OK);
		if (host_write(c, replies[i], strlen(replies[i])) != REPLY_MALFORMED)
			fail_msg("%s was not refused", replies[i]);
		free(c);
	}
}

/* ---- connections that close in the middle ---- */

static void test_cut_off_inside_a_transaction(void **state)
{
	static const char reply[] = "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n$1\r\nA\r\n$20\r\n0123456789";
	struct host_conn *c = host_connect();

	(void)state;
	host_reset(15, 4);
	assert_int_equal(host_read(c, MULTI GET("a") GET("b") EXEC, strlen(MULTI GET("a") GET("b") EXEC)), REQUEST_OK);
	assert_int_equal(host_write(c, reply, strlen(reply)), REPLY_OK);
	assert_int_equal(host_count, 0);
	assert_true(talk_closes(&c->conn, &c->work));
	assert_int_equal(host_count, 1);
	assert_int_equal(host_records[0].kind, KIND_MULTI);
	assert_int_equal(host_records[0].state, STATE_ABORTED);
	assert_int_equal(host_records[0].bytes, 15);
	assert_int_equal(host_records[0].expected, 27);
	assert_memory_equal(host_records[0].head, GET("b"), strlen(GET("b")));
	free(c);
}

static void test_cut_off_transaction_is_logged_whole(void **state)
{
	static const char reply[] = "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n$10\r\n0123456789\r\n$1\r\n";
	struct host_conn *c = host_connect();

	(void)state;
	host_reset(24, 4);
	assert_int_equal(host_read(c, MULTI GET("a") GET("b") EXEC, strlen(MULTI GET("a") GET("b") EXEC)), REQUEST_OK);
	assert_int_equal(host_write(c, reply, strlen(reply)), REPLY_OK);
	assert_true(talk_closes(&c->conn, &c->work));
	assert_int_equal(host_count, 1);
	assert_int_equal(host_records[0].bytes, 25);
	assert_memory_equal(host_records[0].head, EXEC, strlen(EXEC));
	free(c);
}

static void test_cut_off_inside_a_push(void **state)
{
	struct host_conn *c = host_connect();

	(void)state;
	host_reset(100, 4);
	assert_int_equal(host_read(c, GET("a"), strlen(GET("a"))), REQUEST_OK);
	assert_int_equal(host_write(c, ">2\r\n$7\r\nmessage\r\n$500\r\nabc", 26), REPLY_OK);
	assert_false(talk_closes(&c->conn, &c->work));
	assert_int_equal(host_count, 1);
	assert_int_equal(host_records[0].kind, KIND_PUSH);
	assert_int_equal(host_records[0].bytes, 26);
	assert_int_equal(host_records[0].expected, 525);
	free(c);
}

/* What is queued is kept as long as EXEC may come: over many reads, and more than the first page holds. */
static void test_long_transaction_keeps_argv(void **state)
{
	struct host_conn *c = host_connect();
	char request[64], reply[4096];
	int i, n;

	(void)state;
	host_reset(0, 8);
	say(c, MULTI, "+OK\r\n");
	for (i = 0; i < 300; i++) {
		sprintf(request, "*2\r\n$3\r\nGET\r\n$8\r\n%08d\r\n", i);
		say(c, request, "+QUEUED\r\n");
	}
	host_count = 0;
	for (n = sprintf(reply, "*300\r\n"), i = 0; i < 300; i++)
		n += sprintf(reply + n, ":%d\r\n", i);
	say(c, EXEC, reply);
	assert_int_equal(host_count, 300);
	for (i = 0; i < 300; i++) {
		sprintf(request, "*2\r\n$3\r\nGET\r\n$8\r\n%08d\r\n", i);
		assert_int_equal(host_records[i].head_len, strlen(request));
		assert_memory_equal(host_records[i].head, request, strlen(request));
	}
	assert_int_equal(host.free_count, 8);
	free(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_conversations_at_every_split),
		cmocka_unit_test(test_conversations_byte_by_byte),
		cmocka_unit_test(test_requests_at_every_split),
		cmocka_unit_test(test_identity),
		cmocka_unit_test(test_selected_database),
		cmocka_unit_test(test_subscribing_in_a_transaction),
		cmocka_unit_test(test_too_many_turns),
		cmocka_unit_test(test_confirmations_that_do_not_add_up),
		cmocka_unit_test(test_cut_off_inside_a_transaction),
		cmocka_unit_test(test_cut_off_transaction_is_logged_whole),
		cmocka_unit_test(test_cut_off_inside_a_push),
		cmocka_unit_test(test_long_transaction_keeps_argv),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
