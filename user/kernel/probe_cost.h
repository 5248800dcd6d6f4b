/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What a hit of a probe costs a thread on this machine before its program has done anything: what the programs can't
 * measure themselves. --max-overhead adds it up with what they can.
 */
#ifndef REPLYLOG_HIT_COST_H
#define REPLYLOG_HIT_COST_H

#include <linux/types.h>

#include "user/kernel/features.h"
#include "bpf/abi/shared.h"
#include "user/server/target.h"

struct hit_cost {
	__u32 ns[HITS]; /* nanoseconds; HIT_PROBE: entry and return together */
};

/*
 * Attaches the programs of this way to a function of our own, and to the tracepoint that we hit ourselves, and times
 * them; what they do for others in that time is nothing. Takes some tens of milliseconds. The server is asked only
 * whether its probes are single-stepped. 0, or -1 with the reason on stderr.
 */
int hit_cost_measure(struct hit_cost *cost, const struct target *target, struct way way);

#endif
