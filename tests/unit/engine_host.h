/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The engine's own headers, compiled for the host. This file replaces only what the kernel provides: maps, the clock,
 * the ring buffer.
 */
#ifndef REPLYLOG_TESTS_UNIT_ENGINE_HOST_H
#define REPLYLOG_TESTS_UNIT_ENGINE_HOST_H

#include <linux/types.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "bpf/conn/debug.h"
#include "bpf/conn/request.h"
#include "bpf/conn/reply.h"

#include "user/server/known_names.h"

#define HOST_BLOCKS 128

static struct {
	struct argv_block block[HOST_BLOCKS];
	__u32 free[HOST_BLOCKS];
	__u32 free_count;
	__u64 threshold;
	__u64 pipeline_limit;
	__u64 clock;
	bool auth_is_silent, blank_lines_confuse, not_in_cluster;
	bool modules_ran;
	bool dispatch; /* --dispatch, and the executions for the one connection */
	struct dispatch_log dispatches;
	unsigned int disagreed;
} host;

/* The contents of the ring buffer. */
struct host_record {
	__u64 seq;
	__u64 bytes;
	__u64 first_ns, last_ns, request_ns;
	__u64 request_bytes;
	__u64 expected;
	__u64 exec_ns;
	__u32 writes;
	__u32 head_len;
	__s32 db;
	__u8 state, push, status, kind, attribution, certain;
	__u8 head[ARGV_HEAD_MAX + 64];
};

static struct {
	struct debug_event last;
	size_t count;
} host_debug;

static struct host_record *host_records;
static size_t host_count, host_room;
/* Commands that gave the client's identity, by number, and how often one was lost. */
static __u64 host_identities[64];
static size_t host_identity_count, host_identity_losses, host_identity_failures;

static void host_reset(__u64 threshold, __u32 blocks)
{
	__u32 i;

	host.threshold = threshold;
	host.pipeline_limit = 1 << 20;
	host.dispatch = host.auth_is_silent = host.blank_lines_confuse = host.not_in_cluster = false;
	memset(&host.dispatches, 0, sizeof(host.dispatches));
	host.disagreed = 0;
	host.clock = 1000;
	host.free_count = 0;
	for (i = 0; i < blocks; i++)
		host.free[host.free_count++] = i;
	host_count = host_identity_count = host_identity_losses = host_identity_failures = 0;
}

__u64 env_now(void)
{
	return ++host.clock;
}

port_hook struct argv_block *block_at(__u32 index)
{
	return index < HOST_BLOCKS ? &host.block[index] : NULL;
}

port_hook int block_take(__u32 *index)
{
	if (!host.free_count)
		return -1;
	*index = host.free[--host.free_count];
	return 0;
}

port_hook void block_give(__u32 index)
{
	host.free[host.free_count++] = index;
}

port_hook __u64 pipeline_limit(void)
{
	return host.pipeline_limit;
}

port_hook __u64 reply_threshold(void)
{
	return host.threshold;
}

port_hook bool auth_may_be_silent(void)
{
	return host.auth_is_silent;
}

port_hook bool blank_lines_may_confuse(void)
{
	return host.blank_lines_confuse;
}

port_hook bool name_is_known(__u64 key)
{
	static __u64 table[KNOWN_NAMES], seed;

	if (!seed && known_names_fill(table, &seed))
		abort();
	return table[known_name_slot(key, seed)] == key;
}

port_hook void module_has_run(void)
{
	host.modules_ran = true;
}

port_hook bool debugging(void)
{
	return true;
}

/* As the kernel sends it; the last one is kept, and how many there were. */
port_hook void debug_send(struct connection *conn, __u32 why, __u32 what, __u64 position, __u64 number)
{
	__u64 clock = host.clock;

	debug_fill(&host_debug.last, conn, why, what, position, number);
	host.clock = clock;
	host_debug.count++;
}

bool dispatch_probed(void)
{
	return host.dispatch;
}

port_hook bool server_has_slots(void)
{
	return !host.not_in_cluster;
}

port_hook struct dispatch_log *dispatch_log_at(__u32 number)
{
	(void)number;
	return &host.dispatches;
}

port_hook void dispatch_disagrees(void)
{
	host.disagreed++;
}

port_hook void reply_emit(struct connection *conn, struct work *work, const struct reply_end *end)
{
	struct dispatch dispatch;
	struct argv_found found = {};
	struct host_record *rec;

	(void)work;
	if (host_count == host_room) {
		host_room = host_room ? 2 * host_room : 64;
		host_records = realloc(host_records, host_room * sizeof(*host_records));
	}
	rec = &host_records[host_count++];
	memset(rec, 0, sizeof(*rec));
	rec->bytes = end->bytes;
	rec->first_ns = end->first_ns;
	rec->last_ns = end->last_ns;
	rec->writes = end->writes;
	rec->state = end->state;
	rec->expected = end->bytes_expected;
	rec->kind = end->kind;
	rec->attribution = session_attribution(conn);
	rec->certain = pairing_is_certain(conn);
	rec->db = conn->session.db;
	rec->push = end->kind == KIND_PUSH;
	if (rec->push) {
		rec->head_len = conn->session.push_len;
		memcpy(rec->head, conn->push_head, rec->head_len);
		return;
	}
	rec->seq = end->seq;
	rec->exec_ns = host.dispatch && dispatch_find(conn, end->seq, &dispatch) ? dispatch.exec_ns : 0;
	argv_find(conn, end->seq, &found);
	rec->status = found.status;
	if (found.status != ARGV_KEPT)
		return;
	rec->request_ns = found.entry.request_ns;
	rec->request_bytes = argv_request_bytes(conn, end->seq, &found);
	rec->head_len = found.entry.len;
	memcpy(rec->head, (found.block ? found.block->bytes : conn->argv.bytes) + found.entry.off, found.entry.len);
}

port_hook void identity_emit(struct connection *conn, struct work *work, __u32 event)
{
	(void)work;
	if (event == EVENT_IDENTITY_FAILED)
		host_identity_failures++;
	else if (host_identity_count < 64)
		host_identities[host_identity_count++] = conn->reply_seq;
}

port_hook void identity_lost(struct connection *conn, struct work *work)
{
	(void)conn;
	(void)work;
	host_identity_losses++;
}

/* One connection of the tests. Its buffers are copied to fresh heap memory, so that a sanitizer sees every overrun. */
struct host_conn {
	struct connection conn;
	struct work work;
};

static struct host_conn *host_connect(void)
{
	struct host_conn *c = calloc(1, sizeof(*c));

	memset(&c->work, 0xa5, sizeof(c->work));
	/* Kept from one call to the next. */
	memset(&c->work.reply_headers, 0, sizeof(c->work.reply_headers));
	memset(c->work.arg_headers, 0, sizeof(c->work.arg_headers));
	c->conn.mode = MODE_FOLLOWED;
	tracked_forget(&c->conn);
	return c;
}

static enum request_verdict host_read(struct host_conn *c, const void *bytes, size_t len)
{
	void *copy = malloc(len ? len : 1);
	__u32 verdict;

	memcpy(copy, bytes, len);
	pairing_wants_proof(&c->conn);
	verdict = request_frame(&c->conn, &c->work, (unsigned long)copy, len, env_now());
	pairing_after_read(&c->conn);
	free(copy);
	return VERDICT_KIND(verdict);
}

static enum reply_verdict host_write(struct host_conn *c, const void *bytes, size_t len)
{
	void *copy = malloc(len ? len : 1);
	__u32 verdict;

	memcpy(copy, bytes, len);
	verdict = reply_frame_buffer(&c->conn, &c->work, (unsigned long)copy, len);
	free(copy);
	if (verdict == REPLY_OK)
		argv_after_write(&c->conn);
	return VERDICT_KIND(verdict);
}

/* Writes the first len bytes of n pieces. Not every test uses it. */
__attribute__((unused)) static enum reply_verdict host_writev(struct host_conn *c, const struct server_iovec *iov, size_t n,
							      size_t len)
{
	__u32 verdict = reply_frame_iovec(&c->conn, &c->work, (unsigned long)iov, n, len);

	if (verdict == REPLY_OK)
		argv_after_write(&c->conn);
	return VERDICT_KIND(verdict);
}

#endif
