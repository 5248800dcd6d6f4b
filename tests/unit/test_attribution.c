/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Attribution: transactions, subscriptions, pushes, and everything else where a command does not have exactly one
 * reply. The tests replay each session with its replies cut in two at every byte, and byte by byte.
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
#define X16 "xxxxxxxxxxxxxxxx"
#define X128 X16 X16 X16 X16 X16 X16 X16 X16
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
#define SUNSUB2(a, b) CMD3("$12\r\nSUNSUBSCRIBE\r\n", "$1\r\n" a "\r\n", "$1\r\n" b "\r\n")
#define REPLY_ON CMD3("$6\r\nCLIENT\r\n", "$5\r\nReply\r\n", "$2\r\nOn\r\n")
#define SUNSUB_ALL CMD1("$12\r\nSUNSUBSCRIBE\r\n")

/* t is the type byte: '*' in RESP2, '>' in RESP3. */
#define CONFIRM(t, len, word, channel, n) t "3\r\n$" len "\r\n" word "\r\n$1\r\n" channel "\r\n:" n "\r\n"
#define SUBSCRIBED(t, channel, n) CONFIRM(t, "9", "subscribe", channel, n)
#define UNSUBSCRIBED(t, channel, n) CONFIRM(t, "11", "unsubscribe", channel, n)
#define SSUBSCRIBED(t, channel, n) CONFIRM(t, "10", "ssubscribe", channel, n)
#define SUNSUBSCRIBED(t, channel, n) CONFIRM(t, "12", "sunsubscribe", channel, n)
#define MESSAGE(t, channel, payload) t "3\r\n$7\r\nmessage\r\n$1\r\n" channel "\r\n$3\r\n" payload "\r\n"
#define PMESSAGE(t, payload) t "4\r\n$8\r\npmessage\r\n$1\r\n*\r\n$1\r\nc\r\n$3\r\n" payload "\r\n"
#define INVALIDATE ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"

struct want {
	const char *request; /* the command that is answered; NULL: a push */
	const char *reply;
	__u8 kind; /* and D, when the record is ambiguous */
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
#define D 0x80
#define PUSHED(reply)                  \
	{                              \
		NULL, reply, KIND_PUSH \
	}
#define DOUBTFUL(request, reply)      \
	{                             \
		request, reply, P | D \
	}

static const struct conversation_case cases[] = {
	{ "CLIENT REPLY ON where nothing is off, typed and in a transaction, too; and without its argument",
	  { REPLY_ON, "client reply ON\r\n", CMD2("$6\r\nCLIENT\r\n", "$5\r\nREPLY\r\n"), MULTI, REPLY_ON, EXEC, GET("a") },
	  "+OK\r\n"
	  "+OK\r\n"
	  "-ERR wrong number of arguments\r\n"
	  "+OK\r\n"
	  "+QUEUED\r\n"
	  "*1\r\n+OK\r\n"
	  "$1\r\nA\r\n",
	  0,
	  { { REPLY_ON, "+OK\r\n", P },
	    { "client reply ON\r", "+OK\r\n", P },
	    { CMD2("$6\r\nCLIENT\r\n", "$5\r\nREPLY\r\n"), "-ERR wrong number of arguments\r\n", P },
	    { MULTI, "+OK\r\n", P },
	    { REPLY_ON, "+QUEUED\r\n", M },
	    { REPLY_ON, "+OK\r\n", M },
	    { GET("a"), "$1\r\nA\r\n", P } } },
	{ "CLIENT HELP, typed, is answered by a list in RESP3, too: what looks like a message is none",
	  { SUB("c"), "CLIENT HELP\r\n", GET("a"), GET("b") },
	  SUBSCRIBED(">", "c", "1") "*1\r\n+help\r\n" MESSAGE("*", "x", "abc") "$1\r\nB\r\n",
	  0,
	  { { SUB("c"), SUBSCRIBED(">", "c", "1"), P },
	    { "CLIENT HELP\r", "*1\r\n+help\r\n", P },
	    { GET("a"), MESSAGE("*", "x", "abc"), P },
	    { GET("b"), "$1\r\nB\r\n", P } } },
	{ "RESP2 subscription, messages, and what follows",
	  { GET("a"), SUB2("c", "d"), UNSUB("c"), UNSUB("d"), GET("b") },
	  "$1\r\nA\r\n" SUBSCRIBED("*", "c", "1") SUBSCRIBED("*", "d", "2") MESSAGE("*", "c", "one")
		  UNSUBSCRIBED("*", "c", "1") MESSAGE("*", "d", "two") UNSUBSCRIBED("*", "d", "0") "$1\r\nB\r\n",
	  0,
	  { { GET("a"), "$1\r\nA\r\n", P },
	    { SUB2("c", "d"), SUBSCRIBED("*", "c", "1") SUBSCRIBED("*", "d", "2"), P },
	    PUSHED(MESSAGE("*", "c", "one")),
	    { UNSUB("c"), UNSUBSCRIBED("*", "c", "1"), P },
	    PUSHED(MESSAGE("*", "d", "two")),
	    { UNSUB("d"), UNSUBSCRIBED("*", "d", "0"), P },
	    { GET("b"), "$1\r\nB\r\n", P } } },
	{ "RESP3 subscription between other commands",
	  { SUB2("c", "d"), GET("a"), UNSUB_ALL, GET("b") },
	  SUBSCRIBED(">", "c", "1") SUBSCRIBED(">", "d", "2") MESSAGE(">", "c", "one") "$1\r\nA\r\n" UNSUBSCRIBED(
		  ">", "c", "1") UNSUBSCRIBED(">", "d", "0") "$1\r\nB\r\n",
	  0,
	  { { SUB2("c", "d"), SUBSCRIBED(">", "c", "1") SUBSCRIBED(">", "d", "2"), P },
	    PUSHED(MESSAGE(">", "c", "one")),
	    { GET("a"), "$1\r\nA\r\n", P },
	    { UNSUB_ALL, UNSUBSCRIBED(">", "c", "1") UNSUBSCRIBED(">", "d", "0"), P },
	    { GET("b"), "$1\r\nB\r\n", P } } },
	{ "subscribing twice to the same channel, patterns, and unsubscribing from all of a kind",
	  { SUB2("c", "c"), PSUB("*"), UNSUB_ALL, PUNSUB_ALL, PUNSUB_ALL, PING },
	  SUBSCRIBED("*", "c", "1") SUBSCRIBED("*", "c", "1") CONFIRM("*", "10", "psubscribe", "*", "2") PMESSAGE("*", "one")
		  UNSUBSCRIBED("*", "c", "1")
			  CONFIRM("*", "12", "punsubscribe", "*", "0") "*3\r\n$12\r\npunsubscribe\r\n$-1\r\n:0\r\n"
								       "+PONG\r\n",
	  0,
	  { { SUB2("c", "c"), SUBSCRIBED("*", "c", "1") SUBSCRIBED("*", "c", "1"), P },
	    { PSUB("*"), CONFIRM("*", "10", "psubscribe", "*", "2"), P },
	    PUSHED(PMESSAGE("*", "one")),
	    { UNSUB_ALL, UNSUBSCRIBED("*", "c", "1"), P },
	    { PUNSUB_ALL, CONFIRM("*", "12", "punsubscribe", "*", "0"), P },
	    { PUNSUB_ALL, "*3\r\n$12\r\npunsubscribe\r\n$-1\r\n:0\r\n", P },
	    { PING, "+PONG\r\n", P } } },
	{ "shard channels, and the server unsubscribing by itself",
	  { SSUB("s"), SSUB("t"), SUNSUB("t"), GET("a") },
	  CONFIRM("*", "10", "ssubscribe", "s", "1")
		  CONFIRM("*", "10", "ssubscribe", "t", "2") "*3\r\n$8\r\nsmessage\r\n$1\r\ns\r\n$1\r\nx\r\n" CONFIRM(
			  "*", "12", "sunsubscribe", "t", "1") CONFIRM("*", "12", "sunsubscribe", "s", "0") "$1\r\nA\r\n",
	  0,
	  { { SSUB("s"), CONFIRM("*", "10", "ssubscribe", "s", "1"), P },
	    { SSUB("t"), CONFIRM("*", "10", "ssubscribe", "t", "2"), P },
	    PUSHED("*3\r\n$8\r\nsmessage\r\n$1\r\ns\r\n$1\r\nx\r\n"),
	    DOUBTFUL(SUNSUB("t"), CONFIRM("*", "12", "sunsubscribe", "t", "1")),
	    { NULL, CONFIRM("*", "12", "sunsubscribe", "s", "0"), KIND_PUSH | D },
	    { GET("a"), "$1\r\nA\r\n", P } } },
	{ "the server unsubscribes by itself from a channel, and the client from another one (RESP2)",
	  { SSUB("s"), SSUB("t"), SUNSUB("t"), GET("a"), GET("b") },
	  SSUBSCRIBED("*", "s", "1") SSUBSCRIBED("*", "t", "2") SUNSUBSCRIBED("*", "s", "1")
		  SUNSUBSCRIBED("*", "t", "0") "$1\r\nA\r\n"
					       "-ERR b\r\n",
	  0,
	  { { SSUB("s"), SSUBSCRIBED("*", "s", "1"), P },
	    { SSUB("t"), SSUBSCRIBED("*", "t", "2"), P },
	    PUSHED(SUNSUBSCRIBED("*", "s", "1")),
	    DOUBTFUL(SUNSUB("t"), SUNSUBSCRIBED("*", "t", "0")),
	    { GET("a"), "$1\r\nA\r\n", P },
	    { GET("b"), "-ERR b\r\n", P } } },
	{ "the same from the second of those that the client names (RESP3)",
	  { SSUB("s"), SSUB("t"), SUNSUB2("t", "s"), SUB("c"), GET("a") },
	  SSUBSCRIBED(">", "s", "1") SSUBSCRIBED(">", "t", "2") SUNSUBSCRIBED(">", "s", "1") SUNSUBSCRIBED(">", "t", "0")
		  SUNSUBSCRIBED(">", "s", "0") SUBSCRIBED(">", "c", "1") "-ERR a\r\n",
	  0,
	  { { SSUB("s"), SSUBSCRIBED(">", "s", "1"), P },
	    { SSUB("t"), SSUBSCRIBED(">", "t", "2"), P },
	    PUSHED(SUNSUBSCRIBED(">", "s", "1")),
	    DOUBTFUL(SUNSUB2("t", "s"), SUNSUBSCRIBED(">", "t", "0") SUNSUBSCRIBED(">", "s", "0")),
	    { SUB("c"), SUBSCRIBED(">", "c", "1"), P },
	    { GET("a"), "-ERR a\r\n", P } } },
	{ "the server unsubscribes by itself while a command that is refused is outstanding",
	  { SSUB("s"), SUNSUB("t"), GET("a") },
	  SSUBSCRIBED(">", "s", "1") SUNSUBSCRIBED(">", "s", "0") "-MOVED 1 :1\r\n"
								  "$1\r\nA\r\n",
	  0,
	  { { SSUB("s"), SSUBSCRIBED(">", "s", "1"), P },
	    PUSHED(SUNSUBSCRIBED(">", "s", "0")),
	    { SUNSUB("t"), "-MOVED 1 :1\r\n", P },
	    { GET("a"), "$1\r\nA\r\n", P } } },
	{ "unsubscribing from all shard channels, and from none",
	  { SSUB("s"), SSUB("t"), SUNSUB_ALL, GET("a"), SUNSUB_ALL, GET("b") },
	  SSUBSCRIBED("*", "s", "1") SSUBSCRIBED("*", "t", "2") SUNSUBSCRIBED("*", "t", "1")
		  SUNSUBSCRIBED("*", "s", "0") "$1\r\nA\r\n"
					       "*3\r\n$12\r\nsunsubscribe\r\n$-1\r\n:0\r\n"
					       "-ERR b\r\n",
	  0,
	  { { SSUB("s"), SSUBSCRIBED("*", "s", "1"), P },
	    { SSUB("t"), SSUBSCRIBED("*", "t", "2"), P },
	    DOUBTFUL(SUNSUB_ALL, SUNSUBSCRIBED("*", "t", "1") SUNSUBSCRIBED("*", "s", "0")),
	    { GET("a"), "$1\r\nA\r\n", P },
	    { SUNSUB_ALL, "*3\r\n$12\r\nsunsubscribe\r\n$-1\r\n:0\r\n", P },
	    { GET("b"), "-ERR b\r\n", P } } },
	{ "the server unsubscribes by itself by itself from the last shard channel, and a list looks like a message",
	  { SSUB("s"), GET("a"), GET("b") },
	  CONFIRM("*", "10", "ssubscribe", "s", "1") CONFIRM("*", "12", "sunsubscribe", "s", "0")
		  MESSAGE("*", "x", "abc") "$1\r\nB\r\n",
	  0,
	  { { SSUB("s"), CONFIRM("*", "10", "ssubscribe", "s", "1"), P },
	    PUSHED(CONFIRM("*", "12", "sunsubscribe", "s", "0")),
	    { GET("a"), MESSAGE("*", "x", "abc"), P },
	    { GET("b"), "$1\r\nB\r\n", P } } },
	{ "PING of a RESP2 subscriber, and a subscription that is refused",
	  { SUB("c"), PING, SUB("d"), UNSUB("c"), SUB("e"), GET("a") },
	  SUBSCRIBED("*", "c", "1") "*2\r\n$4\r\npong\r\n$0\r\n\r\n"
				    "-NOPERM no\r\n" UNSUBSCRIBED("*", "c",
								  "0") "-NOPERM no\r\n"
								       "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$3\r\nabc\r\n",
	  0,
	  { { SUB("c"), SUBSCRIBED("*", "c", "1"), P },
	    { PING, "*2\r\n$4\r\npong\r\n$0\r\n\r\n", P },
	    { SUB("d"), "-NOPERM no\r\n", P },
	    { UNSUB("c"), UNSUBSCRIBED("*", "c", "0"), P },
	    { SUB("e"), "-NOPERM no\r\n", P },
	    /* Nothing is subscribed: this is what GET (LRANGE, rather) answers. */
	    { GET("a"), "*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$3\r\nabc\r\n", P } } },
	{ "a list that looks like a message before anything is subscribed",
	  { GET("a"), SUB("c") },
	  MESSAGE("*", "c", "abc") SUBSCRIBED("*", "c", "1"),
	  0,
	  { { GET("a"), MESSAGE("*", "c", "abc"), P }, { SUB("c"), SUBSCRIBED("*", "c", "1"), P } } },
	{ "a subscriber of RESP3 reads a list that looks like a message",
	  { SUB("c"), GET("a"), GET("b") },
	  SUBSCRIBED(">", "c", "1") MESSAGE("*", "x", "abc") MESSAGE(">", "c", "one") "$1\r\nB\r\n",
	  0,
	  { { SUB("c"), SUBSCRIBED(">", "c", "1"), P },
	    { GET("a"), MESSAGE("*", "x", "abc"), P },
	    PUSHED(MESSAGE(">", "c", "one")),
	    { GET("b"), "$1\r\nB\r\n", P } } },
	{ "a subscriber of RESP3 that turns to RESP2, where messages are arrays",
	  { SUB("c"), CMD2("$5\r\nhello\r\n", "$1\r\n2\r\n"), PING },
	  SUBSCRIBED(">", "c", "1") "*2\r\n$6\r\nserver\r\n:2\r\n" MESSAGE("*", "c", "one") "*2\r\n$4\r\npong\r\n$0\r\n\r\n",
	  0,
	  { { SUB("c"), SUBSCRIBED(">", "c", "1"), P },
	    { CMD2("$5\r\nhello\r\n", "$1\r\n2\r\n"), "*2\r\n$6\r\nserver\r\n:2\r\n", P },
	    PUSHED(MESSAGE("*", "c", "one")),
	    { PING, "*2\r\n$4\r\npong\r\n$0\r\n\r\n", P } } },
	{ "invalidations before, between and inside replies",
	  { GET("a"), GET("b"), GET("c") },
	  INVALIDATE "*2\r\n$1\r\nx\r\n" INVALIDATE "*1\r\n:7\r\n" INVALIDATE "$1\r\nB\r\n" INVALIDATE
		     "%1\r\n+k\r\n" INVALIDATE "+v\r\n",
	  0,
	  { PUSHED(INVALIDATE),
	    PUSHED(INVALIDATE),
	    { GET("a"),
	      "*2\r\n$1\r\nx\r\n"
	      "*1\r\n:7\r\n",
	      P },
	    PUSHED(INVALIDATE),
	    { GET("b"), "$1\r\nB\r\n", P },
	    PUSHED(INVALIDATE),
	    PUSHED(INVALIDATE),
	    { GET("c"),
	      "%1\r\n+k\r\n"
	      "+v\r\n",
	      P } } },
	{ "a transaction: each inner reply is its own command's",
	  { MULTI, GET("a"), PING, GET("b"), EXEC, GET("c") },
	  "+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*3\r\n$1\r\nA\r\n+PONG\r\n*2\r\n*1\r\n:1\r\n_\r\n"
	  "$1\r\nC\r\n",
	  0,
	  { { MULTI, "+OK\r\n", P },
	    { GET("a"), "+QUEUED\r\n", M },
	    { PING, "+QUEUED\r\n", M },
	    { GET("b"), "+QUEUED\r\n", M },
	    { GET("a"), "$1\r\nA\r\n", M },
	    { PING, "+PONG\r\n", M },
	    { GET("b"), "*2\r\n*1\r\n:1\r\n_\r\n", M },
	    { GET("c"), "$1\r\nC\r\n", P } } },
	{ "a transaction of which only one inner reply is large",
	  { MULTI, GET("a"), GET("b"), EXEC },
	  "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n$1\r\nA\r\n$20\r\n01234567890123456789\r\n",
	  20,
	  { { GET("b"), "$20\r\n01234567890123456789\r\n", M } } },
	{ "a transaction that is large only as a whole",
	  { MULTI, GET("a"), GET("b"), EXEC },
	  "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n$5\r\nAAAAA\r\n$5\r\nBBBBB\r\n",
	  20,
	  { { EXEC, "*2\r\n$5\r\nAAAAA\r\n$5\r\nBBBBB\r\n", M } } },
	{ "transactions that end without inner replies",
	  { MULTI, GET("a"), EXEC, MULTI, GET("b"), DISCARD, MULTI, GET("c"), EXEC, MULTI, EXEC, EXEC },
	  "+OK\r\n+QUEUED\r\n*-1\r\n"
	  "+OK\r\n+QUEUED\r\n+OK\r\n"
	  "+OK\r\n-ERR wrong number of arguments\r\n"
	  "-EXECABORT Transaction discarded\r\n"
	  "+OK\r\n*0\r\n"
	  "-ERR EXEC without MULTI\r\n",
	  10,
	  { { GET("c"), "-ERR wrong number of arguments\r\n", M },
	    { EXEC, "-EXECABORT Transaction discarded\r\n", M },
	    { EXEC, "-ERR EXEC without MULTI\r\n", P } } },
	{ "a transaction that WATCH aborts is the last that is said",
	  { MULTI, GET("a"), EXEC },
	  "+OK\r\n+QUEUED\r\n*-1\r\n",
	  0,
	  { { MULTI, "+OK\r\n", P }, { GET("a"), "+QUEUED\r\n", M }, { EXEC, "*-1\r\n", M } } },
	{ "a nested MULTI is refused and the transaction goes on: EXEC is logged whole",
	  { MULTI, GET("a"), MULTI, EXEC, MULTI, GET("b"), EXEC },
	  "+OK\r\n+QUEUED\r\n-ERR MULTI calls can not be nested\r\n*1\r\n$9\r\n012345678\r\n"
	  "+OK\r\n+QUEUED\r\n*1\r\n$12\r\n012345678901\r\n",
	  15,
	  { { MULTI, "-ERR MULTI calls can not be nested\r\n", M },
	    { EXEC, "*1\r\n$9\r\n012345678\r\n", M },
	    { GET("b"), "$12\r\n012345678901\r\n", M } } },
	{ "pushes inside a transaction's reply are none of its bytes",
	  { MULTI, GET("a"), GET("b"), EXEC },
	  "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n" INVALIDATE "*1\r\n" INVALIDATE "$5\r\nAAAAA\r\n" INVALIDATE
	  "$5\r\nBBBBB\r\n",
	  31,
	  { PUSHED(INVALIDATE), PUSHED(INVALIDATE), PUSHED(INVALIDATE) } },
	{ "the same, and the transaction is large as a whole",
	  { MULTI, GET("a"), GET("b"), EXEC },
	  "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n" INVALIDATE "*1\r\n" INVALIDATE "$5\r\nAAAAA\r\n" INVALIDATE
	  "$5\r\nBBBBB\r\n",
	  30,
	  { PUSHED(INVALIDATE),
	    PUSHED(INVALIDATE),
	    PUSHED(INVALIDATE),
	    { EXEC,
	      "*2\r\n"
	      "*1\r\n"
	      "$5\r\nAAAAA\r\n"
	      "$5\r\nBBBBB\r\n",
	      M } } },
	{ "RESET ends a transaction and all subscriptions",
	  { MULTI, GET("a"), RESET, GET("b"), SUB("c"), RESET, GET("d") },
	  "+OK\r\n+QUEUED\r\n+RESET\r\n$1\r\nB\r\n" SUBSCRIBED("*", "c", "1") "+RESET\r\n" MESSAGE("*", "c", "abc"),
	  0,
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
	__u8 kind = want->kind & ~D;
	size_t kept = strlen(head);

	if (rec->bytes != strlen(want->reply))
		fail_msg("%s, cut at %zu: record %zu has %llu bytes, not %zu", t->name, cut, i, rec->bytes,
			 strlen(want->reply));
	/* The last outstanding command is no longer pipelined, unless it was read so. */
	if (rec->kind != kind && !(kind == P && rec->kind == KIND_SIMPLE))
		fail_msg("%s, cut at %zu: record %zu is of kind %u", t->name, cut, i, rec->kind);
	if (rec->attribution != (want->kind & D ? ATTRIBUTION_AMBIGUOUS : ATTRIBUTION_EXACT))
		fail_msg("%s, cut at %zu: record %zu has attribution %u", t->name, cut, i, rec->attribution);
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
	assert_int_equal(tracked_outstanding(&c->conn), 0);
	assert_int_equal(c->conn.plain_until, TRACKED_NONE);
	assert_int_equal(c->conn.reply.exec_header, 0);
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

/* Requests cut at every byte give the same tracked commands. */
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

/* ---- the client's identity ---- */

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
	say(c, CMD2("$5\r\nhello\r\n", "$1\r\n3\r\n"), "%1\r\n$6\r\nserver\r\n+redis\r\n");
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
	assert_int_equal(host_identity_failures, 0);
	say(c, CMD2("$5\r\nHELLO\r\n", "$1\r\n4\r\n"), "-NOPROTO no\r\n");
	say(c, "HELLO 2 AUTH a b\r\n", "-WRONGPASS no\r\n");
	assert_int_equal(host_identity_failures, 2);
	assert_int_equal(host_identity_count, 4);
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
		assert_int_equal(c->conn.session.db, 3);
		say(c, SELECT("9"), "-ERR DB index is out of range\r\n");
		assert_int_equal(c->conn.session.db, 3);
		/* replylog does not read the arguments of a typed line. */
		say(c, "SELECT \"7\"\r\n", "+OK\r\n");
		assert_int_equal(c->conn.session.db, -1);
		assert_int_equal(host_read(c, select_16, cut), REQUEST_OK);
		say(c, select_16 + cut, "+OK\r\n");
		assert_int_equal(c->conn.session.db, 16);
		say(c, RESET, "+RESET\r\n");
		assert_int_equal(c->conn.session.db, 0);
		say(c, MULTI, "+OK\r\n");
		say(c, SELECT("3"), "+QUEUED\r\n");
		assert_int_equal(c->conn.session.db, -1);
		free(c);
	}
}

/* ---- what replylog can't follow ---- */

static void test_subscribing_in_a_transaction(void **state)
{
	struct host_conn *c = host_connect();

	(void)state;
	host_reset(0, 4);
	say(c, MULTI, "+OK\r\n");
	assert_int_equal(host_read(c, SUB("c"), strlen(SUB("c"))), REQUEST_OK);
	assert_int_equal(host_write(c, "+QUEUED\r\n", 9), REPLY_DRAINS);
	free(c);
}

static void test_too_many_tracked_commands(void **state)
{
	struct host_conn *c = host_connect();
	int i;

	(void)state;
	host_reset(0, 0);
	for (i = 0; i < INLINE_TRACKED; i++)
		assert_int_equal(host_read(c, SELECT("1"), strlen(SELECT("1"))), REQUEST_OK);
	assert_int_equal(host_read(c, GET("a"), strlen(GET("a"))), REQUEST_OK);
	assert_int_equal(host_read(c, SELECT("2"), strlen(SELECT("2"))), REQUEST_TOO_MANY_TRACKED);
	assert_int_equal(outstanding(&c->conn), INLINE_TRACKED + 1);
	for (i = 0; i < INLINE_TRACKED; i++)
		assert_int_equal(host_write(c, "+OK\r\n", 5), REPLY_OK);
	assert_int_equal(host_write(c, "$-1\r\n", 5), REPLY_OK);
	assert_int_equal(host_count, INLINE_TRACKED + 1);
	assert_int_equal(host_write(c, "+OK\r\n", 5), REPLY_UNASKED);
	free(c);
}

#define MANY 1000

/* Requests or replies, repeated in one buffer. */
static char *repeated(const char *text, int times, size_t *len)
{
	char *all = malloc(strlen(text) * times + 1);

	for (*len = 0; times--; *len += strlen(text))
		strcpy(all + *len, text);
	return all;
}

/* One read with all requests, and writes of some bytes each with the replies. */
static void many(struct host_conn *c, const char *request, const char *reply, size_t piece)
{
	size_t len, at;
	char *all = repeated(request, MANY, &len);

	assert_int_equal(host_read(c, all, len), REQUEST_OK);
	free(all);
	all = repeated(reply, MANY, &len);
	for (at = 0; at < len; at += piece)
		assert_int_equal(host_write(c, all + at, piece < len - at ? piece : len - at), REPLY_OK);
	free(all);
	assert_int_equal(outstanding(&c->conn), 0);
	assert_int_equal(tracked_outstanding(&c->conn), 0);
	assert_int_equal(host.free_count, HOST_BLOCKS);
}

/* A thousand transactions at once: each reply belongs to its command, with its argv. */
static void test_many_transactions(void **state)
{
	static const char *const snapshots[] = { MULTI, GET("a"), GET("b"), GET("a"), GET("b") };
	static const size_t bytes[] = { 5, 9, 9, 7, 57 };
	static const size_t pieces[] = { 1, 7, 1000, 1 << 20 };
	size_t i, j;

	(void)state;
	for (j = 0; j < 4; j++) {
		struct host_conn *c = host_connect();

		host_reset(0, HOST_BLOCKS);
		many(c, MULTI GET("a") GET("b") EXEC,
		     "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n$1\r\nA\r\n$50\r\n" X16 X16 X16 "xx\r\n", pieces[j]);
		assert_int_equal(host_count, 5 * MANY);
		for (i = 0; i < host_count; i++) {
			assert_int_equal(host_records[i].bytes, bytes[i % 5]);
			assert_int_equal(host_records[i].kind == KIND_MULTI, i % 5 != 0);
			assert_int_equal(host_records[i].status, ARGV_KEPT);
			assert_int_equal(host_records[i].head_len, strlen(snapshots[i % 5]));
			assert_memory_equal(host_records[i].head, snapshots[i % 5], strlen(snapshots[i % 5]));
			assert_int_equal(host_records[i].attribution, ATTRIBUTION_EXACT);
		}
		free(c);
	}
}

static void message(struct host_conn *c, bool resp3)
{
	const char *bytes = resp3 ? MESSAGE(">", "c", "one") : MESSAGE("*", "c", "one");

	assert_int_equal(host_write(c, bytes, strlen(bytes)), REPLY_OK);
}

/* A thousand subscriptions at once, and then all their ends. */
static void test_many_subscriptions(void **state)
{
	static const char *const replies[][3] = {
		{ SUBSCRIBED("*", "c", "1"), UNSUBSCRIBED("*", "c", "0"), "-ERR only (P|S)SUBSCRIBE are allowed\r\n" },
		{ SUBSCRIBED(">", "c", "1"), UNSUBSCRIBED(">", "c", "0"), "$3\r\nabc\r\n" },
	};
	char both[256];
	size_t i, j;

	(void)state;
	for (j = 0; j < 2; j++) {
		struct host_conn *c = host_connect();

		host_reset(0, HOST_BLOCKS);
		snprintf(both, sizeof(both), "%s%s", replies[j][0], replies[j][2]);
		many(c, SUB("c") GET("a"), both, 1000);
		message(c, j);
		many(c, UNSUB("c"), replies[j][1], 1000);
		assert_int_equal(host_count, 3 * MANY + 1);
		for (i = 0; i < host_count; i++) {
			assert_int_equal(host_records[i].push, i == 2 * MANY);
			assert_int_equal(host_records[i].attribution, ATTRIBUTION_EXACT);
		}
		free(c);
	}
}

/*
 * As many tracked commands as there is room for are added and removed, with any numbers, also those that start again at
 * 0. Each is found, and all blocks are freed.
 */
static void test_tracked_commands_come_and_go(void **state)
{
	struct host_conn *c = host_connect();
	struct connection *conn = &c->conn;
	__u32 rounds, n, most, added, i;

	(void)state;
	srand(1);
	host_reset(0, TRACKED_BLOCKS);
	conn->tracked_from = conn->tracked_to = 0u - 3 * (__u32)BLOCK_TRACKED - 7;
	for (rounds = 0, added = 0; rounds < 3000; rounds++) {
		most = rounds % 100 == 99 ? TRACKED_MAX : rand() % 3 ? 40 : 3 * BLOCK_TRACKED;
		for (n = rand() % (most + 2); n && tracked_outstanding(conn) < most; n--, added++, conn->read_seq++)
			assert_int_equal(tracked_add(conn, COMMAND_SELECT, added % 1000000), 0);
		if (tracked_outstanding(conn) == TRACKED_MAX)
			assert_int_equal(tracked_add(conn, COMMAND_SELECT, 0), -1);
		for (n = rand() % (most + 2), i = 0; i < n && tracked_outstanding(conn); i++, conn->reply_seq++) {
			assert_non_null(tracked_current(conn));
			assert_int_equal(conn->next_tracked.number, conn->reply_seq % 1000000);
			tracked_done(conn);
		}
		if (!tracked_outstanding(conn))
			assert_int_equal(host.free_count, TRACKED_BLOCKS);
	}
	assert_true(added > 40 * TRACKED_MAX);
	tracked_forget(conn);
	assert_int_equal(host.free_count, TRACKED_BLOCKS);
	free(c);
}

/* Behind a command that replylog gave up, a confirmation is not logged as a push. Messages are. */
static void test_confirmations_of_what_was_given_up(void **state)
{
	static const char *const confirmations[] = {
		SUBSCRIBED(">", "d", "2"),
		UNSUBSCRIBED(">", "c", "0"),
		SUNSUBSCRIBED(">", "s", "0"),
		SUBSCRIBED("*", "d", "2"),
	};
	size_t i;

	(void)state;
	for (i = 0; i < 4; i++) {
		struct host_conn *c = host_connect();
		bool resp3 = *confirmations[i] == '>';

		host_reset(0, 4);
		say(c, SUB("c"), resp3 ? SUBSCRIBED(">", "c", "1") : SUBSCRIBED("*", "c", "1"));
		c->conn.mode = MODE_DRAINING;
		message(c, resp3);
		assert_int_equal(host_count, 2);
		assert_int_equal(host_write(c, confirmations[i], strlen(confirmations[i])), REPLY_UNASKED);
		assert_int_equal(host_count, 2);
		free(c);
	}
}

/* A server without cluster mode never unsubscribes by itself. */
static void test_unsubscribing_without_a_cluster(void **state)
{
	static const char *const type[] = { "*", ">" };
	char reply[128];
	size_t i;

	(void)state;
	for (i = 0; i < 2; i++) {
		struct host_conn *c = host_connect();

		host_reset(0, 4);
		host.not_in_cluster = true;
		snprintf(reply, sizeof(reply), "%s3\r\n$10\r\nssubscribe\r\n$1\r\ns\r\n:1\r\n", type[i]);
		say(c, SSUB("s"), reply);
		snprintf(reply, sizeof(reply), "%s3\r\n$12\r\nsunsubscribe\r\n$1\r\ns\r\n:0\r\n", type[i]);
		say(c, SUNSUB("s"), reply);
		say(c, GET("a"), "-ERR an error\r\n");
		assert_int_equal(host_count, 3);
		while (host_count--)
			assert_int_equal(host_records[host_count].attribution, ATTRIBUTION_EXACT);
		assert_false(c->conn.subscriber);
		free(c);
	}
}

static void test_confirmations_that_do_not_add_up(void **state)
{
	static const char *const replies[] = {
		SUBSCRIBED("*", "c", "1") "$1\r\nA\r\n",            /* the second confirmation is missing */
		SUBSCRIBED("*", "c", "1") MESSAGE("*", "c", "abc"), /* nothing may arrive between them */
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

/*
 * The server ends the subscription that the client's outstanding command names: it confirms that by itself, and then
 * answers.
 */
static void test_server_unsubscribes_and_refuses(void **state)
{
	static const char *const answers[] = {
		"-MOVED 1 :1\r\n", SUNSUBSCRIBED("*", "s", "0"), /* the server has the slot again */
	};
	size_t i;

	(void)state;
	for (i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
		struct host_conn *c = host_connect();

		host_reset(0, 4);
		say(c, SSUB("s"), SSUBSCRIBED("*", "s", "1"));
		assert_int_equal(host_read(c, SUNSUB("s") GET("a"), strlen(SUNSUB("s") GET("a"))), REQUEST_OK);
		assert_int_equal(host_write(c, SUNSUBSCRIBED("*", "s", "0"), strlen(SUNSUBSCRIBED("*", "s", "0"))),
				 REPLY_OK);
		assert_int_equal(host_write(c, answers[i], strlen(answers[i])), REPLY_DOUBTFUL);
		assert_int_equal(host_count, 2);
		assert_int_equal(host_records[1].attribution, ATTRIBUTION_AMBIGUOUS);
		free(c);
	}
}

/* ---- connections that close in the middle ---- */

/* SUNSUBSCRIBE from s is outstanding, and the connection closes behind these bytes. Were they its confirmation? */
static bool cut_off_in_sunsubscribe(const char *bytes)
{
	struct host_conn *c = host_connect();
	bool confirming;

	host_reset(0, 4);
	say(c, SSUB("s"), SSUBSCRIBED(">", "s", "1"));
	assert_int_equal(host_read(c, SUNSUB("s"), strlen(SUNSUB("s"))), REQUEST_OK);
	assert_int_equal(host_write(c, bytes, strlen(bytes)), REPLY_OK);
	confirming = attribution_closes(&c->conn, &c->work);
	free(c);
	return confirming;
}

static void test_cut_off_inside_a_confirmation(void **state)
{
	(void)state;
	assert_false(cut_off_in_sunsubscribe(">3\r\n$12\r\nsunsubscribe\r\n$1\r\nt\r\n"));
	assert_int_equal(host_records[1].kind, KIND_PUSH);
	assert_true(cut_off_in_sunsubscribe(">3\r\n$12\r\nsunsubscribe\r\n$1\r\ns\r\n"));
	assert_int_equal(host_records[1].kind, KIND_SIMPLE);
	assert_int_equal(host_records[1].attribution, ATTRIBUTION_AMBIGUOUS);
}

static void test_cut_off_inside_a_transaction(void **state)
{
	static const char reply[] = "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n$1\r\nA\r\n$20\r\n0123456789";
	struct host_conn *c = host_connect();

	(void)state;
	host_reset(15, 4);
	assert_int_equal(host_read(c, MULTI GET("a") GET("b") EXEC, strlen(MULTI GET("a") GET("b") EXEC)), REQUEST_OK);
	assert_int_equal(host_write(c, reply, strlen(reply)), REPLY_OK);
	assert_int_equal(host_count, 0);
	assert_true(attribution_closes(&c->conn, &c->work));
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
	assert_true(attribution_closes(&c->conn, &c->work));
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
	assert_false(attribution_closes(&c->conn, &c->work));
	assert_int_equal(host_count, 1);
	assert_int_equal(host_records[0].kind, KIND_PUSH);
	assert_int_equal(host_records[0].bytes, 26);
	assert_int_equal(host_records[0].expected, 525);
	free(c);
}

/* Too few bytes to tell a message from a reply: no reply counts as begun, also when none is outstanding. */
static void test_cut_off_where_a_push_begins(void **state)
{
	static const char reply[] = SUBSCRIBED("*", "c", "1") "*3\r\n$7\r\nme";
	struct host_conn *c = host_connect();

	(void)state;
	host_reset(0, 4);
	assert_int_equal(host_read(c, SUB("c"), strlen(SUB("c"))), REQUEST_OK);
	assert_int_equal(host_write(c, reply, strlen(reply)), REPLY_OK);
	assert_int_equal(host_count, 1);
	assert_int_equal(outstanding(&c->conn), 0);
	assert_false(attribution_closes(&c->conn, &c->work));
	assert_int_equal(host_count, 1);
	free(c);

	c = host_connect();
	host_reset(0, 4);
	assert_int_equal(host_read(c, GET("a"), strlen(GET("a"))), REQUEST_OK);
	assert_int_equal(host_write(c, "*2\r\n:1\r\n>2\r\n$10", 16), REPLY_OK);
	assert_true(attribution_closes(&c->conn, &c->work));
	assert_int_equal(host_count, 1);
	assert_int_equal(host_records[0].bytes, 8);
	free(c);
}

/* Queued commands keep their argv until EXEC, over many reads and beyond the first page. */
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

/* ---- random conversations with a model of the server ---- */

#define COMMANDS_MAX 120
#define CHANNELS 4

struct truth {
	size_t bytes;
	int command; /* -1: a push */
	bool multi;
};

/* The state of the modelled server, and what it has sent. */
static struct model {
	char in[65536], out[262144];
	size_t in_len, out_len;
	size_t request_end[COMMANDS_MAX]; /* the end of each request in in */
	size_t reply_end[COMMANDS_MAX];   /* and of its reply in out */
	struct truth truth[8 * COMMANDS_MAX];
	size_t truths;
	size_t threshold;
	bool resp3, multi, dirty, irregular;
	bool channel[CHANNELS], pattern[CHANNELS];
	int queued[COMMANDS_MAX], n_queued;
} m;

static void put_in(const char *text)
{
	m.in_len += sprintf(m.in + m.in_len, "%s", text);
}

static size_t put_out(const char *text)
{
	size_t n = sprintf(m.out + m.out_len, "%s", text);

	m.out_len += n;
	return n;
}

static void expect(size_t bytes, int command, bool multi)
{
	if (bytes >= m.threshold)
		m.truth[m.truths++] = (struct truth){ bytes, command, multi };
}

static int subscriptions(const bool *of)
{
	int i, n = 0;

	for (i = 0; i < CHANNELS; i++)
		n += of[i];
	return n;
}

static bool is_subscribed(void)
{
	return subscriptions(m.channel) || subscriptions(m.pattern);
}

/* Adds a push where one may arrive. Returns its size. */
static size_t maybe_push(void)
{
	char text[256];

	if (rand() % 4)
		return 0;
	if (m.resp3 && rand() % 2)
		sprintf(text, INVALIDATE);
	else if (is_subscribed())
		sprintf(text, "%c3\r\n$7\r\nmessage\r\n$1\r\na\r\n$%d\r\n%0*d\r\n", m.resp3 ? '>' : '*', 1 + rand() % 40, 0,
			0);
	else
		return 0;
	if (strchr(text, 'm')) {
		int n = 1 + rand() % 40;

		sprintf(text, "%c3\r\n$7\r\nmessage\r\n$1\r\na\r\n$%d\r\n%0*d\r\n", m.resp3 ? '>' : '*', n, n, 0);
	}
	expect(put_out(text), -1, false);
	return strlen(text);
}

/* Adds a reply of any shape, with pushes between its elements where RESP3 allows them. Returns its size without them. */
static size_t some_reply(int depth)
{
	static const char *const lines[] = { "+OK\r\n", ":12\r\n", "$-1\r\n", "*0\r\n", "-ERR some error or other\r\n" };
	size_t n, own = 0;
	int i, count;

	if (depth > 2 || rand() % 3) {
		if (rand() % 2)
			return put_out(lines[rand() % 5]);
		count = rand() % 60;
		n = sprintf(m.out + m.out_len, "$%d\r\n%.*s\r\n", count, count, X128);
		m.out_len += n;
		return n;
	}
	count = rand() % 5;
	n = sprintf(m.out + m.out_len, "*%d\r\n", count);
	m.out_len += n;
	own = n;
	for (i = 0; i < count; i++) {
		if (m.resp3)
			maybe_push();
		own += some_reply(depth + 1);
	}
	return own;
}

static void answer(const char *text, int command, bool multi)
{
	expect(put_out(text), command, multi);
}

/* Adds confirmations for a mask of channels, or for all channels when it is 0. */
static void confirm(int command, bool *of, const bool *other, bool on, bool patterns, int mask)
{
	size_t bytes = 0;
	char text[128];
	int i, all = 0;

	for (i = 0; i < CHANNELS; i++)
		all |= of[i] << i;
	if (!mask && !all)
		bytes = put_out(m.resp3 ? ">" : "*") + sprintf(text, "3\r\n$%d\r\n%sunsubscribe\r\n$-1\r\n:%d\r\n",
							       patterns ? 12 : 11, patterns ? "p" : "",
							       subscriptions(other)),
		put_out(text);
	for (i = 0; i < CHANNELS; i++) {
		if (!((mask ? mask : all) >> i & 1))
			continue;
		of[i] = on;
		sprintf(text, "%c3\r\n$%d\r\n%s%ssubscribe\r\n$1\r\n%c\r\n:%d\r\n", m.resp3 ? '>' : '*',
			9 + patterns + 2 * !on, patterns ? "p" : "", on ? "" : "un", 'a' + i,
			subscriptions(of) + subscriptions(other));
		bytes += put_out(text);
	}
	expect(bytes, command, false);
}

static void subscribe(int command)
{
	bool on = rand() % 2, patterns = rand() % 2;
	int mask = on ? 1 + rand() % 15 : rand() % 16, i, n = 0;
	char text[256];

	for (i = 0; i < CHANNELS; i++)
		n += mask >> i & 1;
	m.in_len += sprintf(m.in + m.in_len, "*%d\r\n$%d\r\n%s%sSUBSCRIBE\r\n", 1 + n, 9 + patterns + 2 * !on,
			    patterns ? "P" : "", on ? "" : "un");
	for (i = 0; i < CHANNELS; i++) {
		sprintf(text, "$1\r\n%c\r\n", 'a' + i);
		if (mask >> i & 1)
			put_in(text);
	}
	if (rand() % 8 == 0)
		answer("-NOPERM this user can't\r\n", command, false);
	else
		confirm(command, patterns ? m.pattern : m.channel, patterns ? m.channel : m.pattern, on, patterns, mask);
}

static void end_transaction(void)
{
	m.multi = m.dirty = m.irregular = false;
	m.n_queued = 0;
}

static void exec(int command)
{
	size_t own = 0, inner, before = m.truths, start;
	bool logged = false, irregular = m.irregular;
	int i;

	put_in(EXEC);
	if (!m.multi) {
		answer("-ERR EXEC without MULTI\r\n", command, false);
	} else if (m.dirty) {
		answer("-EXECABORT Transaction discarded\r\n", command, true);
	} else if (rand() % 6 == 0) {
		answer(m.resp3 ? "_\r\n" : "*-1\r\n", command, true);
	} else {
		start = m.out_len;
		m.out_len += sprintf(m.out + m.out_len, "*%d\r\n", m.n_queued);
		own = m.out_len - start;
		for (i = 0; i < m.n_queued; i++) {
			if (m.resp3)
				maybe_push();
			inner = some_reply(0);
			own += inner;
			if (!irregular) {
				expect(inner, m.queued[i], true);
				logged |= inner >= m.threshold;
			}
		}
		(void)before;
		if (!logged)
			expect(own, command, true);
	}
	end_transaction();
}

/* A command that is queued in a transaction, and refused by a RESP2 subscriber. */
static void plain(int command)
{
	char text[64];

	sprintf(text, "*2\r\n$3\r\nGET\r\n$5\r\n%05d\r\n", command);
	put_in(text);
	if (is_subscribed() && !m.resp3) {
		answer("-ERR only (P|S)SUBSCRIBE are allowed\r\n", command, m.multi);
		m.dirty |= m.multi;
	} else if (rand() % 12 == 0) {
		answer("-NOPERM this user can't\r\n", command, m.multi);
		m.dirty |= m.multi;
	} else if (m.multi) {
		m.queued[m.n_queued++] = command;
		answer("+QUEUED\r\n", command, true);
	} else {
		expect(some_reply(0), command, false);
	}
}

static void transaction_command(int command)
{
	switch (rand() % 6) {
	case 0:
	case 1:
		put_in(MULTI);
		if (!m.multi) {
			m.multi = true;
			answer("+OK\r\n", command, false);
		} else {
			m.irregular = true;
			answer("-ERR MULTI calls can not be nested\r\n", command, true);
		}
		break;
	case 2:
		put_in(DISCARD);
		answer(m.multi ? "+OK\r\n" : "-ERR DISCARD without MULTI\r\n", command, m.multi);
		end_transaction();
		break;
	default:
		exec(command);
	}
}

static void one_command(int command)
{
	int kind = rand() % 16;

	maybe_push();
	/*
	 * replylog gives up on subscriptions inside MULTI, so the model has none. A RESP2 subscriber can't begin a
	 * transaction.
	 */
	if (kind == 0 && !m.multi) {
		subscribe(command);
	} else if (kind == 1) {
		put_in(RESET);
		answer("+RESET\r\n", command, m.multi);
		end_transaction();
		memset(m.channel, 0, sizeof(m.channel));
		memset(m.pattern, 0, sizeof(m.pattern));
		m.resp3 = false;
	} else if (kind == 2 && !m.multi && (m.resp3 || !is_subscribed())) {
		put_in(SELECT("1"));
		answer("+OK\r\n", command, false);
	} else if (kind == 3 && !m.multi && !is_subscribed()) {
		m.resp3 = !m.resp3;
		put_in(m.resp3 ? CMD2("$5\r\nHELLO\r\n", "$1\r\n3\r\n") : CMD2("$5\r\nHELLO\r\n", "$1\r\n2\r\n"));
		answer(m.resp3 ? "%1\r\n$6\r\nserver\r\n:3\r\n" : "*2\r\n$6\r\nserver\r\n:2\r\n", command, false);
	} else if (kind < 8 && (m.resp3 || !is_subscribed())) {
		transaction_command(command);
	} else {
		plain(command);
	}
	m.request_end[command] = m.in_len;
	m.reply_end[command] = m.out_len;
}

static void check_truth(unsigned int seed)
{
	size_t i;

	for (i = 0; i < m.truths && i < host_count; i++) {
		const struct truth *t = &m.truth[i];
		const struct host_record *rec = &host_records[i];

		if (rec->bytes != t->bytes || rec->push != (t->command < 0) ||
		    (!rec->push && rec->seq != (__u64)t->command) || (rec->kind == KIND_MULTI) != t->multi)
			fail_msg("seed %u: record %zu has %llu bytes, command %lld, kind %u; not %zu, %d, %s", seed, i,
				 rec->bytes, (long long)rec->seq, rec->kind, t->bytes, t->command,
				 t->multi ? "multi" : "other");
	}
	if (host_count != m.truths)
		fail_msg("seed %u: %zu records, not %zu", seed, host_count, m.truths);
}

/* Requests and replies in pieces of any size, a reply never before its request. */
static void play(unsigned int seed, int commands)
{
	struct host_conn *c = host_connect();
	size_t in = 0, out = 0, n;
	int asked = 0, may;

	host_reset(m.threshold, 64);
	while (in < m.in_len || out < m.out_len) {
		if (in < m.in_len && (rand() % 2 || !asked || out == m.reply_end[asked - 1])) {
			n = 1 + rand() % (rand() % 4 ? 40 : 2000);
			n = n < m.in_len - in ? n : m.in_len - in;
			if (host_read(c, m.in + in, n) != REQUEST_OK)
				fail_msg("seed %u: verdict %u at %zu of the input", seed, c->work.verdict, in);
			in += n;
		}
		while (asked < commands && m.request_end[asked] <= in)
			asked++;
		may = asked ? asked - 1 : -1;
		if (may < 0 || out >= m.reply_end[may])
			continue;
		n = 1 + rand() % (rand() % 4 ? 40 : 2000);
		n = n < m.reply_end[may] - out ? n : m.reply_end[may] - out;
		if (host_write(c, m.out + out, n) != REPLY_OK)
			fail_msg("seed %u: verdict %u at %zu of the output", seed, c->work.verdict, out);
		out += n;
	}
	check_truth(seed);
	assert_int_equal(host.free_count + c->conn.blocks_to - c->conn.blocks_from, 64);
	free(c);
}

static void test_random_conversations(void **state)
{
	const char *rounds = getenv("REPLYLOG_CONVERSATIONS");
	unsigned int seed, n = rounds ? strtoul(rounds, NULL, 10) : 3000;

	(void)state;
	for (seed = 1; seed <= n; seed++) {
		int commands, i;

		srand(seed);
		memset(&m, 0, sizeof(m));
		m.threshold = rand() % 2 ? 0 : rand() % 80;
		commands = 1 + rand() % (rand() % 3 ? 20 : COMMANDS_MAX - 1);
		for (i = 0; i < commands; i++)
			one_command(i);
		play(seed, commands);
	}
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
		cmocka_unit_test(test_too_many_tracked_commands),
		cmocka_unit_test(test_many_transactions),
		cmocka_unit_test(test_many_subscriptions),
		cmocka_unit_test(test_tracked_commands_come_and_go),
		cmocka_unit_test(test_confirmations_of_what_was_given_up),
		cmocka_unit_test(test_unsubscribing_without_a_cluster),
		cmocka_unit_test(test_confirmations_that_do_not_add_up),
		cmocka_unit_test(test_server_unsubscribes_and_refuses),
		cmocka_unit_test(test_cut_off_inside_a_confirmation),
		cmocka_unit_test(test_cut_off_inside_a_transaction),
		cmocka_unit_test(test_cut_off_transaction_is_logged_whole),
		cmocka_unit_test(test_cut_off_inside_a_push),
		cmocka_unit_test(test_cut_off_where_a_push_begins),
		cmocka_unit_test(test_long_transaction_keeps_argv),
		cmocka_unit_test(test_random_conversations),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
