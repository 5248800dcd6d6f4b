/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Which processes are the servers that somebody means. */
#ifndef REPLYLOG_USER_SERVER_DISCOVER_H
#define REPLYLOG_USER_SERVER_DISCOVER_H

#include "user/server/listen.h"
#include "user/server/selector.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/* More servers than one machine runs. */
#define SERVERS_MAX 256

struct server {
	pid_t pid;                 /* 0: none yet, and it is to be waited for */
	const struct selector *by; /* what it was selected by; the caller's */
};

struct servers {
	struct server server[SERVERS_MAX];
	size_t n;
};

/*
 * The servers that n selectors select, each once: one for each selector, or all. 0, or -1 with the reason on stderr:
 * not in the host's pid namespace, none there, several that could be meant. With --follow, what isn't there yet is no
 * error but has pid 0 (--all: servers->n may be 0).
 */
int discover_selected(const struct selector *selectors, size_t n, bool follow, struct servers *servers);

/*
 * Every process that is a Valkey or Redis server, was not forked by one, and listens where the filter says. The first
 * max; returns how many there are, as far as we may see.
 */
size_t discover_listening(endpoint_filter filter, const void *ctx, pid_t *pids, size_t max);

#endif
