/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The executions of a connection's commands, as they are noted (--dispatch). Whose each is: execution.h. */
#ifndef REPLYLOG_BPF_CONN_DISPATCH_LOG_H
#define REPLYLOG_BPF_CONN_DISPATCH_LOG_H

#include "bpf/conn/connection.h"
#include "bpf/port.h"

/* One execution. */
struct dispatch {
	__u64 start_ns;
	__u64 exec_ns;  /* 0: not done */
	__u64 inner_ns; /* of that, in the commands that it executed itself: a script's */
	__u64 name;     /* how argv[0] begins; 0 unknown */
	__u32 inner;    /* and how many of them */
	__u32 head;     /* the place of its head in the connection's heads (--argv-from dispatch), or SNAPSHOT_NONE */
};

/* The last executions of a connection, and the first ones inside the last EXEC. */
#define DISPATCHES 64
#define DISPATCHES_INNER 16

/*
 * Written by the thread that executes commands, before the reply can be written. It may go on to later commands while
 * another thread writes the reply, and overwrite what that reads: so what was read counts only if it is still there
 * afterwards.
 */
struct dispatch_log {
	__u32 count;    /* executions so far; the last ones are done[n % DISPATCHES] */
	__u32 inner_of; /* the execution that inner is about */
	__u32 settled;  /* so many are over for good: written by the thread that reads, when nothing is outstanding */
	__u32 pad;
	struct dispatch done[DISPATCHES];
	struct dispatch inner[DISPATCHES_INNER];
};

/*
 * Once all that was read is executed, at the latest when the last reply begins: have there been as many executions as
 * the numbering says? A command that was answered by an error may have been executed, or not. If there were more or fewer,
 * what was said of executions since the last dispatch_align() is not proven.
 */
static __always_inline bool dispatch_in_step(const struct connection *conn)
{
	struct dispatch_log *log = dispatch_log_at(conn->id.number);

	if (!log || !conn->dispatch_known)
		return false;
	return conn->dispatch_base + (__u32)conn->read_seq - env_add(&log->count, 0) <= conn->dispatch_errors;
}

#endif
