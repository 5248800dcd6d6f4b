/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The socket tap: the kernel's tracepoints in the middle of read(), write() and writev() on sockets (Linux 6.3,
 * 6e6eda44b939). Bytes read are in the server's buffer, which it has not looked at; bytes written are accepted, and
 * their buffer is still the server's. The arguments are in the registers that the system call was made with.
 *
 * Connections come and go by the connection tap's probes on close and accept, which are hit once each.
 */
#ifndef REPLYLOG_SOCKET_TAP_BPF_H
#define REPLYLOG_SOCKET_TAP_BPF_H

#include "connection_tap.bpf.h"

#if defined(__TARGET_ARCH_x86)
#define SYSCALL_READ 0
#define SYSCALL_WRITE 1
#define SYSCALL_WRITEV 20
#define SYSCALL_NUMBER(regs) ((__u32)(regs)->orig_ax)
#define SYSCALL_ARG2(regs) ((regs)->si)
#define SYSCALL_ARG3(regs) ((regs)->dx)
#else
#define SYSCALL_READ 63
#define SYSCALL_WRITE 64
#define SYSCALL_WRITEV 66
#define SYSCALL_NUMBER(regs) ((__u32)(regs)->user_regs.regs[8])
#define SYSCALL_ARG2(regs) ((regs)->user_regs.regs[1])
#define SYSCALL_ARG3(regs) ((regs)->user_regs.regs[2])
#endif

/* The arguments of both tracepoints: struct sock *, int (bytes or -errno), int flags. */
struct socket_io {
	__u64 sk;
	__s64 bytes;
	__s64 flags;
};

static __always_inline int socket_tap(const struct socket_io *io, bool received)
{
	struct worker worker = { .tap = TAP_SOCKET };
	__s32 bytes = io->bytes;
	struct pt_regs *regs;
	__u32 number;

	if (bytes <= 0 || !tap_wanted())
		return 0;
	regs = caller_registers();
	number = SYSCALL_NUMBER(regs);
	if (!tap_hit(&worker)) {
		engine_missed(io->sk, false);
		return 0;
	}
	if (received && number == SYSCALL_READ)
		engine_read(&worker, io->sk, SYSCALL_ARG2(regs), bytes);
	else if (!received && number == SYSCALL_WRITE)
		engine_write(&worker, io->sk, SYSCALL_ARG2(regs), bytes);
	else if (!received && number == SYSCALL_WRITEV)
		engine_writev(&worker, io->sk, SYSCALL_ARG2(regs), SYSCALL_ARG3(regs), bytes);
	else
		engine_unknown_call(&worker, io->sk);
	return 0;
}

SEC("?raw_tp/sock_recv_length") int socket_received(struct socket_io *io)
{
	keep_own_stack(io, &socket_own_stack);
	return socket_tap(io, true);
}

SEC("?raw_tp/sock_send_length") int socket_sent(struct socket_io *io)
{
	keep_own_stack(io, &socket_own_stack);
	return socket_tap(io, false);
}

/* The socket goes with the connection that the server closes. */
SEC("?uprobe") int socket_close(struct pt_regs *ctx)
{
	struct worker worker = { .tap = TAP_SOCKET };
	__u64 sk;

	keep_own_stack(ctx, &once_own_stack);
	if (!tap_wanted())
		return 0;
	sk = (__u64)connection_sock(PT_REGS_PARM1(ctx));
	if (!sk)
		return 0;
	if (tap_hit(&worker))
		engine_close(&worker, sk);
	else
		engine_missed(sk, true);
	return 0;
}

#endif
