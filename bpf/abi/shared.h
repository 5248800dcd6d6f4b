/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The state that BPF and user space both look at while the probes run. Records: see record.h.
 */
#ifndef REPLYLOG_BPF_ABI_SHARED_H
#define REPLYLOG_BPF_ABI_SHARED_H

#include "bpf/abi/record.h"

/*
 * Places for threads of the server that do I/O: twice as many as there can be (IO_THREADS_MAX_NUM is 256 in valkey 9.1,
 * 128 in redis 7.0). A power of two. A thread's place is its tid modulo this, or one of the next THREAD_PROBES.
 */
#define THREADS_MAX 512
#define THREAD_PROBES 8

/* The calls of the connection layer that a tap tells the engine about. */
enum io_op {
	IO_NONE = 0,
	IO_READ,
	IO_WRITE,
	IO_WRITEV,
	IO_OPS,
};

/* How a program is reached. */
enum hit {
	HIT_PROBE, /* by a breakpoint, and most of them once more at the function's return */
	HIT_TRACEPOINT,
	HITS,
};

struct engine_state {
	__u32 ready;           /* user space: everything is attached, act. 0: every probe returns at once */
	__u32 consumer_sleeps; /* user space: wake me for the next record; BPF takes it back */
	__u32 executed;        /* BPF: the server executed itself anew, or another program: never ready again */
	__u32 modules_ran;     /* BPF: a module's command has run */
	__u64 hits_gone;       /* BPF: of threads that have ended */
	__u64 losses[LOSS_KINDS];
	__u64 lost_replies[LOSS_KINDS]; /* what was not attributed because of them, as far as it is known */
	__u64 lost_bytes[LOSS_KINDS];
	__u64 counters[COUNTERS];
	__u64 debug_lost; /* --debug: events that found no room in their ring buffer */
};

/* Whether a thread can be preempted while a program runs in a tracepoint: see preemption.bpf.h. */
enum preemption { PREEMPTION_UNKNOWN = 0, PREEMPTION_OFF, PREEMPTION_ON };

/*
 * The arguments of the sweep over all connections, which runs once no probe is hit any more. A tracepoint's arguments:
 * eight bytes each.
 */
struct sweep {
	__u64 from; /* which: these numbers */
	__u64 count;
	__u64 server_exited; /* it took its connections with it; 0: they go on without us */
	__u64 forget;        /* we come back: what is known of connections will not be true any more */
};

/* One place a thread, until the thread ends. Written by that thread only; a cache line of its own. */
struct thread_stats {
	__u32 tid; /* whose place this is; 0: nobody's */
	__u32 pad;
	__u64 hits;        /* I/O calls and closes seen */
	__u64 reply_bytes; /* written to clients, attributed or not */
	__u64 own_ns;      /* --max-overhead: what the probes took of this thread's time */
	__u64 pad2[4];
};

_Static_assert(sizeof(struct thread_stats) == 64, "one cache line per thread");

#endif
