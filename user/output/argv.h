/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* From the kept head of a command (its format is in bpf/abi/record.h) to its arguments. */
#ifndef REPLYLOG_USER_OUTPUT_ARGV_H
#define REPLYLOG_USER_OUTPUT_ARGV_H

#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bpf/abi/record.h"

struct argv_arg {
	const char *bytes; /* in the head, or in text below: not NUL-terminated, not the receiver's to free */
	size_t len;        /* bytes there are, at most ARGV_MAX_ARG_BYTES */
	uint64_t true_len; /* bytes the argument had; of a cut inline line's last one, those seen */
};

struct argv {
	uint64_t argc;   /* arguments the command had */
	bool argc_known; /* false: of an inline line that was cut, argc counts those seen */
	unsigned int n;  /* arguments kept, at least 1 and at most ARGV_MAX_ARGS */
	bool truncated;  /* an argument is shorter than it was, or arguments are missing */
	struct argv_arg arg[ARGV_MAX_ARGS];
	/* An inline command's arguments, their quotes and escapes undone. */
	char text[ARGV_MAX_ARGS * ARGV_MAX_ARG_BYTES];
};

/*
 * Decode len bytes of head; cut is the record's argv_cut. 0 on success: a is then valid as long as the head
 * is. -EBADMSG when the head is in neither of the two formats, or is a command the server does not run (no
 * arguments, or an inline line with unbalanced quotes: a protocol error to the server), or an inline line of which
 * servers make different things. Then a holds nothing, and nothing of the head may be shown: what could not be parsed
 * could not be redacted.
 */
int argv_decode(struct argv *a, const void *head, size_t len, bool cut);

/* Whether an argument is word to its last byte; and whether it is but for the case of letters. */
bool argv_arg_is(const struct argv_arg *arg, const char *word);
bool argv_arg_reads(const struct argv_arg *arg, const char *word);

#endif
