/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* From how a push, or a message of RESP2, begins to what it is and on which channel it came. */
#ifndef REPLYLOG_USER_OUTPUT_RESP_PUSH_H
#define REPLYLOG_USER_OUTPUT_RESP_PUSH_H

#include <stdbool.h>
#include <stddef.h>

#include "user/output/argv.h"

struct resp_push {
	/* bytes NULL: not there, or not understood. The bytes are in what was decoded. */
	struct argv_arg kind;    /* "message", "invalidate", ...; whole */
	struct argv_arg pattern; /* that a client subscribed to */
	struct argv_arg channel;
	bool truncated; /* pattern or channel are shorter than they were, or missing, because bytes are */
};

/* Decode the first len bytes of a frame; there may be other bytes behind its end. */
void resp_push_decode(struct resp_push *push, const void *bytes, size_t len);

#endif
