/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef REPLYLOG_USER_KERNEL_PREEMPTION_H
#define REPLYLOG_USER_KERNEL_PREEMPTION_H

#include <stdbool.h>

/*
 * Asks the kernel, with a program on the socket tap's tracepoint and a byte sent to ourselves, whether programs there
 * run to their end without another one coming in between. False when they don't, or when it can't be told: then the
 * kernel skips some of them (bpf/features/preemption.bpf.h).
 */
bool tracepoints_run_undisturbed(void);

#endif
