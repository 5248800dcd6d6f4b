/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The proof that a connection is followed from its start, whatever its transport: the call in which the server accepts
 * it, once a connection. connSocketAccept serves TCP and, by way of connUnixAccept, Unix sockets; connTLSAccept TLS.
 */
#ifndef REPLYLOG_BPF_TAP_ACCEPT_BPF_H
#define REPLYLOG_BPF_TAP_ACCEPT_BPF_H

#include "bpf/tap/connection_tap.bpf.h"

/* The state of a connection before its first read; word 1 of struct connection in redis 6.0-8.6, valkey 8.0-9.1 */
#define CONN_STATE_ACCEPTING 2

struct conn_start {
	__u64 type;
	__u32 state;
	__u32 other;
};

/*
 * acceptCommonHandler() in src/networking.c makes the client before it accepts. What is accepted without one is no
 * client's connection: a cluster bus link.
 */
static __always_inline bool accepts_client(__u64 server_conn)
{
	struct conn_client client;
	struct conn_start start;

	return !bpf_probe_read_user(&start, sizeof(start), (void *)server_conn) && start.state == CONN_STATE_ACCEPTING &&
	       connection_client(server_conn, &client);
}

/* What is not known to be accepted here is taken for older than we are. */
static __always_inline int tap_accept(struct pt_regs *ctx)
{
	__u64 server_conn = PT_REGS_PARM1(ctx);
	struct worker worker = { .tap = TAP_CONNECTION };

	if (tap_wanted() && tap_hit(&worker, HIT_PROBE) && accepts_client(server_conn))
		engine_accepted(&worker, server_conn, server_conn);
	return 0;
}

SEC("?uprobe") int conn_accept(struct pt_regs *ctx)
{
	keep_thread_stack(ctx, &once_own_stack);
	return tap_accept(ctx);
}

#endif
