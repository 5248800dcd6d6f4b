/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* arch/arm64/include/uapi/asm/ptrace.h: the registers at the start of struct pt_regs, part of the ABI. */
struct user_pt_regs {
	__u64 regs[31];
	__u64 sp;
	__u64 pc;
	__u64 pstate;
};

struct pt_regs {
	struct user_pt_regs user_regs;
};
