/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Records, on their way to user space. */
#ifndef REPLYLOG_BPF_ENGINE_EMIT_BPF_H
#define REPLYLOG_BPF_ENGINE_EMIT_BPF_H

#include "bpf/maps.bpf.h"
#include "bpf/conn/reply.h"

port_hook __u64 reply_threshold(void)
{
	return threshold;
}

/*
 * Wakes user space if it sleeps. The record is already in the ring: either user space sees it when it looks once more
 * after saying that it sleeps, or we see here that it said so.
 */
static __always_inline void wake_consumer(void)
{
	if (engine.consumer_sleeps && __sync_val_compare_and_swap(&engine.consumer_sleeps, 1, 0) == 1)
		bpf_ringbuf_output(&doorbell, &engine, 0, BPF_RB_FORCE_WAKEUP);
}

/* 0, or -1 when the ring has no room: the caller counts the loss. */
static __always_inline int emit_record(struct scratch *scratch)
{
	struct reply_record *rec = &scratch->out.reply;
	__u32 len = rec->argv_len, i;

	for (i = 0; i < CLIENT_WORDS; i++)
		len += rec->word[i];
	len += rec->exec_argv_len;
	env_opaque(len);
	if (len > sizeof(scratch->out.head))
		return -1;
	return bpf_ringbuf_output(&ring, rec, sizeof(*rec) + len, BPF_RB_NO_WAKEUP);
}

/* What every record says of its connection. */
static __always_inline void emit_begin(const struct connection *conn, struct reply_record *rec, __u8 event)
{
	const struct conn_id *id = &conn->id;

	__builtin_memset(rec, 0, sizeof(*rec));
	rec->event = event;
	rec->client_id = id->client_id;
	rec->client_port = id->port;
	rec->client_family = id->family;
	__builtin_memcpy(rec->client_addr, id->addr, sizeof(rec->client_addr));
	rec->connection = id->number;
	rec->generation = id->generation;
	rec->attribution = session_attribution(conn);
	rec->from_start = conn->from_start;
	rec->db = conn->session.db;
	rec->checks = conn->checks;
}

/*
 * Is the record certain, or does it wait for a proof? Where the server's structs are not known there is none: then what is
 * not certain is ambiguous.
 */
static __always_inline void emit_pairing(struct connection *conn, struct reply_record *rec)
{
	if (pairing_is_certain(conn) || rec->attribution == ATTRIBUTION_AMBIGUOUS)
		return;
	if (!client_layout.valid) {
		rec->attribution = ATTRIBUTION_AMBIGUOUS;
		return;
	}
	rec->check = CHECK_PENDING;
	conn->held = conn->unverified = 1;
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

/* Is the request's head there, and a multibulk? Then it must say the same as the dispatched one. */
static __always_inline bool emit_has_multibulk(const struct scratch *scratch)
{
	return scratch->out.reply.argv_status == ARGV_KEPT && scratch->out.reply.argv_len && scratch->out.head[0] == '*';
}

/* What was executed is not what was asked; or a module's filter has changed it. */
static __always_inline bool emit_disproved(struct scratch *scratch, struct snapshot_ring *snapshots, __u32 place)
{
	struct argv_snapshot head;

	return emit_has_multibulk(scratch) && snapshots_read(snapshots, place, &head) &&
	       snapshots_differ(&scratch->compare, scratch->out.head, scratch->out.reply.argv_len, snapshots, place) &&
	       snapshots_hold(snapshots, place, sizeof(head) + snapshot_len(&head));
}

/* Appends the words of the head, and its argv, unless the request's says the same. 0, or -1 when it has no room. */
static __always_inline int emit_append(struct scratch *scratch, const struct snapshot_ring *snapshots, __u32 place,
				       const struct argv_snapshot *head, __u32 argv_len)
{
	__u64 at = scratch->out.reply.argv_len, argv = snapshots_argv(place), words = snapshot_words_len(head);

	if (snapshots_copy(snapshots, argv + head->argv_len, words, scratch->out.head, at, sizeof(scratch->out.head),
			   SNAPSHOT_WORDS_MAX))
		return -1;
	return argv_len ? snapshots_copy(snapshots, argv, argv_len, scratch->out.head, at + words, sizeof(scratch->out.head),
					 SNAPSHOT_MAX - SNAPSHOT_WORDS_MAX)
			: 0;
}

/* Adds to what the request says what the server's structs said, all of it still being there. */
static __always_inline void emit_dispatched(struct scratch *scratch, struct snapshot_ring *snapshots, __u32 place)
{
	struct reply_record *rec = &scratch->out.reply;
	struct argv_snapshot head;
	__u32 argv_len;

	if (!snapshots_read(snapshots, place, &head))
		return;
	argv_len = emit_has_multibulk(scratch) ? 0 : head.argv_len;
	if (emit_append(scratch, snapshots, place, &head, argv_len) ||
	    !snapshots_hold(snapshots, place, sizeof(head) + snapshot_len(&head)))
		return;
	rec->argv_from = ARGV_FROM_DISPATCH;
	rec->exec_argv_len = argv_len;
	rec->exec_db = head.db;
	rec->resp = head.resp;
	__builtin_memcpy(rec->word, head.word, sizeof(rec->word));
}

/* What the execution says, when it is proven which one it was. Times that don't fit, or another argv, disprove it. */
static __always_inline void emit_dispatch(struct connection *conn, struct scratch *scratch, __u64 seq)
{
	struct reply_record *rec = &scratch->out.reply;
	struct snapshot_ring *snapshots = argv_at_dispatch ? bpf_map_lookup_elem(&dispatch_heads, &conn->id.number) : NULL;
	struct dispatch dispatch;

	if (snapshots)
		rec->argv_from = ARGV_FROM_REQUEST;
	if (!dispatch_find(conn, seq, &dispatch))
		return;
	if (dispatch.start_ns < rec->request_ns || dispatch.start_ns + dispatch.exec_ns > rec->last_byte_ns ||
	    (snapshots && emit_disproved(scratch, snapshots, dispatch.head)))
		return dispatch_refute(conn);
	rec->exec_ns = dispatch.exec_ns;
	rec->inner_ns = dispatch.inner_ns;
	rec->exec_name = dispatch.name;
	rec->inner = dispatch.inner;
	if (snapshots)
		emit_dispatched(scratch, snapshots, dispatch.head);
}

static __always_inline void emit_push(const struct connection *conn, struct scratch *scratch)
{
	struct reply_record *rec = &scratch->out.reply;

	rec->argv_status = ARGV_PUSH;
	rec->argv_len = conn->session.push_len;
	__builtin_memcpy(scratch->out.head, conn->push_head, PUSH_HEAD);
}

/* Its record found no room in the ring: counts the loss, and takes its bytes off the attributed ones. */
static __always_inline void emit_lost(__u64 bytes)
{
	count_loss(LOSS_RING_FULL);
	count_lost(LOSS_RING_FULL, 1, bytes);
	counter_add(COUNTER_ATTRIBUTED_BYTES, -bytes);
}

port_hook __noinline void reply_emit(struct connection *conn, struct work *work, const struct reply_end *end)
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
	rec->reply_type = conn->reply.type;
	if (end->kind == KIND_PUSH) {
		emit_push(conn, scratch);
	} else {
		if (end->kind == KIND_SIMPLE && outstanding(conn) > 1)
			rec->kind = KIND_PIPELINED;
		emit_pairing(conn, rec);
		emit_command(conn, scratch, end->seq);
		if (probe_dispatch)
			emit_dispatch(conn, scratch, end->seq);
	}
	if (emit_record(scratch))
		emit_lost(end->bytes);
	wake_consumer();
}

/* Nobody waits for these: they are read with the next reply's record, or when they begin to fill the ring. */
static __always_inline void identity_wake(void)
{
	if (bpf_ringbuf_query(&ring, BPF_RB_AVAIL_DATA) > bpf_ringbuf_query(&ring, BPF_RB_RING_SIZE) / 4)
		wake_consumer();
}

/*
 * Tells user space whether the connection's held records are exact. If the ring is full, the next proof sends the verdict;
 * after an ambiguous one, the doubt that is kept here makes that one ambiguous, too.
 */
static __noinline void emit_checked(struct connection *conn, __u32 attribution, bool out_of_step)
{
	struct reply_record *rec = bpf_ringbuf_reserve(&ring, sizeof(*rec), 0);

	if (!rec) {
		conn->held = conn->unverified = 1;
		if (attribution != ATTRIBUTION_EXACT)
			conn->doubt = DOUBT_UNTOLD;
		return;
	}
	emit_begin(conn, rec, EVENT_CHECKED);
	rec->attribution = attribution;
	rec->out_of_step = out_of_step;
	rec->executions = probe_dispatch && dispatch_in_step(conn);
	conn->doubt = conn->unverified = conn->held = 0;
	conn->checks++;
	bpf_ringbuf_submit(rec, BPF_RB_NO_WAKEUP);
	if (out_of_step)
		wake_consumer();
}

port_hook __noinline void identity_lost(struct connection *conn, struct work *work)
{
	struct scratch *scratch = (struct scratch *)work;

	emit_begin(conn, &scratch->out.reply, EVENT_IDENTITY_LOST);
	/* If this record finds no room either, user space must not apply the identity that it knows. */
	if (emit_record(scratch))
		conn->from_start = 0;
	identity_wake();
}

port_hook __noinline void identity_emit(struct connection *conn, struct work *work, __u32 event)
{
	struct scratch *scratch = (struct scratch *)work;
	struct reply_record *rec = &scratch->out.reply;

	if (!conn->from_start)
		return;
	emit_begin(conn, rec, event);
	emit_pairing(conn, rec);
	emit_command(conn, scratch, conn->reply_seq);
	if (rec->argv_status != ARGV_KEPT || rec->attribution != ATTRIBUTION_EXACT || emit_record(scratch))
		identity_lost(conn, work);
	else
		identity_wake();
}

#endif
