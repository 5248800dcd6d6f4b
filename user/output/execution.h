/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What a record says of its command's execution (--dispatch), beside what its request and its reply say. */
#ifndef REPLYLOG_USER_OUTPUT_EXECUTION_H
#define REPLYLOG_USER_OUTPUT_EXECUTION_H

#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>

#include "bpf/abi/record.h"

/* The head that says what the command was: of what was executed, where there is one, or else the request's. */
const void *record_head(const struct reply_record *rec, size_t *len);

/* Is there one? */
bool record_has_head(const struct reply_record *rec);

/* Which execution the reply answers is not proven after all: what the request itself said remains. */
void record_forget_execution(struct reply_record *rec);

#endif
