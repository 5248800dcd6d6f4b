/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Which execution a reply answers (--dispatch). The server's call() executes one command; the programs on it
 * (dispatch.bpf.h) number the executions of each connection from 1 on and note how long each took.
 *
 * THE PROOF that execution number n + base is that of command number n:
 *
 *   1. When a read finds nothing outstanding, every command before it has been executed for the last time: base is
 *      what has been counted less what has been read.
 *   2. A command whose reply is no error was executed by call(). Replies without it are errors (rejectCommand() and the
 *      like in processCommand()), "+QUEUED", and redis 6.0's to QUIT, after which it closes.
 *   3. It was executed once, or each further execution says so, and is not numbered anew. There is no more than one in
 *      redis 6.0 and 7.0. From redis 7.2 on and in valkey call() sets FLAG_EXECUTING and clears it at its end, unless
 *      the client is blocked then; resetClient() clears it when the command is over, however it ends: by its reply, a
 *      timeout, an error. So where call() finds it set, that command has been executed before and is not over:
 *        - a key that it waited for is there (unblockClientOnKey()),
 *        - and CLIENT PAUSE has postponed it then (blockPostponeClient()), which clears reexecuting_command,
 *        - its replicas have it (CLUSTER SETSLOT, valkey 8.0 on),
 *        - a module has looked at its password (AUTH and HELLO AUTH, RM_BlockClientOnAuth()).
 *      FLAG_PENDING_COMMAND at the end of call() would be no proof: redis 8 sets it for FLUSHALL, which is not executed
 *      again (flushallSyncBgDone()). One way leaves the flag set although the command is over: a SHUTDOWN that was
 *      called off (unblockClient() does not reset such a client). It is answered by an error, and once a read has found
 *      nothing outstanding, every execution so far is over (settled), whatever the flag says.
 *   4. Commands of one connection are executed in the order of their numbers.
 *
 * So base holds until a reply is an error: that command may have been executed, or not, and nothing is known until 1.
 * holds again. "+QUEUED" moves it by one. Inside EXEC each queued command is executed by a call() of its own, but for
 * those that ACL refuses then: as many executions as there are elements prove that there was none.
 *
 * Servers have bugs, and modules do what they like: so it is checked besides. When the last outstanding reply begins,
 * there must have been as many executions as commands (dispatch_in_step()); execution must lie between request and reply;
 * and with --argv-from dispatch all that is kept of what was executed must be what was asked (snapshots_differ()). What does
 * not fit is counted, and nothing is known until 1. holds again.
 *
 * Read: redis 6.0.16, 7.0.15, 8.0.2, 8.0.6, 8.6.3, valkey 8.0.1, 8.1.1, 9.1.2: src/server.c processCommand() and call(),
 * src/multi.c execCommand(), src/blocked.c, src/networking.c resetClient() and processPendingCommandAndInputBuffer(),
 * src/module.c checkModuleAuthentication(), src/cluster_legacy.c clusterCommandSetSlot(), src/db.c (redis 8).
 */
#ifndef REPLYLOG_BPF_CONN_EXECUTION_H
#define REPLYLOG_BPF_CONN_EXECUTION_H

#include "bpf/conn/dispatch_log.h"
#include "bpf/dispatch/snapshot_ring.h"
#include "bpf/conn/tracked_command.h"

/* A read finds nothing outstanding. */
static __always_inline void dispatch_align(struct connection *conn)
{
	struct dispatch_log *log = dispatch_log_at(conn->id.number);

	if (!log)
		return;
	log->settled = env_add(&log->count, 0);
	conn->dispatch_base = log->settled - (__u32)conn->read_seq;
	conn->dispatch_known = DISPATCH_KNOWN;
	conn->dispatch_errors = 0;
}

/* What is known of the numbering is wrong: nothing is known until a read finds nothing outstanding again. */
static __always_inline void dispatch_refute(struct connection *conn)
{
	conn->dispatch_known = DISPATCH_UNKNOWN;
	dispatch_disagrees();
}

/* A reply of this type begins. An attribute hides the type. */
static __always_inline void dispatch_reply_begins(struct connection *conn, __u8 type)
{
	if (!dispatch_probed() || (type != '-' && type != '!' && type != '|') || conn->session.exec_left)
		return;
	if (conn->dispatch_known)
		conn->dispatch_known = DISPATCH_BEFORE_ERROR;
	conn->dispatch_errors++;
}

/* The current reply is "+QUEUED". */
static __always_inline void dispatch_queued(struct connection *conn)
{
	conn->dispatch_base--;
}

static __always_inline bool dispatch_kept(struct dispatch_log *log, __u32 number)
{
	return env_add(&log->count, 0) - number - 1 < DISPATCHES;
}

/* An execution by its number: true when it is kept and done. */
static __always_inline bool dispatch_read(struct dispatch_log *log, __u32 number, struct dispatch *out)
{
	*out = log->done[number % DISPATCHES];
	return dispatch_kept(log, number) && out->exec_ns;
}

/* The execution of the i-th command inside EXEC, which is execution number exec. */
static __always_inline bool dispatch_read_inner(struct dispatch_log *log, __u32 exec, __u64 i, __u64 elements,
						struct dispatch *out)
{
	if (!dispatch_read(log, exec, out) || out->inner != elements)
		return false;
	env_opaque(i);
	if (i >= DISPATCHES_INNER)
		return false;
	*out = log->inner[i];
	return env_add(&log->inner_of, 0) == exec;
}

/* Is the current reply one of those that commands in a transaction get when they are queued? */
static __always_inline bool dispatch_is_queueing(struct connection *conn)
{
	const struct tracked_command *tracked = tracked_current(conn);

	return conn->session.multi && !(tracked && command_ends_queueing(tracked->class));
}

/* The execution of command number seq, which the current reply answers. False when it is not proven or not kept. */
static __always_inline bool dispatch_find(struct connection *conn, __u64 seq, struct dispatch *out)
{
	const struct session *session = &conn->session;
	struct dispatch_log *log = dispatch_log_at(conn->id.number);
	__u32 number = conn->dispatch_base + (__u32)conn->reply_seq;

	if (!log || conn->dispatch_known != DISPATCH_KNOWN || dispatch_is_queueing(conn))
		return false;
	if (outstanding(conn) == 1 && !dispatch_in_step(conn)) {
		dispatch_refute(conn);
		return false;
	}
	if (session->exec_left && seq != conn->reply_seq)
		return dispatch_read_inner(log, number, session->queued - session->exec_left, session->queued, out);
	return dispatch_read(log, number, out);
}

#endif
