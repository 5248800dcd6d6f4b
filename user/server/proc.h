/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef REPLYLOG_USER_SERVER_PROC_H
#define REPLYLOG_USER_SERVER_PROC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The decimal number of a line "<key>:\t<number>" in /proc/<pid>/status. 0 or -errno (-ENODATA: no such line). */
int proc_status_number(pid_t pid, const char *key, long *number);

/* What /proc/<pid>/stat tells, of a process as it stands now. */
struct proc_stat {
	pid_t parent;
	bool forked; /* since its birth by fork it has not called execve */
	long threads;
	uint64_t started; /* clock ticks after boot */
};

/* 0 or -errno (-ENODATA: not of that form). */
int proc_stat(pid_t pid, struct proc_stat *stat);

/*
 * How many threads of the process have a name that begins with prefix. *first, if not NULL, becomes the id of one of them,
 * and stays as it is when there is none.
 */
size_t proc_threads_named(pid_t pid, const char *prefix, pid_t *first);

#endif
