/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef REPLYLOG_USER_OUTPUT_REDACT_H
#define REPLYLOG_USER_OUTPUT_REDACT_H

#include "user/output/argv.h"

/*
 * What stands in the place of a secret, as in the server's own logs (shared.redacted in valkey 9.1.2
 * src/server.c).
 */
#define REDACTED "(redacted)"

/*
 * Replace in a every argument that the server itself would redact from its logs, and every one of the same
 * commands of which that is not certain. Cannot fail; must run before anything of a is shown.
 */
void redact(struct argv *a);

#endif
