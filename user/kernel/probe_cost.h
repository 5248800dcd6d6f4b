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

/* How a thread gets to a program. */
enum probe_kind {
	PROBE_IO,         /* a function's entry and its return: reads and writes */
	PROBE_ENTRY,      /* a function's entry alone: connections begin and end */
	PROBE_DISPATCH,   /* entry and return: commands are executed */
	PROBE_TRACEPOINT, /* reads and writes of sockets */
	PROBE_KINDS,
};

/* Nanoseconds of CPU time for each, over several batches. All are 0 where this kind was not measured. */
struct probe_timing {
	__u32 least;     /* of the batch that was interrupted least */
	__u32 low, high; /* half of the batches lie between them */
	__u32 median;    /* 0 is also: the machine is too busy to see it */
	bool stepped;    /* the kernel single-steps it on this server; one such probe stands for all of its kind */
};

/*
 * Times every kind of hit that this mode causes. It attaches the programs to a function of replylog's own: the server gets
 * no probe. With the socket tap it also attaches to a tracepoint: for some milliseconds every process that sends something
 * pays for the comparison of a pid. 0, or -errno, and then *step says in words what failed.
 */
int probe_cost_time(struct probe_timing timing[PROBE_KINDS], const struct target *target, struct attach_mode mode,
		    const char **step);

/* The same for --max-overhead, which asks for reads and writes only. The fastest batch counts. */
int probe_cost_measure(struct probe_cost *cost, const struct target *target, struct attach_mode mode, const char **step);

#endif
