/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * From a system call back to the server's struct connection. connSocketRead() and its like still need it when the call
 * returns (to note an error or the end), so it is in a register that calls preserve, or one of the functions in
 * between has put that on the stack. Every word there is a candidate, and proves itself: its fd is the call's, and it
 * points at a client that points back.
 */
#ifndef REPLYLOG_BPF_SERVER_SYSCALL_CONN_BPF_H
#define REPLYLOG_BPF_SERVER_SYSCALL_CONN_BPF_H

#include "bpf/maps.bpf.h"
#include "bpf/server/conn_client.bpf.h"
#include "bpf/server/sock.bpf.h"

/* The preserved registers, and as much of the stack as libc's wrapper and the connection layer's function take. */
#define CALLER_REGISTERS 10
#define CALLER_STACK 32
#define CALLER_WORDS (CALLER_REGISTERS + CALLER_STACK)

/* The user's registers in the current system call. */
static __always_inline struct pt_regs *caller_registers(void)
{
	return (struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf());
}

#if defined(__TARGET_ARCH_x86)
#define CALLER_FD(regs) ((regs)->di)
#define CALLER_SP(regs) ((regs)->sp)
static __always_inline void caller_preserved(const struct pt_regs *regs, __u64 *words)
{
	words[0] = regs->bx;
	words[1] = regs->bp;
	words[2] = regs->r12;
	words[3] = regs->r13;
	words[4] = regs->r14;
	words[5] = regs->r15;
	words[6] = words[7] = words[8] = words[9] = 0;
}
#else
#define CALLER_FD(regs) ((regs)->user_regs.regs[0])
#define CALLER_SP(regs) ((regs)->user_regs.sp)
static __always_inline void caller_preserved(const struct pt_regs *regs, __u64 *words)
{
	__u32 i;

	for (i = 0; i < CALLER_REGISTERS; i++)
		words[i] = regs->user_regs.regs[19 + i];
}
#endif

struct caller_search {
	struct work *work;
	__u64 found;
	__u32 fd;
	__u32 pad;
};

static long caller_step(__u32 i, void *data)
{
	struct caller_search *search = data;
	struct conn_client client;
	__u64 candidate;
	__u32 fd = 0;

	if (i >= CALLER_WORDS)
		return 1;
	candidate = ((__u64 *)search->work->bytes)[i];
	if (!candidate || candidate & 7 || bpf_probe_read_user(&fd, sizeof(fd), (void *)(candidate + fd_offset)) ||
	    fd != search->fd)
		return 0;
	if (!connection_client(candidate, &client))
		return 0;
	search->found = candidate;
	return 1;
}

/* The connection that the current system call is made for, 0 when it can't be told. work's window is overwritten. */
static __always_inline __u64 syscall_connection(struct work *work)
{
	struct pt_regs *regs = caller_registers();
	__u64 *words = (__u64 *)work->bytes;
	struct caller_search search = { .work = work, .fd = CALLER_FD(regs) };

	if (fd_offset < 0)
		return 0;
	caller_preserved(regs, words);
	if (bpf_probe_read_user(words + CALLER_REGISTERS, CALLER_STACK * sizeof(*words), (void *)CALLER_SP(regs)))
		__builtin_memset(words + CALLER_REGISTERS, 0, CALLER_STACK * sizeof(*words));
	env_loop(CALLER_WORDS, caller_step, &search);
	return search.found;
}

#endif
