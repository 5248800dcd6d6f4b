/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* --debug: what BPF has said, in words. */
#ifndef REPLYLOG_USER_OUTPUT_DEBUG_LINE_H
#define REPLYLOG_USER_OUTPUT_DEBUG_LINE_H

#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>

#include "bpf/abi/debug.h"
#include "bpf/abi/record.h"

#define DEBUG_CLIENT_TEXT 128
#define DEBUG_LINE_TEXT 768

/*
 * "client 7 127.0.0.1:51234 (connection 3.1)": the server's id, the address, the number of the connection and which one
 * of that number.
 */
void debug_client(char text[DEBUG_CLIENT_TEXT], const struct reply_record *rec);

/* Why there is a doubt; "" when there is none. */
const char *debug_doubt(enum doubt doubt);

/* The line, without its time, its server and its newline. 0, or -EBADMSG: it is no event of ours. */
int debug_line(char text[DEBUG_LINE_TEXT], const struct debug_event *event, size_t size);

#endif
