/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What this kernel can do and what this process may do, found by asking, before anything is attached. */
#ifndef REPLYLOG_KERNEL_H
#define REPLYLOG_KERNEL_H

#include "options.h"

#include <stdbool.h>

/* bpf_attach_type of include/uapi/linux/bpf.h, by number: the installed header may be older than the kernel. */
#define ATTACH_TYPE_MULTI 48   /* Linux 6.6, 89ae89f53d20 */
#define ATTACH_TYPE_SESSION 57 /* Linux 6.13, d920179b3d48 */

/* "uprobe_session", "uprobe_multi" or "perf" */
const char *attach_name(enum attach_choice how);

/*
 * 0, or -1 with what is missing (kernel feature or capability) on stderr. *how, when it is ATTACH_AUTO, becomes the
 * best this kernel has.
 */
int kernel_check(enum attach_choice *how);

/*
 * True for the releases on which a return probe kills a process that runs under a seccomp filter: the uretprobe
 * system call (Linux 6.11, ff474a78cef5) was not exempt from filters until cf6cb56ef244.
 */
bool kernel_uretprobe_kills_seccomp(const char *release);

#endif
