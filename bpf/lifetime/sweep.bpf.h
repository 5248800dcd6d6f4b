/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A look at all connections when no probe is hit any more: what the server took with it when it ended is logged as at
 * any other close, and what goes on without us is counted. When replylog attaches again, it takes every connection it
 * finds for one that is older than itself.
 *
 * Run by user space (BPF_PROG_RUN) when the probes are detached, on a tracepoint of none: programs of the type that is
 * made for that, "syscall", may not use all of our maps before Linux 6.4 ("Sleepable programs can only use array, hash,
 * and ringbuf maps" on 6.1).
 */
#ifndef REPLYLOG_BPF_LIFETIME_SWEEP_BPF_H
#define REPLYLOG_BPF_LIFETIME_SWEEP_BPF_H

#include "bpf/lifetime/thread_exit.bpf.h"

static __always_inline void sweep_connection(struct connection *conn, struct work *work, bool server_exited)
{
	if (!conn->key || !connection_followed(conn))
		return;
	if (server_exited) {
		connection_abort(conn, work);
		return pairing_closes(conn);
	}
	if (attribution_is_large(conn)) {
		count_loss(LOSS_UNFINISHED);
		ledger_blame(conn, LOSS_UNFINISHED, 1);
	}
	counter_add(COUNTER_UNANSWERED, outstanding(conn));
	ledger_settle(conn, attribution_complete_until(conn));
}

/* If it is found again, it is counted again. */
static __always_inline void sweep_forget(struct connection *conn)
{
	if (conn->mode == MODE_UNJOINED)
		counter_add(COUNTER_UNJOINED, -1);
	connection_forget(conn, WHY_PAUSE);
}

static long sweep_step(__u32 i, void *data)
{
	struct sweep *sweep = data;
	__u32 number = sweep->from + i, any_thread = 0;
	struct connection *conn = bpf_map_lookup_elem(&connections, &number);
	struct scratch *scratch = bpf_map_lookup_elem(&scratches, &any_thread);

	if (!conn || !scratch)
		return 1;
	sweep_connection(conn, &scratch->work, sweep->server_exited);
	if (sweep->forget && conn->key)
		sweep_forget(conn);
	return 0;
}

SEC("raw_tp") int sweep_connections(struct sweep *sweep)
{
	struct sweep local = *sweep;

	bpf_loop(local.count, sweep_step, &local, 0);
	return 0;
}

/* The returns of calls that have begun will not be seen. */
static long forget_call_step(__u32 slot, void *data)
{
	slot_forget_calls(slot);
	return 0;
}

SEC("raw_tp") int forget_calls(void *ctx)
{
	bpf_loop(THREADS_MAX, forget_call_step, &ctx, 0);
	return 0;
}

#endif
