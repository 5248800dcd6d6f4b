/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* One server from attach to detach, and with --follow the next one. */
#ifndef REPLYLOG_USER_SESSION_OBSERVE_H
#define REPLYLOG_USER_SESSION_OBSERVE_H

#include "user/server/discover.h"
#include "user/session/settings.h"

/* Logs the server's large replies to stdout until a signal, an error or its end. 0, or -1 with the reason on stderr. */
int observe(const struct settings *settings, const struct server *first);

#endif
