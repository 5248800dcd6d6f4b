/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef REPLYLOG_PROC_STATUS_H
#define REPLYLOG_PROC_STATUS_H

#include <sys/types.h>

/* The decimal number of a line "<key>:\t<number>" in /proc/<pid>/status. 0 or -errno (-ENODATA: no such line). */
int proc_status_number(pid_t pid, const char *key, long *number);

#endif
