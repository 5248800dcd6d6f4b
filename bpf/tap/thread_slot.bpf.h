/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* A thread of the server has a slot in the maps: its scratch memory and its statistics. */
#ifndef REPLYLOG_BPF_TAP_THREAD_SLOT_BPF_H
#define REPLYLOG_BPF_TAP_THREAD_SLOT_BPF_H

#include "bpf/engine/connection_table.bpf.h"
#include "bpf/tap/overhead.bpf.h"

/* Whether this hit is the server's and is to be acted on. pid filters of the kernel leak: always compare. */
static __always_inline bool tap_wanted(void)
{
	return bpf_get_current_pid_tgid() >> 32 == target_tgid && engine.ready;
}

/* A place for this thread, which has none: the first that is nobody's. */
static __noinline __u32 tap_slot_take(__u32 tid)
{
	struct thread_stats *stats;
	__u32 i, slot;

	for (i = 0; i < THREAD_PROBES; i++) {
		slot = (tid + i) & (THREADS_MAX - 1);
		stats = bpf_map_lookup_elem(&thread_stats, &slot);
		if (!stats)
			return 0;
		if (!stats->tid && !__sync_val_compare_and_swap(&stats->tid, 0, tid))
			return slot + 1;
	}
	return 0;
}

/*
 * This thread's place, plus 1: found by its tid without any allocation, taken on its first hit. 0: it has none (and,
 * when it wanted to take one, there was none). Places before its own may have become free since.
 */
static __always_inline __u32 tap_slot(bool take)
{
	__u32 tid = bpf_get_current_pid_tgid(), i, slot;
	struct thread_stats *stats;

	for (i = 0; i < THREAD_PROBES; i++) {
		slot = (tid + i) & (THREADS_MAX - 1);
		stats = bpf_map_lookup_elem(&thread_stats, &slot);
		if (!stats)
			return 0;
		if (stats->tid == tid)
			return slot + 1;
	}
	return take ? tap_slot_take(tid) : 0;
}

static __always_inline bool tap_worker(__u32 slot, struct worker *worker)
{
	slot--;
	worker->scratch = bpf_map_lookup_elem(&scratches, &slot);
	worker->stats = bpf_map_lookup_elem(&thread_stats, &slot);
	return worker->scratch && worker->stats;
}

/* Counts a hit and finds this thread's areas. False when there is no room. */
static __always_inline bool tap_hit(struct worker *worker, enum hit hit)
{
	if (!tap_worker(tap_slot(true), worker))
		return false;
	worker->stats->hits++;
	overhead_hit(worker->stats, hit);
	return true;
}

#endif
