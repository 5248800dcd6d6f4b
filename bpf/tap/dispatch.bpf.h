/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * --dispatch: how long the server executes each command. Programs on void call(client *c, int flags), in all versions
 * the one function that executes a command: a client's own, one that EXEC executes for it, and those of scripts and
 * modules, which use clients without a connection. All this is paid by the main thread for each command.
 */
#ifndef REPLYLOG_BPF_TAP_DISPATCH_BPF_H
#define REPLYLOG_BPF_TAP_DISPATCH_BPF_H

#include "bpf/tap/connection_tap.bpf.h"
#include "bpf/dispatch/snapshot_ring.h"

enum dispatch_role {
	DISPATCH_COMMAND, /* a client's own command */
	DISPATCH_QUEUED,  /* EXEC executes it for the same client */
	DISPATCH_NESTED,  /* what else happens inside a command: a script's, a module's */
};

/* A call() that has begun and not returned. */
struct dispatch_frame {
	__u64 sp; /* where its return address is; matches the return to the entry */
	__u64 client;
	__u32 connection; /* number of the connection; not of what is nested */
	__u32 number;     /* of the execution; of what EXEC executes: its place there */
	__u8 role;        /* enum dispatch_role */
	__u8 again;       /* a command that was blocked is executed once more */
	__u8 pad[6];
	struct dispatch dispatch;
};

/* EXEC, a script, a command of a module, and what that calls. */
#define DISPATCH_DEPTH 8

struct dispatch_stack {
	__u32 depth;
	__u32 pad;
	struct dispatch_frame frame[DISPATCH_DEPTH];
};

/* One a thread: modules may execute commands in threads of their own. Its place is that of its statistics. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct dispatch_stack);
} dispatch_stacks SEC(".maps");

static __always_inline struct dispatch_stack *dispatch_stack_at(__u32 slot)
{
	slot--;
	return bpf_map_lookup_elem(&dispatch_stacks, &slot);
}

/* The innermost frame, or NULL. */
static __always_inline struct dispatch_frame *dispatch_top(struct dispatch_stack *stack)
{
	__u32 i = stack->depth - 1;

	if (i >= DISPATCH_DEPTH)
		return NULL;
	env_opaque(i); /* or the compiler adds before it compares, which the verifier does not follow */
	return &stack->frame[i % DISPATCH_DEPTH];
}

/* Drops the frames below sp, whose returns were not seen. The stack grows down. */
static __always_inline void dispatch_unwind(struct dispatch_stack *stack, __u64 sp)
{
	const struct dispatch_frame *top;
	__u32 i;

	for (i = 0; i < DISPATCH_DEPTH; i++) {
		top = dispatch_top(stack);
		if (!top || top->sp >= sp)
			return;
		stack->depth--;
	}
}

static __always_inline enum dispatch_role dispatch_role(struct dispatch_stack *stack, __u64 client, __u64 conn)
{
	const struct dispatch_frame *outer = dispatch_top(stack);

	if (outer && outer->client == client)
		return outer->role == DISPATCH_COMMAND ? DISPATCH_QUEUED : DISPATCH_NESTED;
	return conn ? DISPATCH_COMMAND : DISPATCH_NESTED;
}

/* How the name of the client's current command begins. */
static __always_inline __u64 dispatch_name(__u64 client)
{
	__u64 argv = client_field(client, &client_layout.argv, 0), object = 0, sds, name = 0;

	if (bpf_probe_read_user(&object, sizeof(object), (void *)argv))
		return 0;
	sds = object_sds(object);
	if (!sds || bpf_probe_read_user(&name, sizeof(name), (void *)sds))
		return 0;
	return name;
}

/* Keeps what the server's structs say of the command, and how its name begins. */
static __always_inline void dispatch_take(struct dispatch_frame *frame, __u32 slot, __u64 conn)
{
	struct snapshot_ring *snapshots = bpf_map_lookup_elem(&dispatch_heads, &frame->connection);
	struct snapshot_work *work;
	__u32 len;

	slot--;
	work = bpf_map_lookup_elem(&head_works, &slot);
	if (!snapshots || !work)
		return;
	len = snapshot_take(work, frame->client, conn);
	if (!len) {
		counter_add(COUNTER_DISPATCH_UNREAD, 1);
		return;
	}
	frame->dispatch.head = snapshots_keep(snapshots, work, len);
	frame->dispatch.name = work->name;
}

/* Of a blocked command that is executed again, what was kept at first is what the client sent. */
static __always_inline bool dispatch_is_taken(const struct dispatch_frame *frame)
{
	if (!argv_at_dispatch || frame->again)
		return false;
	return frame->role == DISPATCH_COMMAND || (frame->role == DISPATCH_QUEUED && frame->number < DISPATCHES_INNER);
}

/* Is this the execution of a command whose execution is counted already? See execution.h. */
static __always_inline bool dispatch_is_again(const struct dispatch_log *log, __u64 client)
{
	return log->count != log->settled && client_flag(client, FLAG_EXECUTING);
}

/* Numbers the execution of a client's own command. False when the connection is not known. */
static __always_inline bool dispatch_number(struct dispatch_frame *frame, __u64 conn)
{
	__u32 *connection = bpf_map_lookup_elem(&dispatch_numbers, &conn);
	struct dispatch_log *log;

	if (!connection)
		return false;
	frame->connection = *connection;
	log = dispatch_log_at(frame->connection);
	if (!log)
		return false;
	frame->again = dispatch_is_again(log, frame->client);
	if (!frame->again)
		__builtin_memset(&log->done[env_add(&log->count, 1) % DISPATCHES], 0, sizeof(log->done[0]));
	frame->number = log->count - 1;
	return true;
}

/* An execution that finds no place to be noted in is numbered all the same. */
static __always_inline int dispatch_uncounted(__u64 client)
{
	struct dispatch_frame frame = { .client = client };

	count_loss(LOSS_NO_SCRATCH);
	dispatch_number(&frame, client_field(client, &client_layout.conn, 0));
	return 1;
}

static __always_inline bool dispatch_begin(struct dispatch_stack *stack, struct dispatch_frame *frame, __u64 conn)
{
	struct dispatch_frame *outer = dispatch_top(stack);

	frame->role = dispatch_role(stack, frame->client, conn);
	if (frame->role == DISPATCH_COMMAND)
		return dispatch_number(frame, conn);
	if (!outer)
		return false;
	frame->connection = outer->connection;
	frame->number = outer->dispatch.inner++;
	return true;
}

/* 0, or 1 when the return is of no interest. */
static __always_inline int dispatch_push(struct pt_regs *ctx, struct dispatch_stack *stack, __u32 slot)
{
	__u64 client = PT_REGS_PARM1(ctx), conn;
	struct dispatch_frame frame, *top;

	dispatch_unwind(stack, PT_REGS_SP(ctx) + 1);
	__builtin_memset(&frame, 0, sizeof(frame));
	frame.sp = PT_REGS_SP(ctx);
	frame.client = client;
	conn = client_field(client, &client_layout.conn, 0);
	if (!dispatch_begin(stack, &frame, conn) || stack->depth >= DISPATCH_DEPTH)
		return 1;
	if (dispatch_is_taken(&frame))
		dispatch_take(&frame, slot, conn);
	if (!frame.dispatch.name)
		frame.dispatch.name = dispatch_name(client);
	frame.dispatch.start_ns = bpf_ktime_get_ns();
	stack->depth++;
	top = dispatch_top(stack);
	if (top)
		*top = frame;
	return 0;
}

/* 0, or 1 when the return is of no interest. What the return does is little beside a hit. */
static __always_inline int dispatch_enter(struct pt_regs *ctx)
{
	struct dispatch_stack *stack;
	struct thread_stats *stats;
	__u32 slot, i;
	__u64 begin;
	int ignored;

	if (!tap_wanted())
		return 1;
	begin = overhead_begin();
	slot = tap_slot(true);
	i = slot - 1;
	stats = bpf_map_lookup_elem(&thread_stats, &i);
	stack = dispatch_stack_at(slot);
	if (!stats || !stack)
		return dispatch_uncounted(PT_REGS_PARM1(ctx));
	stats->hits++;
	overhead_hit(stats, HIT_PROBE);
	ignored = dispatch_push(ctx, stack, slot);
	overhead_end(stats, begin);
	return ignored;
}

/* What the command took is added up: a blocked one may be executed several times. */
static __always_inline void dispatch_note(const struct dispatch_frame *frame)
{
	struct dispatch_log *log = dispatch_log_at(frame->connection);
	struct dispatch *done;

	if (!log || log->count - frame->number - 1 >= DISPATCHES)
		return;
	done = &log->done[frame->number % DISPATCHES];
	if (!frame->again) {
		done->start_ns = frame->dispatch.start_ns;
		done->head = frame->dispatch.head;
	}
	done->name = frame->dispatch.name;
	done->exec_ns += frame->dispatch.exec_ns;
	done->inner_ns += frame->dispatch.inner_ns;
	done->inner += frame->dispatch.inner;
}

/* What EXEC executed, when it is among the first that are kept. */
static __always_inline void dispatch_note_queued(const struct dispatch_frame *frame, const struct dispatch_frame *exec)
{
	struct dispatch_log *log = dispatch_log_at(frame->connection);
	__u32 i = frame->number;

	env_opaque(i);
	if (!log || i >= DISPATCHES_INNER)
		return;
	if (log->inner_of != exec->number)
		env_exchange(&log->inner_of, exec->number);
	log->inner[i] = frame->dispatch;
}

static __always_inline int dispatch_return(struct pt_regs *ctx)
{
	__u32 slot = tap_wanted() ? tap_slot(false) : 0;
	struct dispatch_stack *stack = slot ? dispatch_stack_at(slot) : NULL;
	struct dispatch_frame *frame, *outer;
	__u64 sp = PT_REGS_SP(ctx) - RETURN_SP(0);

	if (!stack)
		return 0;
	dispatch_unwind(stack, sp);
	frame = dispatch_top(stack);
	if (!frame || frame->sp != sp)
		return 0;
	stack->depth--;
	outer = dispatch_top(stack);
	frame->dispatch.exec_ns = bpf_ktime_get_ns() - frame->dispatch.start_ns + 1;
	if (frame->role == DISPATCH_COMMAND) {
		dispatch_note(frame);
		return 0;
	}
	if (!outer)
		return 0;
	outer->dispatch.inner_ns += frame->dispatch.exec_ns;
	if (frame->role == DISPATCH_QUEUED)
		dispatch_note_queued(frame, outer);
	return 0;
}

SEC("?uprobe") int call_session(struct pt_regs *ctx)
{
	__u32 ret;

	keep_thread_stack(ctx, &io_own_stack);
	ret = PT_REGS_IP(ctx) != bpf_get_attach_cookie(ctx) ? dispatch_return(ctx) : dispatch_enter(ctx);
	env_opaque(ret); /* the compiler knows that it is 0 or 1, and is to let the verifier know, too */
	return ret & 1;
}

SEC("?uprobe") int call_enter(struct pt_regs *ctx)
{
	keep_thread_stack(ctx, &io_own_stack);
	dispatch_enter(ctx);
	return 0;
}

SEC("?uprobe") int call_return(struct pt_regs *ctx)
{
	keep_thread_stack(ctx, &io_own_stack);
	return dispatch_return(ctx);
}

#endif
