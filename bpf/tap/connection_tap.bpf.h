/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The connection tap: uprobes on the server's connection layer, int (*)(connection *, buf | const iovec *, len |
 * iovcnt). At entry the arguments are noted, at return it is known how many bytes went through: read bytes before the
 * server looks at them, written ones before it lets go of their buffer.
 */
#ifndef REPLYLOG_BPF_TAP_CONNECTION_TAP_BPF_H
#define REPLYLOG_BPF_TAP_CONNECTION_TAP_BPF_H

#include "bpf/engine/engine.bpf.h"
#include "bpf/tap/thread_slot.bpf.h"
#include "bpf/thread_stack.bpf.h"
#include <bpf/bpf_tracing.h>

/* 0, or 1 when the return is of no interest. */
static __always_inline int tap_enter(struct pt_regs *ctx, enum io_op op)
{
	struct worker worker = { .tap = TAP_CONNECTION };
	struct io_call *call;

	if (!tap_wanted())
		return 1;
	if (!tap_hit(&worker, HIT_PROBE)) {
		engine_missed(PT_REGS_PARM1(ctx), false, 0);
		return 1;
	}
	call = &worker.scratch->call;
	if (io_call_hands_over(call, op, PT_REGS_PARM1(ctx), PT_REGS_PARM2(ctx), PT_REGS_PARM3(ctx), PT_REGS_SP(ctx)))
		return 1;
	if (call->op != IO_NONE) /* its return never came */
		engine_missed(call->conn, false, 0);
	call->op = op;
	call->handed = 0;
	call->conn = PT_REGS_PARM1(ctx);
	call->addr = PT_REGS_PARM2(ctx);
	call->len = PT_REGS_PARM3(ctx);
	call->sp = PT_REGS_SP(ctx);
	return 0;
}

#if defined(__TARGET_ARCH_x86)
/* The return has popped the return address, which the entry's stack pointer pointed at. */
#define RETURN_SP(sp) ((sp) + 8)
#else
#define RETURN_SP(sp) (sp)
#endif

static __always_inline int tap_return(struct pt_regs *ctx, enum io_op op)
{
	__s32 bytes = PT_REGS_RC(ctx);
	struct worker worker = { .tap = TAP_CONNECTION };
	struct io_call *call;
	__u64 begin;

	if (!tap_wanted() || !tap_worker(tap_slot(false), &worker))
		return 0;
	call = &worker.scratch->call;
	if (call->op != op || RETURN_SP(call->sp) != PT_REGS_SP(ctx))
		return 0;
	call->op = IO_NONE;
	if (bytes <= 0)
		return 0;
	begin = overhead_begin();
	if (op == IO_READ)
		engine_read(&worker, call->conn, call->addr, bytes);
	else if (op == IO_WRITE)
		engine_write(&worker, call->conn, call->addr, bytes);
	else
		engine_writev(&worker, call->conn, call->addr, call->len, bytes);
	overhead_end(worker.stats, begin);
	return 0;
}

static __always_inline int tap_close(struct pt_regs *ctx)
{
	struct worker worker = { .tap = TAP_CONNECTION };

	if (!tap_wanted())
		return 0;
	if (tap_hit(&worker, HIT_PROBE))
		engine_close(&worker, PT_REGS_PARM1(ctx));
	else
		engine_missed(PT_REGS_PARM1(ctx), true, 0);
	return 0;
}

/*
 * A session (Linux 6.13, d920179b3d48) is entry and return in one, and leaves out the return when the entry says so. At
 * the entry the instruction pointer is the probed address, which the cookie says; at the return it is the caller's. The
 * kfunc that tells them apart, bpf_session_is_return(), changed its prototype in Linux 7.0, and an object that names it
 * wrongly does not load.
 */
static __always_inline int tap_session(struct pt_regs *ctx, enum io_op op)
{
	if (PT_REGS_IP(ctx) != bpf_get_attach_cookie(ctx))
		return tap_return(ctx, op);
	return tap_enter(ctx, op);
}

/*
 * One program per function and way of attaching; only those that this kernel can attach are loaded
 * (user/kernel/probes.c).
 */
#define CONNECTION_TAP(name, op)                               \
	SEC("?uprobe") int name##_session(struct pt_regs *ctx) \
	{                                                      \
		keep_thread_stack(ctx, &io_own_stack);         \
		return tap_session(ctx, op);                   \
	}                                                      \
	SEC("?uprobe") int name##_enter(struct pt_regs *ctx)   \
	{                                                      \
		keep_thread_stack(ctx, &io_own_stack);         \
		tap_enter(ctx, op);                            \
		return 0;                                      \
	}                                                      \
	SEC("?uprobe") int name##_return(struct pt_regs *ctx)  \
	{                                                      \
		keep_thread_stack(ctx, &io_own_stack);         \
		return tap_return(ctx, op);                    \
	}

CONNECTION_TAP(conn_read, IO_READ)
CONNECTION_TAP(conn_write, IO_WRITE)
CONNECTION_TAP(conn_writev, IO_WRITEV)

SEC("?uprobe") int conn_close(struct pt_regs *ctx)
{
	keep_thread_stack(ctx, &once_own_stack);
	return tap_close(ctx);
}

#endif
