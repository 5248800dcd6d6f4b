/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/kernel/features.h"

#include "user/complain.h"
#include "user/kernel/uprobe_link.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef CAP_PERFMON
#define CAP_PERFMON 38
#endif
#ifndef CAP_BPF
#define CAP_BPF 39
#endif

/* A program that does nothing, to ask what it may be attached to. Its fd, or -errno. */
static int load_nothing(int attach_type)
{
	static const struct bpf_insn insns[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0 },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .expected_attach_type = attach_type);

	return bpf_prog_load(BPF_PROG_TYPE_KPROBE, "replylog_ask", "GPL", insns, 2, &opts);
}

/*
 * Asks for a link on a directory. A kernel that knows the attach type gets as far as the file and says EBADF
 * (bpf_uprobe_multi_link_attach() in kernel/trace/bpf_trace.c); one that does not says EINVAL.
 */
static bool has_uprobe_link(int attach_type)
{
	int program = load_nothing(attach_type), link;

	if (program < 0)
		return false;
	link = uprobe_link_create(program, attach_type, "/", 0, false, 0);
	if (link >= 0)
		close(link);
	close(program);
	return link == -EBADF;
}

static bool has_capability(int cap)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = {};

	if (syscall(SYS_capget, &header, data))
		return true; /* can't tell: let the kernel say no */
	return data[cap / 32].effective >> (cap % 32) & 1;
}

/* perf uprobes need CAP_SYS_ADMIN (ba677dbe77af, and before it wherever perf_event_paranoid is 3). */
static int check_perf_capability(enum attach_choice how)
{
	if (how != ATTACH_PERF || has_capability(CAP_SYS_ADMIN))
		return 0;
	return complain("not permitted: perf uprobes need CAP_SYS_ADMIN: run as root");
}

static int check_helper(int helper, const char *name, const char *since)
{
	if (libbpf_probe_bpf_helper(BPF_PROG_TYPE_KPROBE, helper, NULL) == 1)
		return 0;
	return complain("this kernel has no %s for uprobe programs (it needs Linux %s)", name, since);
}

static int check_features(void)
{
	if (access("/sys/kernel/btf/vmlinux", R_OK))
		return complain("/sys/kernel/btf/vmlinux: %s: replylog needs a kernel with CONFIG_DEBUG_INFO_BTF",
				strerror(errno));
	if (check_helper(BPF_FUNC_probe_read_kernel, "bpf_probe_read_kernel",
			 "5.5 or later, without lockdown=confidentiality"))
		return -1;
	if (check_helper(BPF_FUNC_ringbuf_output, "bpf_ringbuf_output", "5.8 or later") ||
	    check_helper(BPF_FUNC_loop, "bpf_loop", "5.17 or later"))
		return -1;
	return 0;
}

static bool has_attach(enum attach_choice how)
{
	switch (how) {
	case ATTACH_SESSION:
		return has_uprobe_link(ATTACH_TYPE_SESSION);
	case ATTACH_MULTI:
		return has_uprobe_link(ATTACH_TYPE_MULTI);
	default:
		return true;
	}
}

/*
 * Asks for a raw tracepoint by its name: attaching is what finds it (bpf_raw_tp_link_attach() in kernel/bpf/syscall.c:
 * ENOENT). The program does nothing, and is gone at once.
 */
static bool has_raw_tracepoint(const char *name)
{
	static const struct bpf_insn insns[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0 },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	int program = bpf_prog_load(BPF_PROG_TYPE_RAW_TRACEPOINT, "replylog_ask", "GPL", insns, 2, NULL), link;

	if (program < 0)
		return false;
	link = bpf_raw_tracepoint_open(name, program);
	if (link >= 0)
		close(link);
	close(program);
	return link >= 0;
}

static bool has_socket_tap(void)
{
	return has_raw_tracepoint("sock_send_length") && has_raw_tracepoint("sock_recv_length") &&
	       libbpf_probe_bpf_helper(BPF_PROG_TYPE_RAW_TRACEPOINT, BPF_FUNC_task_pt_regs, NULL) == 1;
}

static int choose_tap(enum tap_choice *tap)
{
	if (*tap == TAP_CHOICE_CONNECTION)
		return 0;
	if (has_socket_tap()) {
		*tap = TAP_CHOICE_SOCKET;
		return 0;
	}
	if (*tap == TAP_CHOICE_SOCKET)
		return complain(
			"--tap: this kernel has no sock_send_length tracepoint (it needs Linux 6.3 or later): use --tap auto");
	*tap = TAP_CHOICE_CONNECTION;
	return 0;
}

static int choose_attach(enum attach_choice *how)
{
	if (*how != ATTACH_AUTO && !has_attach(*how))
		return complain("--attach: this kernel has no %s: use --attach auto", attach_name(*how));
	if (*how == ATTACH_AUTO)
		*how = ATTACH_SESSION;
	while (!has_attach(*how))
		++*how;
	return 0;
}

int kernel_check(struct attach_mode *mode)
{
	if (!has_capability(CAP_SYS_ADMIN) && !has_capability(CAP_BPF))
		return complain("not permitted: replylog needs CAP_BPF to load its programs: run as root");
	if (!has_capability(CAP_SYS_ADMIN) && !has_capability(CAP_PERFMON))
		return complain("not permitted: replylog needs CAP_PERFMON to attach probes: run as root");
	if (choose_attach(&mode->attach) || check_perf_capability(mode->attach) || check_features())
		return -1;
	return choose_tap(&mode->tap);
}

static bool has_helper(int helper)
{
	return libbpf_probe_bpf_helper(BPF_PROG_TYPE_KPROBE, helper, NULL) == 1;
}

void kernel_features(struct kernel_feature features[KERNEL_FEATURES])
{
	const struct kernel_feature asked[KERNEL_FEATURES] = {
		{ "btf", "CONFIG_DEBUG_INFO_BTF", !access("/sys/kernel/btf/vmlinux", R_OK), true },
		{ "bpf_probe_read_kernel", "5.5", has_helper(BPF_FUNC_probe_read_kernel), true },
		{ "bpf_ringbuf_output", "5.8", has_helper(BPF_FUNC_ringbuf_output), true },
		{ "bpf_loop", "5.17", has_helper(BPF_FUNC_loop), true },
		{ "uprobe_multi", "6.6", has_attach(ATTACH_MULTI), false },
		{ "uprobe_session", "6.13", has_attach(ATTACH_SESSION), false },
		{ "sock_send_length", "6.3", has_socket_tap(), false },
	};

	memcpy(features, asked, sizeof(asked));
}

void kernel_capabilities(struct kernel_capability capabilities[KERNEL_CAPABILITIES])
{
	const struct kernel_capability asked[KERNEL_CAPABILITIES] = {
		{ "CAP_BPF", "loading programs", has_capability(CAP_BPF) },
		{ "CAP_PERFMON", "probing", has_capability(CAP_PERFMON) },
		{ "CAP_SYS_PTRACE", "other users' servers", has_capability(CAP_SYS_PTRACE) },
		{ "CAP_SYS_ADMIN", "perf uprobes", has_capability(CAP_SYS_ADMIN) },
	};

	memcpy(capabilities, asked, sizeof(asked));
}
