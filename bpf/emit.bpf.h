/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Records, on their way to user space. */
#ifndef REPLYLOG_EMIT_BPF_H
#define REPLYLOG_EMIT_BPF_H

#include "maps.bpf.h"
#include "reply.h"

static __u64 reply_threshold(void)
{
	return threshold;
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

/* 0, or -1 when the ring has no room: it is not counted yet. */
static __always_inline int emit_record(struct scratch *scratch)
{
	struct reply_record *rec = &scratch->out.reply;
	__u32 len = rec->argv_len, i;

	for (i = 0; i < CLIENT_WORDS; i++)
		len += rec->word[i];
	env_opaque(len);
	if (len > sizeof(scratch->out.head))
		return -1;
	return bpf_ringbuf_output(&ring, rec, sizeof(*rec) + len, BPF_RB_NO_WAKEUP);
}

/* What every record says of its connection. */
static __always_inline void emit_begin(const struct connection *conn, struct reply_record *rec, __u8 event)
{
	const struct peer *peer = &conn->peer;

	__builtin_memset(rec, 0, sizeof(*rec));
	rec->event = event;
	rec->client_id = peer->client_id;
	rec->client_port = peer->port;
	rec->client_family = peer->family;
	__builtin_memcpy(rec->client_addr, peer->addr, sizeof(rec->client_addr));
	rec->connection = peer->number;
	rec->generation = peer->generation;
	rec->attribution = talk_attribution(conn);
	rec->from_start = conn->from_start;
	rec->db = conn->talk.db;
}

/* Copies the head behind the record. 0, or -1 when it is not there. */
static __always_inline int emit_head(struct connection *conn, struct scratch *scratch, const struct argv_found *found)
{
	const struct argv_entry *entry = &found->entry;

	if (found->block)
		return head_from_block(scratch->out.head, found->block, entry->off, entry->len);
	return head_from_inline(scratch->out.head, &conn->argv, entry->off, entry->len);
}

/* Command number seq: its head and what is known of its reading. */
static __always_inline void emit_command(struct connection *conn, struct scratch *scratch, __u64 seq)
{
	struct reply_record *rec = &scratch->out.reply;
	struct argv_found found = {};

	argv_find(conn, seq, &found);
	rec->argv_status = found.status;
	if (found.status != ARGV_KEPT)
		return;
	rec->request_ns = found.entry.request_ns;
	rec->request_bytes = argv_request_bytes(conn, seq, &found);
	if (found.entry.pipelined && rec->kind == KIND_SIMPLE)
		rec->kind = KIND_PIPELINED;
	if (emit_head(conn, scratch, &found)) {
		rec->argv_status = ARGV_LOST_MEMORY;
		return;
	}
	rec->argv_len = found.entry.len;
	rec->argv_cut = found.entry.len >= ARGV_LINE_MAX;
}

/* '$' and '!' are alike in these bits: an argument that is whole in one head may be shortened in the other. */
#define TAGS_ALIKE BYTES((__u8)~('$' ^ '!'))

/*
 * Do the request's head, which is in out.head, and the dispatched one begin alike? Both count the arguments and name
 * the command in their first bytes, unless the request is an inline command. What a module's filter has changed
 * differs, too.
 */
static __always_inline bool heads_agree(const struct scratch *scratch, struct heads *heads, __u32 place, __u32 len)
{
	const __u8 *request = scratch->out.head, *head;
	__u32 n = scratch->out.reply.argv_len;

	if (!n || request[0] != '*')
		return true;
	n = n < len ? n : len;
	head = heads->bytes + (place - 1) % HEADS_RING + sizeof(struct dispatch_head);
	if (first_bytes(env_load64(request) ^ env_load64(head), n))
		return false;
	return n <= 8 || !(first_bytes(env_load64(request + 8) ^ env_load64(head + 8), n - 8) & TAGS_ALIKE);
}

/* Replaces what the request says by what the server's structs said. */
static __always_inline void emit_dispatched(struct connection *conn, struct scratch *scratch, __u64 seq,
					    struct heads *heads, __u32 place)
{
	struct reply_record *rec = &scratch->out.reply;
	struct dispatch_head head;

	if (!heads_read(heads, place, &head) || !heads_hold(heads, place, sizeof(head) + head_len(&head)))
		return;
	if (!heads_copy(heads, place, head_len(&head), scratch->out.head)) {
		emit_command(conn, scratch, seq);
		return;
	}
	rec->argv_status = ARGV_KEPT;
	rec->argv_from = ARGV_FROM_DISPATCH;
	rec->argv_len = head.argv_len;
	rec->argv_cut = 0;
	rec->db = head.db;
	rec->resp = head.resp;
	__builtin_memcpy(rec->word, head.word, sizeof(rec->word));
}

/* What was executed is not what was asked: then it is not known which execution the reply answers. */
static __always_inline bool emit_disproved(const struct scratch *scratch, struct heads *heads, __u32 place)
{
	struct dispatch_head head;

	if (!heads_read(heads, place, &head) || heads_agree(scratch, heads, place, head.argv_len) ||
	    !heads_hold(heads, place, sizeof(head) + head_len(&head)))
		return false;
	count_tally(TALLY_DISPATCH_DISAGREES, 1);
	return true;
}

/* What the execution says, when it is proven which one it was. Times that don't fit disprove it. */
static __always_inline void emit_dispatch(struct connection *conn, struct scratch *scratch, __u64 seq)
{
	struct reply_record *rec = &scratch->out.reply;
	struct heads *heads = argv_at_dispatch ? bpf_map_lookup_elem(&dispatch_heads, &conn->peer.number) : NULL;
	struct dispatch dispatch;

	if (heads)
		rec->argv_from = ARGV_FROM_REQUEST;
	if (!dispatch_find(conn, seq, &dispatch) || dispatch.start_ns < rec->request_ns ||
	    dispatch.start_ns + dispatch.exec_ns > rec->last_byte_ns)
		return;
	if (heads && emit_disproved(scratch, heads, dispatch.head))
		return;
	rec->exec_ns = dispatch.exec_ns;
	rec->inner_ns = dispatch.inner_ns;
	rec->exec_name = dispatch.name;
	rec->inner = dispatch.inner;
	if (heads)
		emit_dispatched(conn, scratch, seq, heads, dispatch.head);
}

static __always_inline void emit_push(const struct connection *conn, struct scratch *scratch)
{
	struct reply_record *rec = &scratch->out.reply;

	rec->argv_status = ARGV_PUSH;
	rec->argv_len = conn->talk.push_len;
	__builtin_memcpy(scratch->out.head, conn->push_head, PUSH_HEAD);
}

/* It was framed, but nobody will hear of it. */
static __always_inline void emit_lost(__u64 bytes)
{
	count_loss(LOSS_RING_FULL);
	count_lost(LOSS_RING_FULL, 1, bytes);
	count_tally(TALLY_ATTRIBUTED_BYTES, -bytes);
}

static __noinline void reply_emit(struct connection *conn, struct work *work, const struct reply_end *end)
{
	struct scratch *scratch = (struct scratch *)work; /* its first member */
	struct reply_record *rec = &scratch->out.reply;

	emit_begin(conn, rec, EVENT_REPLY);
	rec->reply_bytes = end->bytes;
	rec->bytes_expected = end->bytes_expected;
	rec->first_byte_ns = end->first_ns;
	rec->last_byte_ns = end->last_ns;
	rec->writes = end->writes;
	rec->state = end->state;
	rec->kind = end->kind;
	if (end->kind == KIND_PUSH) {
		emit_push(conn, scratch);
	} else {
		if (end->kind == KIND_SIMPLE && outstanding(conn) > 1)
			rec->kind = KIND_PIPELINED;
		emit_command(conn, scratch, end->seq);
		if (probe_dispatch)
			emit_dispatch(conn, scratch, end->seq);
	}
	if (emit_record(scratch))
		emit_lost(end->bytes);
	wake_consumer(scratch);
}

/* Nobody waits for these: they are read with the next reply's record, or when they begin to fill the ring. */
static __always_inline void identity_wake(struct scratch *scratch)
{
	if (bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA) > bpf_ringbuf_query(&ring, BPF_RB_RING_SIZE) / 4)
		wake_consumer(scratch);
}

static __noinline void identity_lost(struct connection *conn, struct work *work)
{
	struct scratch *scratch = (struct scratch *)work;

	emit_begin(conn, &scratch->out.reply, EVENT_IDENTITY_LOST);
	/* Where even that can't be said, user space must not take us for the one it knew. */
	if (emit_record(scratch))
		conn->from_start = 0;
	identity_wake(scratch);
}

static __noinline void identity_emit(struct connection *conn, struct work *work)
{
	struct scratch *scratch = (struct scratch *)work;
	struct reply_record *rec = &scratch->out.reply;

	if (!conn->from_start)
		return;
	emit_begin(conn, rec, EVENT_IDENTITY);
	emit_command(conn, scratch, conn->reply_seq);
	if (rec->argv_status != ARGV_KEPT || emit_record(scratch))
		identity_lost(conn, work);
	else
		identity_wake(scratch);
}

#endif
