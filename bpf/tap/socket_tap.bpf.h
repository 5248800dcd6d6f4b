/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The socket tap: the kernel's tracepoints in the middle of read(), write() and writev() on sockets (Linux 6.3,
 * 6e6eda44b939). Bytes read are in the server's buffer, which it has not looked at; bytes written are accepted, and
 * their buffer is still the server's. The arguments are in the registers that the system call was made with.
 *
 * Connections come and go by the connection tap's probes on close and accept, which are hit once each.
 */
#ifndef REPLYLOG_BPF_TAP_SOCKET_TAP_BPF_H
#define REPLYLOG_BPF_TAP_SOCKET_TAP_BPF_H

#include "bpf/tap/accept.bpf.h"

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
	__u64 begin;

	if (bytes <= 0 || !tap_wanted())
		return 0;
	begin = overhead_begin();
	regs = caller_registers();
	number = SYSCALL_NUMBER(regs);
	if (!tap_hit(&worker, HIT_TRACEPOINT)) {
		engine_missed(io->sk, false, received ? 0 : bytes);
		return 0;
	}
	if (received && number == SYSCALL_READ)
		engine_read(&worker, io->sk, SYSCALL_ARG2(regs), bytes);
	else if (!received && number == SYSCALL_WRITE)
		engine_write(&worker, io->sk, SYSCALL_ARG2(regs), bytes);
	else if (!received && number == SYSCALL_WRITEV)
		engine_writev(&worker, io->sk, SYSCALL_ARG2(regs), SYSCALL_ARG3(regs), bytes);
	else
		engine_unknown_call(&worker, io->sk, received ? 0 : bytes);
	overhead_end(worker.stats, begin);
	return 0;
}

SEC("?raw_tp/sock_recv_length") int socket_received(struct socket_io *io)
{
	keep_thread_stack(io, &socket_own_stack);
	return socket_tap(io, true);
}

SEC("?raw_tp/sock_send_length") int socket_sent(struct socket_io *io)
{
	keep_thread_stack(io, &socket_own_stack);
	return socket_tap(io, false);
}

/* The server accepts a client: its socket's bytes are plain, */
SEC("?uprobe") int socket_accept(struct pt_regs *ctx)
{
	struct worker worker = { .tap = TAP_SOCKET };
	__u64 server_conn = PT_REGS_PARM1(ctx), sk;

	keep_thread_stack(ctx, &once_own_stack);
	if (!tap_wanted() || !tap_hit(&worker, HIT_PROBE) || !accepts_client(server_conn))
		return 0;
	sk = (__u64)connection_sock(server_conn);
	if (sk)
		engine_accepted(&worker, sk, server_conn);
	return 0;
}

/* or they are TLS's: then the connection tap sees what is in them. */
SEC("?uprobe") int socket_accept_tls(struct pt_regs *ctx)
{
	struct worker worker = { .tap = TAP_SOCKET };
	__u64 server_conn = PT_REGS_PARM1(ctx), sk;

	keep_thread_stack(ctx, &once_own_stack);
	if (!tap_wanted() || !tap_hit(&worker, HIT_PROBE))
		return 0;
	sk = (__u64)connection_sock(server_conn);
	if (sk)
		connection_pass_over(&worker, sk);
	worker.tap = TAP_CONNECTION;
	if (accepts_client(server_conn))
		engine_accepted(&worker, server_conn, server_conn);
	return 0;
}

/* The socket goes with the connection that the server closes. Both taps may know it. */
SEC("?uprobe") int socket_close(struct pt_regs *ctx)
{
	struct worker worker = { .tap = TAP_SOCKET };
	__u64 server_conn = PT_REGS_PARM1(ctx), sk;

	keep_thread_stack(ctx, &once_own_stack);
	if (!tap_wanted())
		return 0;
	sk = (__u64)connection_sock(server_conn);
	if (!tap_hit(&worker, HIT_PROBE)) {
		engine_missed(server_conn, true, 0);
		if (sk)
			engine_missed(sk, true, 0);
		return 0;
	}
	engine_close(&worker, server_conn);
	if (sk)
		engine_close(&worker, sk);
	return 0;
}

#endif
