/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Asks the kernel what only a program can find out: an object of its own, loaded and gone before the engine is. */
#include "bpf/features/preemption.bpf.h"
#include "bpf/features/seccomp.bpf.h"

/* As in bpf/replylog.bpf.c. */
char LICENSE[] SEC("license") = "Dual BSD/GPL";
