/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* How the probes are attached, and what is attached. */
#ifndef REPLYLOG_USER_KERNEL_ATTACH_H
#define REPLYLOG_USER_KERNEL_ATTACH_H

#include <stdbool.h>

/* How uprobes are attached; auto takes the first of the others that the kernel has. */
enum attach_choice { ATTACH_AUTO, ATTACH_SESSION, ATTACH_MULTI, ATTACH_PERF };

/* Where the bytes of plain connections are seen; auto takes the socket's tracepoints where the kernel has them. */
enum tap_choice { TAP_CHOICE_AUTO, TAP_CHOICE_SOCKET, TAP_CHOICE_CONNECTION };

struct attach_mode {
	enum attach_choice attach;
	enum tap_choice tap;
	bool dispatch; /* also the execution of commands */
	bool argv;     /* and what is executed: --argv-from dispatch */
};

/* "uprobe_session", "uprobe_multi" or "perf" */
const char *attach_name(enum attach_choice how);

/* "socket" or "connection" */
const char *tap_name(enum tap_choice tap);

#endif
