/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The connection tap: uprobes on the server's connection layer, int (*)(connection *, buf | const iovec *, len |
 * iovcnt). At entry the arguments are noted, at return it is known how many bytes went through: read bytes before the
 * server looks at them, written ones before it lets go of their buffer.
 */
#ifndef REPLYLOG_CONNECTION_TAP_BPF_H
#define REPLYLOG_CONNECTION_TAP_BPF_H

#include "engine.bpf.h"
#include <bpf/bpf_tracing.h>

enum io_op {
	IO_NONE = 0,
	IO_READ,
	IO_WRITE,
	IO_WRITEV,
};

/* Whether this hit is the server's and is to be acted on. pid filters of the kernel leak: always compare. */
static __always_inline bool tap_wanted(void)
{
	return bpf_get_current_pid_tgid() >> 32 == target_tgid && engine.ready;
}

/*
 * This thread's place, plus 1: found by its tid without any allocation, taken on its first hit. 0: it has none (and,
 * when it wanted to take one, there was none).
 */
static __always_inline __u32 tap_slot(bool take)
{
	__u32 tid = bpf_get_current_pid_tgid(), i, slot;
	struct thread_stats *stats;

	for (i = 0; i < THREAD_PROBES; i++) {
		slot = (tid + i) & (THREADS_MAX - 1);
		stats = bpf_map_lookup_elem(&thread_stats, &slot);
		if (!stats)
			return 0;
		if (stats->tid == tid)
			return slot + 1;
		if (take && !stats->tid && !__sync_val_compare_and_swap(&stats->tid, 0, tid))
			return slot + 1;
	}
	return 0;
}

static __always_inline bool tap_worker(__u32 slot, struct worker *worker)
{
	slot--;
	worker->scratch = bpf_map_lookup_elem(&scratches, &slot);
	worker->stats = bpf_map_lookup_elem(&thread_stats, &slot);
	return worker->scratch && worker->stats;
}

/* Counts a hit and finds this thread's areas. Its slot, or 0 when there is no room. */
static __always_inline __u32 tap_hit(struct worker *worker)
{
	__u32 slot = tap_slot(true);

	if (!tap_worker(slot, worker))
		return 0;
	worker->stats->hits++;
	return slot;
}

/* The slot of the thread that now waits for the call's return; 0 when the return is of no interest. */
static __always_inline __u32 tap_enter(struct pt_regs *ctx, enum io_op op)
{
	struct worker worker;
	struct call *call;
	__u32 slot;

	if (!tap_wanted())
		return 0;
	slot = tap_hit(&worker);
	if (!slot) {
		engine_missed(PT_REGS_PARM1(ctx), false);
		return 0;
	}
	call = &worker.scratch->call;
	if (call->op != IO_NONE) /* its return never came */
		engine_missed(call->conn, false);
	call->op = op;
	call->conn = PT_REGS_PARM1(ctx);
	call->addr = PT_REGS_PARM2(ctx);
	call->len = PT_REGS_PARM3(ctx);
	call->sp = PT_REGS_SP(ctx);
	return slot;
}

#if defined(__TARGET_ARCH_x86)
/* The return has popped the return address, which the entry's stack pointer pointed at. */
#define RETURN_SP(sp) ((sp) + 8)
#else
#define RETURN_SP(sp) (sp)
#endif

static __always_inline int tap_return(struct pt_regs *ctx, enum io_op op, __u32 slot)
{
	__s32 bytes = PT_REGS_RC(ctx);
	struct worker worker;
	struct call *call;

	if (!tap_wanted() || !tap_worker(slot, &worker))
		return 0;
	call = &worker.scratch->call;
	if (call->op != op || RETURN_SP(call->sp) != PT_REGS_SP(ctx))
		return 0;
	call->op = IO_NONE;
	if (bytes <= 0)
		return 0;
	if (op == IO_READ)
		engine_read(&worker, call->conn, call->addr, bytes);
	else if (op == IO_WRITE)
		engine_write(&worker, call->conn, call->addr, bytes);
	else
		engine_writev(&worker, call->conn, call->addr, call->len, bytes);
	return 0;
}

static __always_inline int tap_close(struct pt_regs *ctx)
{
	struct worker worker;

	if (!tap_wanted())
		return 0;
	if (tap_hit(&worker))
		engine_close(&worker, PT_REGS_PARM1(ctx));
	else
		engine_missed(PT_REGS_PARM1(ctx), true);
	return 0;
}

/*
 * A session (Linux 6.13, d920179b3d48) is entry and return in one: it leaves out the return when the entry says so, and
 * carries a word from one to the other.
 */
extern bool bpf_session_is_return(void) __ksym __weak;
extern __u64 *bpf_session_cookie(void) __ksym __weak;

static __always_inline int tap_session(struct pt_regs *ctx, enum io_op op)
{
	__u64 *slot = bpf_session_cookie();

	if (bpf_session_is_return())
		return tap_return(ctx, op, *slot);
	*slot = tap_enter(ctx, op);
	return !*slot;
}

/* One program per function and way of attaching; only those that this kernel can attach are loaded (user/probes.c). */
#define CONNECTION_TAP(name, op)                                                                                       \
	SEC("?uprobe") int name##_session(struct pt_regs *ctx)                                                          \
	{                                                                                                              \
		return tap_session(ctx, op);                                                                           \
	}                                                                                                              \
	SEC("?uprobe") int name##_enter(struct pt_regs *ctx)                                                            \
	{                                                                                                              \
		tap_enter(ctx, op);                                                                                    \
		return 0;                                                                                              \
	}                                                                                                              \
	SEC("?uprobe") int name##_return(struct pt_regs *ctx)                                                           \
	{                                                                                                              \
		return tap_return(ctx, op, tap_slot(false));                                                               \
	}

CONNECTION_TAP(conn_read, IO_READ)
CONNECTION_TAP(conn_write, IO_WRITE)
CONNECTION_TAP(conn_writev, IO_WRITEV)

SEC("?uprobe") int conn_close(struct pt_regs *ctx)
{
	return tap_close(ctx);
}

#endif
