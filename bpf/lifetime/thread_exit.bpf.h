/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A thread of the server ends: its place is given back, by itself. No program of ours runs in it after this, so nobody
 * else can have the place meanwhile, and a new thread with the same tid begins afresh.
 *
 * One look at each thread of the host that ends.
 */
#ifndef REPLYLOG_BPF_LIFETIME_THREAD_EXIT_BPF_H
#define REPLYLOG_BPF_LIFETIME_THREAD_EXIT_BPF_H

#include "bpf/tap/dispatch.bpf.h"

/* What it was in the middle of will not return. */
static __always_inline void slot_forget_calls(__u32 slot)
{
	struct scratch *scratch = bpf_map_lookup_elem(&scratches, &slot);
	struct dispatch_stack *stack = bpf_map_lookup_elem(&dispatch_stacks, &slot);

	if (scratch)
		scratch->call.op = IO_NONE;
	if (stack)
		stack->depth = 0;
}

/* What the slot adds up stays, but for what is reported by thread. */
static __always_inline void slot_give(__u32 slot)
{
	struct thread_stats *stats = bpf_map_lookup_elem(&thread_stats, &slot);

	if (!stats)
		return;
	slot_forget_calls(slot);
	__sync_fetch_and_add(&engine.hits_gone, stats->hits);
	stats->hits = 0;
	__sync_lock_test_and_set(&stats->tid, 0); /* the last thing: from here on it is somebody else's */
}

SEC("?raw_tp/sched_process_exit") int thread_exits(void *ctx)
{
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	__u32 slot;

	keep_thread_stack(ctx, &socket_own_stack);
	/* The main thread keeps its slot: its hits are reported apart to the end. */
	if (pid_tgid >> 32 != target_tgid || (__u32)pid_tgid == target_tgid)
		return 0;
	slot = tap_slot(false);
	if (slot)
		slot_give(slot - 1);
	return 0;
}

#endif
