/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* --follow: which server takes the place of one that has ended, and waiting for it. */
#ifndef REPLYLOG_USER_SESSION_FOLLOW_H
#define REPLYLOG_USER_SESSION_FOLLOW_H

#include "user/server/discover.h"

#include <stdint.h>
#include <sys/types.h>

#define FOLLOW_ENDPOINTS 16
#define FOLLOW_CGROUP 1024

/*
 * What a server leaves behind to be known by. One that was named by port or socket is followed by that: whoever
 * listens there. One that was named by pid is followed by where it listened, in the host's network namespace or, when
 * it had its own, in the same cgroup (a container that is restarted keeps its cgroup and gets a new namespace).
 */
struct successor_key {
	const struct selector *by;
	struct endpoint endpoints[FOLLOW_ENDPOINTS];
	size_t n;
	bool host_network;
	char cgroup[FOLLOW_CGROUP];
	uint64_t ended;  /* clock ticks after boot, about */
	pid_t restarted; /* the process that executed itself anew: its successor may be itself. 0: it has ended */
};

/* Before the first server of a selector that is no pid was there. */
void successor_init(struct successor_key *key, const struct selector *by);

/*
 * Takes note of where pid is, while it lives. One that has gone again leaves what was known before. 0, or -1 with the
 * reason on stderr: there is nothing by which its successor could be known.
 */
int successor_learn(struct successor_key *key, pid_t pid);

/* Whether a successor can be told. */
bool successor_is_known(const struct successor_key *key);

/* The server has just ended or executed itself anew (restarted: its pid, else 0): from now on its successor can start. */
void successor_may_start(struct successor_key *key, pid_t restarted);

/*
 * Waits until there is one server that takes this place. Its pid; 0 when a signal has asked us to end; -1 when nobody
 * reads stdout any more.
 */
pid_t successor_wait(const struct successor_key *key);

#endif
