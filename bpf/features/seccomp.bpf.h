/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Counts what is hit in the child on which user/kernel/seccomp.c tries a return probe: a child that survives because nothing
 * was probed in it proves nothing.
 */
#ifndef REPLYLOG_BPF_FEATURES_SECCOMP_BPF_H
#define REPLYLOG_BPF_FEATURES_SECCOMP_BPF_H

#include "bpf/env.h"
#include "bpf/thread_stack.bpf.h"

struct no_programs seccomp_own_stack SEC(".maps");

/* Set by user space: the child. */
__u32 seccomp_child;
/* At a function's return; of a session, which is asked at both ends, at its entry, too. */
__u32 seccomp_hits;

SEC("?uprobe") int ask_seccomp(void *ctx)
{
	keep_thread_stack(ctx, &seccomp_own_stack);
	if (bpf_get_current_pid_tgid() >> 32 == seccomp_child)
		__sync_fetch_and_add(&seccomp_hits, 1);
	return 0;
}

#endif
