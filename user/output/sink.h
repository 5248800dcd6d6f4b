/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef REPLYLOG_USER_OUTPUT_SINK_H
#define REPLYLOG_USER_OUTPUT_SINK_H

#include <stddef.h>

/* Where lines go: a file descriptor that stays the caller's. The caller ignores SIGPIPE. */
struct sink {
	int fd;
	int err; /* the first failure: nothing is written after it, so that no line follows half of another */
	void (*interrupted)(void *ctx); /* NULL, or what to do when a signal came while a line waited; writes nothing */
	void *ctx;
};

void sink_init(struct sink *s, int fd);

/*
 * Write one line of len bytes, its newline included, with one write(2): a reader that takes lines from a pipe
 * or file sees it whole. A short write is finished, an interrupted one repeated, a full non-blocking
 * descriptor waited for. 0, or the negative errno of this or an earlier failure (-EPIPE: nobody reads any
 * more).
 */
int sink_write(struct sink *s, const char *line, size_t len);

#endif
