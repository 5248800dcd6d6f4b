/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Records that wait for a check, by connection and in their order. What the check says is not known here. */
#ifndef REPLYLOG_USER_SESSION_HELD_H
#define REPLYLOG_USER_SESSION_HELD_H

#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bpf/abi/record.h"

/* All that waits, together. */
#define HELD_BYTES_MAX (64 << 20)

struct held_item {
	struct held_item *next;
	uint64_t since_ns; /* CLOCK_MONOTONIC */
	size_t size;
	struct reply_record rec; /* and what follows it */
};

/* A connection with items, or one that is refuted. */
struct held_connection {
	struct held_connection *before, *after; /* in the list of all */
	uint32_t number, generation;
	bool refuted; /* what comes of it is ambiguous, until BPF has joined it again */
	struct held_item *first, *last;
	uint64_t look_ns;  /* when to look at it next */
	uint64_t pause_ns; /* and how long to wait after that */
};

struct held {
	struct held_connection **of; /* by connection number */
	uint32_t connections;
	struct held_connection *all, *last; /* whose turn it is to be looked at, first to last */
	size_t bytes;
};

/* For connection numbers below connections. 0 or -ENOMEM; either way held_free() gives back what it holds. */
int held_init(struct held *held, uint32_t connections);
void held_free(struct held *held);

/* What is known of the connection that rec is about, be it of another generation; NULL: nothing. */
struct held_connection *held_find(const struct held *held, const struct reply_record *rec);

/* The same, made where there is nothing. NULL: no memory. */
struct held_connection *held_open(struct held *held, const struct reply_record *rec);

/* Copies rec, of size bytes with what follows it, to the end. 0 or -ENOMEM: also when HELD_BYTES_MAX are reached. */
int held_add(struct held *held, struct held_connection *conn, const struct reply_record *rec, size_t size, uint64_t now_ns);

/* Takes the first item, which becomes the caller's to free(). NULL: there is none. */
struct held_item *held_take(struct held *held, struct held_connection *conn);

/* The connection's turn is over: it is the last one now. */
void held_to_end(struct held *held, struct held_connection *conn);

/* Forgets a connection and what it holds. */
void held_close(struct held *held, struct held_connection *conn);

#endif
