/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The record of a large reply, on its way to user space. */
#ifndef REPLYLOG_EMIT_BPF_H
#define REPLYLOG_EMIT_BPF_H

#include "maps.bpf.h"
#include "peer.bpf.h"
#include "reply.h"

static __u64 reply_threshold(void)
{
	return threshold;
}

/* Copies the head behind the record. Its length, or 0. */
static __always_inline __u32 emit_head(struct connection *conn, struct scratch *scratch, const struct argv_found *found)
{
	__u32 off = found->entry.off, len = found->entry.len;
	__u32 first = len < BLOCK_PART ? len : BLOCK_PART, second = len - first, second_off = off + BLOCK_PART;

	env_opaque(off);
	env_opaque(first);
	env_opaque(second);
	env_opaque(second_off);
	if (!found->block) {
		if (off > INLINE_LIMIT + INLINE_RUN || first > INLINE_PART)
			return 0;
		return env_copy(scratch->out.head, first, conn->argv.bytes + off) ? 0 : first;
	}
	if (off > BLOCK_LIMIT + BLOCK_RUN || first > BLOCK_PART)
		return 0;
	if (env_copy(scratch->out.head, first, found->block->bytes + off))
		return 0;
	if (!second)
		return first;
	if (second_off > BLOCK_LIMIT + BLOCK_RUN || second > BLOCK_PART)
		return 0;
	return env_copy(scratch->out.head + BLOCK_PART, second, found->block->bytes + second_off) ? 0 : len;
}

/* The command that the reply at hand answers: its head and what is known of its reading. */
static __always_inline void emit_command(struct connection *conn, struct scratch *scratch)
{
	struct reply_record *rec = &scratch->out.reply;
	struct argv_found found = {};

	rec->argv_len = 0;
	rec->argv_cut = 0;
	rec->request_ns = rec->request_bytes = 0;
	rec->kind = outstanding(conn) > 1 ? KIND_PIPELINED : KIND_SIMPLE;
	argv_find(conn, conn->reply_seq, &found);
	rec->argv_status = found.status;
	if (found.status != ARGV_KEPT)
		return;
	rec->request_ns = found.entry.request_ns;
	rec->request_bytes = found.entry.request_bytes;
	if (found.entry.pipelined)
		rec->kind = KIND_PIPELINED;
	rec->argv_len = emit_head(conn, scratch, &found);
	if (rec->argv_len < found.entry.len)
		rec->argv_status = ARGV_LOST_MEMORY;
	rec->argv_cut = scratch->out.head[0] != '*' && rec->argv_len >= ARGV_LINE_MAX;
}

static __always_inline void emit_push(struct reply_record *rec)
{
	rec->argv_len = 0;
	rec->argv_cut = 0;
	rec->request_ns = rec->request_bytes = 0;
	rec->kind = KIND_PUSH;
	rec->argv_status = ARGV_NONE;
}

/*
 * Wakes user space if it sleeps. The record is already in the ring: either user space sees it when it looks once more
 * after saying that it sleeps, or we see here that it said so.
 */
static __always_inline void wake_consumer(struct scratch *scratch)
{
	if (engine.consumer_sleeps && __sync_val_compare_and_swap(&engine.consumer_sleeps, 1, 0) == 1)
		bpf_ringbuf_output(&ring, scratch->out.head, 0, BPF_RB_FORCE_WAKEUP);
}

static __noinline void reply_emit(struct connection *conn, struct work *work, const struct reply_end *end)
{
	struct scratch *scratch = (struct scratch *)work; /* its first member */
	struct reply_record *rec = &scratch->out.reply;
	struct conn_client client;
	__u32 len;

	if (conn->reply.push)
		emit_push(rec);
	else
		emit_command(conn, scratch);
	rec->reply_bytes = end->bytes;
	rec->first_byte_ns = end->first_ns;
	rec->last_byte_ns = end->last_ns;
	rec->writes = end->writes;
	rec->state = end->state;
	rec->attribution = conn->attribution;
	connection_client(conn->server_conn, &client);
	rec->client_id = client.id;
	peer_address(connection_sock(conn->server_conn), rec);
	len = rec->argv_len;
	env_opaque(len);
	if (len > sizeof(scratch->out.head))
		return;
	if (bpf_ringbuf_output(&ring, rec, sizeof(*rec) + len, BPF_RB_NO_WAKEUP))
		count_loss(LOSS_RING_FULL);
	wake_consumer(scratch);
}

#endif
