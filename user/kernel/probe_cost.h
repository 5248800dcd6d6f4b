/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What a hit of a probe costs a thread on this machine before its program has done anything: what the programs can't
 * measure themselves. --max-overhead adds it to what they measure, and --check reports it.
 */
#ifndef REPLYLOG_USER_KERNEL_PROBE_COST_H
#define REPLYLOG_USER_KERNEL_PROBE_COST_H

#include <linux/types.h>
#include <stdbool.h>

#include "bpf/abi/shared.h"
#include "user/kernel/features.h"
#include "user/server/target.h"

struct probe_cost {
	__u32 ns[HITS]; /* nanoseconds; HIT_PROBE: entry and return together */
};

/* Does the kernel single-step a probe on a read or write of this server? One such probe stands for all of them. */
bool probe_cost_is_stepped(const struct target *target);

/*
 * Attaches the programs of this mode to a function of replylog's own, and to the tracepoint that replylog hits itself,
 * and times them: the server is not touched. Takes some tens of milliseconds. The fastest of several batches counts: it
 * was interrupted least. 0, or -errno, and then *step says in words what failed.
 */
int probe_cost_measure(struct probe_cost *cost, bool stepped, struct attach_mode mode, const char **step);

#endif
