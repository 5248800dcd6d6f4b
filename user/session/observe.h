/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* One server from attach to detach, and with --follow the next one. */
#ifndef REPLYLOG_OBSERVE_H
#define REPLYLOG_OBSERVE_H

#include "user/server/discover.h"
#include "user/kernel/features.h"
#include "user/cli/options.h"
#include "user/server/target.h"

/*
 * All that has to be right before anything is loaded. 0, or -1 with the reason on stderr. What is auto in *way
 * becomes the best there is. Either way target_close() gives back what it holds.
 */
int observe_prepare(struct target *target, pid_t pid, struct way *way);

/* Logs the server's large replies to stdout until a signal, an error or its end. 0, or -1 with the reason on stderr. */
int observe(const struct options *options, const struct server *first);

#endif
