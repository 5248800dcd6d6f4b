/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* arch/x86/include/asm/ptrace.h: part of the ABI of uprobe programs, so not relocated. */
struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss;
};
