/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The state that BPF and user space both look at while the probes run. Records: see record.h.
 */
#ifndef REPLYLOG_SHARED_H
#define REPLYLOG_SHARED_H

#include "record.h"

/* Threads of the server that can do I/O: IO_THREADS_MAX_NUM (256 in valkey 9.1, 128 in redis 7.0), main, and spares. */
#define THREADS_MAX 288

struct engine_state {
	__u32 ready;           /* user space: everything is attached, act. 0: every probe returns at once */
	__u32 threads;         /* BPF: slots given out */
	__u32 consumer_sleeps; /* user space: wake me for the next record; BPF takes it back */
	__u32 pad;
	__u64 losses[LOSS_KINDS];
	__u64 tallies[TALLIES];
};

/* One slot a thread. Written by that thread only; a cache line of its own. */
struct thread_stats {
	__u32 tid;
	__u32 pad;
	__u64 hits;               /* I/O calls and closes seen */
	__u64 unattributed_bytes; /* reply bytes of connections that are not followed */
	__u64 pad2[5];
};

_Static_assert(sizeof(struct thread_stats) == 64, "one cache line per thread");

#endif
