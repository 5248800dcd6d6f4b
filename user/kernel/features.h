/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What this kernel can do and what this process may do, found by asking, before anything is attached. */
#ifndef REPLYLOG_USER_KERNEL_FEATURES_H
#define REPLYLOG_USER_KERNEL_FEATURES_H

#include "user/kernel/attach.h"

#include <stdbool.h>

/* bpf_attach_type of include/uapi/linux/bpf.h, by number: the installed header may be older than the kernel. */
#define ATTACH_TYPE_MULTI 48   /* Linux 6.6, 89ae89f53d20 */
#define ATTACH_TYPE_SESSION 57 /* Linux 6.13, d920179b3d48 */

/*
 * 0, or -1 with what is missing (kernel feature or capability) on stderr. What is auto in *mode becomes the best this
 * kernel has.
 */
int kernel_check(struct attach_mode *mode);

/* What was asked, in the order in which it is needed. */
struct kernel_feature {
	const char *name;
	const char *since; /* Linux release that brought it, for people */
	bool present;
	bool needed; /* without it nothing goes; the others are chosen from */
};

#define KERNEL_FEATURES 7

void kernel_features(struct kernel_feature features[KERNEL_FEATURES]);

struct kernel_capability {
	const char *name;
	const char *use;
	bool present;
};

#define KERNEL_CAPABILITIES 4

/* What this process may do. CAP_SYS_ADMIN stands in for CAP_BPF and CAP_PERFMON. */
void kernel_capabilities(struct kernel_capability capabilities[KERNEL_CAPABILITIES]);

#endif
