/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * --max-overhead: decides when nothing is to be observed for a while, because the probes took more of a thread's time
 * than they may, and for how long. Arithmetic only: neither clocks nor probes are touched.
 *
 * Each thread has a debt: what the probes took of its time, less its allowance, which grows by the budget all the
 * time. A debt up to GOVERNOR_CREDIT_NS of allowance is bearable, so that short bursts are seen whole; past it, we
 * pause until it is paid. So over any time that is long beside the credit, no thread gives more than the budget.
 */
#ifndef REPLYLOG_USER_SESSION_GOVERNOR_H
#define REPLYLOG_USER_SESSION_GOVERNOR_H

#include <linux/types.h>
#include <stdint.h>

#include "bpf/abi/shared.h"

/* --max-overhead is in tenths of a percent. */
#define GOVERNOR_WHOLE 1000

/* So much allowance may be spent ahead. */
#define GOVERNOR_CREDIT_NS UINT64_C(2000000000)

/* The next sample is never sooner than this. */
#define GOVERNOR_SAMPLE_MIN_NS UINT64_C(10000000)

struct governor {
	uint32_t budget;     /* of GOVERNOR_WHOLE of each thread's time; 0: no limit */
	uint64_t sampled_ns; /* CLOCK_MONOTONIC of the last sample, and of the last start of observing */
	uint64_t began_ns;
	struct thread_budget {
		uint64_t own_ns;    /* taken by the probes, as of the last sample, */
		uint64_t before_ns; /* and as of the last start */
		uint64_t debt_ns;
	} thread[THREADS_MAX];
};

/* now_ns: CLOCK_MONOTONIC, when the probes begin to act. budget: 0 to GOVERNOR_WHOLE. */
void governor_init(struct governor *governor, uint32_t budget, uint64_t now_ns);

/* They act again. */
void governor_begin(struct governor *governor, uint64_t now_ns);

/*
 * Looks at what the probes have taken so far. stats: of all threads, THREADS_MAX of them. Returns for how many
 * nanoseconds nothing must be observed, 0 when all is well.
 */
uint64_t governor_sample(struct governor *governor, const struct thread_stats *stats, uint64_t now_ns);

/* What the probes took from the last start to the last sample, nanoseconds of the thread that gave most. */
uint64_t governor_taken(const struct governor *governor);

/*
 * When to sample next, in nanoseconds from the last sample: before that even a thread that does nothing but run probes
 * can't have passed its budget. UINT64_MAX without a limit.
 */
uint64_t governor_interval(const struct governor *governor);

#endif
