/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* --check: everything that comes before attaching, and what it found. */
#ifndef REPLYLOG_USER_CLI_CHECK_H
#define REPLYLOG_USER_CLI_CHECK_H

#include "user/server/discover.h"
#include "user/cli/options.h"

/*
 * Reports on each server to stdout, in words or as JSON (docs/SCHEMA.md). Its programs are loaded, to hear the kernel's
 * verifier, and none is attached. 0 when each could be attached to, else -1: why is in the report and on stderr.
 */
int check(const struct options *options, const struct servers *servers);

#endif
