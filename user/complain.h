/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef REPLYLOG_USER_COMPLAIN_H
#define REPLYLOG_USER_COMPLAIN_H

/* Writes "replylog: <message>" to stderr, always as one line. Returns -1, for `return complain(...)`. */
__attribute__((format(printf, 1, 2))) int complain(const char *format, ...);

/* The last message, "" before the first. */
const char *complain_last(void);

#endif
