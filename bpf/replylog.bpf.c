/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "bpf/tap/connection_tap.bpf.h"
#include "bpf/tap/dispatch.bpf.h"
#include "bpf/lifetime/exec_watch.bpf.h"
#include "bpf/tap/socket_tap.bpf.h"
#include "bpf/lifetime/sweep.bpf.h"
#include "bpf/lifetime/thread_exit.bpf.h"

/* Helpers such as bpf_probe_read_user are for GPL-compatible programs only. */
char LICENSE[] SEC("license") = "Dual BSD/GPL";
