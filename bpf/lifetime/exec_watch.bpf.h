/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The server executes itself anew, or another program (DEBUG RESTART; a wrapper): the process stays, and so do its
 * pidfd and, in the same file, our breakpoints, but nothing that is known of its memory holds any more. By then the
 * kernel has ended its other threads (begin_new_exec() in fs/exec.c): no program of ours runs in the old image after
 * this.
 *
 * One look at each execve of the host. The children that a server forks to execute something have pids of their own.
 */
#ifndef REPLYLOG_BPF_LIFETIME_EXEC_WATCH_BPF_H
#define REPLYLOG_BPF_LIFETIME_EXEC_WATCH_BPF_H

#include "bpf/maps.bpf.h"
#include "bpf/thread_stack.bpf.h"

SEC("?raw_tp/sched_process_exec") int server_executes(void *ctx)
{
	keep_thread_stack(ctx, &socket_own_stack);
	if (bpf_get_current_pid_tgid() >> 32 != target_tgid)
		return 0;
	/* In this order: see engine_ready() in user/kernel/engine.c. */
	__sync_lock_test_and_set(&engine.executed, 1);
	__sync_lock_test_and_set(&engine.ready, 0);
	bpf_ringbuf_output(&doorbell, &engine, 0, BPF_RB_FORCE_WAKEUP);
	return 0;
}

#endif
