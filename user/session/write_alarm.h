/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Interrupts a system call that waits, whatever for: it fails with EINTR, or says how much it has done so far. */
#ifndef REPLYLOG_USER_SESSION_WRITE_ALARM_H
#define REPLYLOG_USER_SESSION_WRITE_ALARM_H

#include <stdint.h>

/* Call it before the others; repeated calls are fine. 0, or -1 with the reason on stderr. */
int write_alarm_init(void);

/*
 * From this moment of CLOCK_MONOTONIC on, again and again until the next call: an alarm that comes just before the system
 * call is then not the last one.
 */
void write_alarm_from(uint64_t when_ns);
void write_alarm_stop(void);

#endif
