/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef REPLYLOG_USER_SERVER_SELECTOR_H
#define REPLYLOG_USER_SERVER_SELECTOR_H

#include "user/server/listen.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* How the command line names a server, or servers. */
enum selector_kind { SELECT_PID, SELECT_PORT, SELECT_UNIXSOCKET, SELECT_ALL };

struct selector {
	enum selector_kind kind;
	pid_t pid;
	uint16_t port;    /* of TCP, that the server itself listens on */
	const char *path; /* of a Unix socket; from argv */
};

/* An endpoint_filter: whether a selector that is no pid means a server that listens there. */
bool selector_matches(const struct endpoint *endpoint, pid_t pid, const void *selector);

/* "port 6379", for messages. */
#define SELECTOR_TEXT 160
const char *selector_describe(const struct selector *selector, char text[SELECTOR_TEXT]);

#endif
