/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/session/held.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int held_init(struct held *held, uint32_t connections)
{
	memset(held, 0, sizeof(*held));
	held->connections = connections;
	/* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers */
	held->of = calloc(connections, sizeof(*held->of));
	return held->of ? 0 : -ENOMEM;
}

void held_free(struct held *held)
{
	while (held->all)
		/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): held_close() moves held->all on */
		held_close(held, held->all);
	free(held->of);
	memset(held, 0, sizeof(*held));
}

static void append(struct held *held, struct held_connection *conn)
{
	conn->before = held->last;
	conn->after = NULL;
	if (conn->before)
		conn->before->after = conn;
	else
		held->all = conn;
	held->last = conn;
}

static void take_out(struct held *held, struct held_connection *conn)
{
	if (conn->before)
		conn->before->after = conn->after;
	else
		held->all = conn->after;
	if (conn->after)
		conn->after->before = conn->before;
	else
		held->last = conn->before;
}

struct held_connection *held_find(const struct held *held, const struct reply_record *rec)
{
	return rec->connection < held->connections ? held->of[rec->connection] : NULL;
}

struct held_connection *held_open(struct held *held, const struct reply_record *rec)
{
	struct held_connection *conn = held_find(held, rec);

	if (conn || rec->connection >= held->connections)
		return conn;
	conn = calloc(1, sizeof(*conn));
	if (!conn)
		return NULL;
	conn->number = rec->connection;
	conn->generation = rec->generation;
	append(held, conn);
	held->of[conn->number] = conn;
	return conn;
}

void held_to_end(struct held *held, struct held_connection *conn)
{
	take_out(held, conn);
	append(held, conn);
}

int held_add(struct held *held, struct held_connection *conn, const struct reply_record *rec, size_t size, uint64_t now_ns)
{
	struct held_item *item = held->bytes < HELD_BYTES_MAX ? malloc(sizeof(*item) - sizeof(item->rec) + size) : NULL;

	if (!item)
		return -ENOMEM;
	item->next = NULL;
	item->since_ns = now_ns;
	item->size = size;
	memcpy(&item->rec, rec, size);
	if (conn->last)
		conn->last->next = item;
	else
		conn->first = item;
	conn->last = item;
	held->bytes += size;
	return 0;
}

struct held_item *held_take(struct held *held, struct held_connection *conn)
{
	struct held_item *item = conn->first;

	if (!item)
		return NULL;
	conn->first = item->next;
	if (!conn->first)
		conn->last = NULL;
	held->bytes -= item->size;
	return item;
}

void held_close(struct held *held, struct held_connection *conn)
{
	struct held_item *item;

	while ((item = held_take(held, conn)))
		free(item);
	take_out(held, conn);
	held->of[conn->number] = NULL;
	free(conn);
}
