/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Since Linux 6.13 (e00931c02568) the stacks of kprobe and raw tracepoint programs lie in memory of the CPU: nothing
 * else may run the program there until it has ended. Programs on uprobes are preemptible all the same; another thread
 * of the server on the same CPU then overwrites the stack, and the kernel oopses (seen on Debian's 6.18, 7.2 and 7.3,
 * whose threads are preempted in the kernel). A program that has a tail call keeps the stack of its thread
 * (check_max_stack_depth() in kernel/bpf/verifier.c), even if the call is dead code that the verifier removes.
 */
#ifndef REPLYLOG_BPF_THREAD_STACK_BPF_H
#define REPLYLOG_BPF_THREAD_STACK_BPF_H

#include "bpf/env.h"

struct no_programs {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
};

const volatile bool never;

/* The first thing that every program does that threads of the server can run at the same time. */
static __always_inline void keep_thread_stack(void *ctx, void *no_programs)
{
	if (never)
		bpf_tail_call(ctx, no_programs, 0);
}

#endif
