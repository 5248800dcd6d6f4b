/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Replies as hiredis reads them (redisReader, read.c of hiredis 1.2): where each one ends, and why it stops. */
#ifndef REPLYLOG_TESTS_FUZZ_READ_REPLIES_H
#define REPLYLOG_TESTS_FUZZ_READ_REPLIES_H

#include <stdbool.h>
#include <string.h>

#include "read.h"

#include "input.h"

#define REPLIES_MAX 65536

struct replies_read {
	const uint8_t *bytes; /* the bytes that hiredis gets */
	const uint8_t *wire;  /* the bytes that the framer gets: the same except for types that hiredis doesn't know */
	size_t fed;
	redisReader *reader;
	struct {
		size_t end;
		bool push;
	} reply[REPLIES_MAX];
	size_t n;
	bool refused;
	char error[128];
	/* The bytes after the type of an unfinished or refused item. None when hiredis waits for a type. */
	const uint8_t *text;
	size_t text_len;
	/* A null other than "$-1", "*-1" and "_" came, in this reply. */
	bool odd_null;
	size_t odd_null_at;
};

static void *made(const redisReadTask *task)
{
	return (void *)(uintptr_t)task->type;
}

static void *made_string(const redisReadTask *task, char *bytes, size_t len)
{
	(void)bytes;
	(void)len;
	return made(task);
}

static void *made_array(const redisReadTask *task, size_t n)
{
	(void)n;
	return made(task);
}

static void *made_integer(const redisReadTask *task, long long value)
{
	(void)value;
	return made(task);
}

static void *made_double(const redisReadTask *task, double value, char *text, size_t len)
{
	(void)value;
	(void)text;
	(void)len;
	return made(task);
}

static void *made_nil(const redisReadTask *task)
{
	struct replies_read *r = task->privdata;
	size_t at = r->fed - r->reader->len + r->reader->pos;
	/* Of a bulk, pos is behind its type (processBulkItem); of the others it is behind the line. */
	bool blob_error = task->type == REDIS_REPLY_STRING && r->wire[at - 1] == '!';

	if (!r->odd_null && (blob_error || (task->type != REDIS_REPLY_STRING && task->type != REDIS_REPLY_ARRAY &&
					    task->type != REDIS_REPLY_NIL))) {
		r->odd_null = true;
		r->odd_null_at = r->n;
	}
	return (void *)(uintptr_t)REDIS_REPLY_NIL;
}

static void *made_bool(const redisReadTask *task, int value)
{
	(void)value;
	return made(task);
}

static void freed(void *reply)
{
	(void)reply;
}

/* What hiredis has not consumed yet. It is behind the type when there is one. */
static void note_text(struct replies_read *r, size_t more)
{
	r->text_len = r->reader->len - r->reader->pos + more;
	r->text = r->bytes + r->fed + more - r->text_len;
}

static void read_on(struct replies_read *r, size_t len)
{
	void *reply;

	redisReaderFeed(r->reader, (const char *)r->bytes + r->fed, len);
	r->fed += len;
	while (redisReaderGetReply(r->reader, &reply) == REDIS_OK && reply) {
		CHECK(r->n < REPLIES_MAX);
		r->reply[r->n].end = r->fed - (r->reader->len - r->reader->pos);
		r->reply[r->n++].push = reply == (void *)(uintptr_t)REDIS_REPLY_PUSH;
	}
	r->refused = r->reader->err;
}

static void read_in_steps(struct replies_read *r, const uint8_t *bytes, const uint8_t *wire, size_t len, size_t step)
{
	static redisReplyObjectFunctions functions = {
		made_string, made_array, made_integer, made_double, made_nil, made_bool, freed,
	};

	r->bytes = bytes;
	r->wire = wire;
	r->fed = r->n = 0;
	r->refused = r->odd_null = false;
	r->reader = redisReaderCreateWithFunctions(&functions);
	CHECK(r->reader);
	r->reader->privdata = r;
	while (r->fed < len && !r->refused) {
		note_text(r, step);
		read_on(r, step);
	}
	if (!r->refused)
		note_text(r, 0);
	snprintf(r->error, sizeof(r->error), "%s", r->reader->errstr);
	redisReaderFree(r->reader);
}

/* After an error hiredis does not say where it was, so this reads again, byte by byte. */
static void read_replies(struct replies_read *r, const uint8_t *bytes, const uint8_t *wire, size_t len)
{
	read_in_steps(r, bytes, wire, len, len);
	if (r->refused)
		read_in_steps(r, bytes, wire, len, 1);
}

#endif
