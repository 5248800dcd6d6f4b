/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "connection_tap.bpf.h"
#include "dispatch.bpf.h"
#include "preemption.bpf.h"
#include "restart.bpf.h"
#include "seccomp.bpf.h"
#include "socket_tap.bpf.h"
#include "sweep.bpf.h"
#include "thread_exit.bpf.h"

/* Helpers such as bpf_probe_read_user are for GPL-compatible programs only. */
char LICENSE[] SEC("license") = "Dual BSD/GPL";
