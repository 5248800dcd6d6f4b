/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Several servers: a process for each, whose lines become one stream. */
#ifndef REPLYLOG_USER_SESSION_SUPERVISE_H
#define REPLYLOG_USER_SESSION_SUPERVISE_H

#include "user/server/discover.h"
#include "user/session/settings.h"

/*
 * Observes all of these servers until they or we are asked to end; unless all is NULL, also those that come and that it
 * selects. 0, or -1 when one of them or the stream failed; stderr says why.
 */
int supervise(const struct settings *settings, const struct servers *servers, const struct selector *all);

#endif
