/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * --max-overhead: what the probes take of each thread's time, added up as they are hit. The programs time themselves;
 * what the kernel does to get to them, they can't see: user/kernel/probe_cost.c measures it before anything is attached.
 */
#ifndef REPLYLOG_BPF_TAP_OVERHEAD_BPF_H
#define REPLYLOG_BPF_TAP_OVERHEAD_BPF_H

#include "bpf/maps.bpf.h"

/* Set before loading. What a hit costs when its program has nothing to do, nanoseconds. */
const volatile bool measure_overhead;
const volatile __u32 hit_ns[HITS];

/* When the program began to work; 0: nobody wants to know. */
static __always_inline __u64 overhead_begin(void)
{
	return measure_overhead ? bpf_ktime_get_ns() : 0;
}

static __always_inline void overhead_end(struct thread_stats *stats, __u64 begin)
{
	if (measure_overhead)
		stats->own_ns += bpf_ktime_get_ns() - begin;
}

static __always_inline void overhead_hit(struct thread_stats *stats, enum hit hit)
{
	if (measure_overhead)
		stats->own_ns += hit_ns[hit];
}

#endif
