/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Asks the kernel whether a thread can be preempted in a tracepoint. Where it can (seen on Linux 7.3), the kernel does
 * not run a program that is already running on the same CPU (__bpf_trace_run() in kernel/trace/bpf_trace.c), and the
 * socket tap would miss calls.
 */
#ifndef REPLYLOG_BPF_FEATURES_PREEMPTION_BPF_H
#define REPLYLOG_BPF_FEATURES_PREEMPTION_BPF_H

#include "bpf/env.h"
#include "bpf/abi/shared.h"
#include <bpf/bpf_core_read.h>

/* Set by user space: who asks. */
__u32 preemption_asker;
/* The answer, after that has written to a socket: enum preemption. */
__u32 preemption_answer;

/*
 * Kernels that let a thread be preempted there keep it on its CPU while the program runs (migrate_disable()); those
 * that don't have no need to.
 */
SEC("?raw_tp/sock_send_length") int ask_preemption(void *ctx)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();

	if (bpf_get_current_pid_tgid() >> 32 != preemption_asker || !bpf_core_field_exists(task->migration_disabled))
		return 0;
	preemption_answer = BPF_CORE_READ(task, migration_disabled) ? PREEMPTION_ON : PREEMPTION_OFF;
	return 0;
}

#endif
