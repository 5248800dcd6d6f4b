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

/* Copies the head behind the record. 0, or -1 when it is not there. */
static __always_inline int emit_head(struct connection *conn, struct scratch *scratch, const struct argv_found *found)
{
	const struct argv_entry *entry = &found->entry;

	if (found->block)
		return head_from_block(scratch->out.head, found->block, entry->off, entry->len);
	return head_from_inline(scratch->out.head, &conn->argv, entry->off, entry->len);
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
	if (emit_head(conn, scratch, &found)) {
		rec->argv_status = ARGV_LOST_MEMORY;
		return;
	}
	rec->argv_len = found.entry.len;
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
		bpf_ringbuf_output(&doorbell, scratch->out.head, 0, BPF_RB_FORCE_WAKEUP);
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
