/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * --debug: lines that explain what replylog does and why, on stderr or in a file. Each is written whole, by one
 * write(2), and names the server, since several processes may write to the same place.
 *
 * Nothing that a client or the server sent may be part of a line: any of it may be secret.
 */
#ifndef REPLYLOG_USER_DEBUG_H
#define REPLYLOG_USER_DEBUG_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* From now on lines are written: to the end of this file, which is made where there is none, or to stderr when it is NULL. 0, or -1 with the
 * reason on stderr. */
int debug_open(const char *file);

/* Are lines written? */
bool debug_on(void);

/* The server that the next lines are about. */
void debug_server(pid_t pid);

/* Writes a line, now, or one about a moment of CLOCK_MONOTONIC. Does nothing unless lines are written. */
__attribute__((format(printf, 1, 2))) void debug_say(const char *format, ...);
__attribute__((format(printf, 2, 3))) void debug_say_at(uint64_t monotonic_ns, const char *format, ...);

/* The same for a text of any number of lines, each of which gets this in front. */
__attribute__((format(printf, 2, 0))) void debug_say_lines(const char *in_front, const char *format, va_list args);

#endif
