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

static __always_inline struct thread *tap_thread(__u64 flags)
{
	return bpf_task_storage_get(&threads, bpf_get_current_task_btf(), NULL, flags);
}

/* Finds this thread's areas, or gives it some. */
static __always_inline bool tap_worker(struct thread *thread, struct worker *worker)
{
	__u32 slot;

	if (!thread->slot) {
		slot = __sync_fetch_and_add(&engine.threads, 1);
		if (slot >= THREADS_MAX)
			return false;
		thread->slot = slot + 1;
	}
	slot = thread->slot - 1;
	worker->scratch = bpf_map_lookup_elem(&scratches, &slot);
	worker->stats = bpf_map_lookup_elem(&thread_stats, &slot);
	return worker->scratch && worker->stats;
}

static __always_inline bool tap_hit(struct thread *thread, struct worker *worker)
{
	if (!thread || !tap_worker(thread, worker)) {
		count_loss(LOSS_NO_SCRATCH);
		return false;
	}
	if (!worker->stats->hits++)
		worker->stats->tid = (__u32)bpf_get_current_pid_tgid();
	return true;
}

/* 0, or 1 when the return is of no interest. */
static __always_inline int tap_enter(struct pt_regs *ctx, enum io_op op)
{
	struct thread *thread;
	struct worker worker;

	if (!tap_wanted())
		return 1;
	thread = tap_thread(BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!tap_hit(thread, &worker))
		return 1;
	thread->op = op;
	thread->conn = PT_REGS_PARM1(ctx);
	thread->addr = PT_REGS_PARM2(ctx);
	thread->len = PT_REGS_PARM3(ctx);
	thread->sp = PT_REGS_SP(ctx);
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
	struct thread *thread;
	struct worker worker;

	if (!tap_wanted())
		return 0;
	thread = tap_thread(0);
	if (!thread || thread->op != op || RETURN_SP(thread->sp) != PT_REGS_SP(ctx))
		return 0;
	thread->op = IO_NONE;
	if (bytes <= 0 || !tap_worker(thread, &worker))
		return 0;
	if (op == IO_READ)
		engine_read(&worker, thread->conn, thread->addr, bytes);
	else if (op == IO_WRITE)
		engine_write(&worker, thread->conn, thread->addr, bytes);
	else
		engine_writev(&worker, thread->conn, thread->addr, thread->len, bytes);
	return 0;
}

static __always_inline int tap_close(struct pt_regs *ctx)
{
	struct worker worker;

	if (!tap_wanted())
		return 0;
	if (tap_hit(tap_thread(BPF_LOCAL_STORAGE_GET_F_CREATE), &worker))
		engine_close(&worker, PT_REGS_PARM1(ctx));
	return 0;
}

/*
 * One program per function and way of attaching; only those that this kernel can attach are loaded (user/attach.c).
 * A session (Linux 6.13, d920179b3d48) is entry and return in one, and leaves out the return when the entry says so.
 */
extern bool bpf_session_is_return(void) __ksym __weak;

#define CONNECTION_TAP(name, op)                                                                                       \
	SEC("?uprobe") int name##_session(struct pt_regs *ctx)                                                          \
	{                                                                                                              \
		return bpf_session_is_return() ? tap_return(ctx, op) : tap_enter(ctx, op);                             \
	}                                                                                                              \
	SEC("?uprobe") int name##_enter(struct pt_regs *ctx)                                                            \
	{                                                                                                              \
		tap_enter(ctx, op);                                                                                    \
		return 0;                                                                                              \
	}                                                                                                              \
	SEC("?uprobe") int name##_return(struct pt_regs *ctx)                                                           \
	{                                                                                                              \
		return tap_return(ctx, op);                                                                            \
	}

CONNECTION_TAP(conn_read, IO_READ)
CONNECTION_TAP(conn_write, IO_WRITE)
CONNECTION_TAP(conn_writev, IO_WRITEV)

SEC("?uprobe") int conn_close(struct pt_regs *ctx)
{
	return tap_close(ctx);
}

#endif
