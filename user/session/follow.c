/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/session/follow.h"

#include "user/complain.h"
#include "user/server/proc.h"
#include "user/session/signals.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* A service manager restarts within 100 ms; one that doesn't may take its time. */
#define WAIT_MIN_MS 100
#define WAIT_MAX_MS 1000

/* A server gives up its port a moment before its pidfd tells that it has ended. */
#define OVERLAP_S 1

static void read_cgroup(pid_t pid, char cgroup[FOLLOW_CGROUP])
{
	char path[32];
	size_t len = 0;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/cgroup", pid);
	file = fopen(path, "re");
	if (file) {
		len = fread(cgroup, 1, FOLLOW_CGROUP - 1, file);
		fclose(file);
	}
	cgroup[len] = '\0';
}

static bool in_our_network(pid_t pid)
{
	struct stat ours, theirs;
	char path[32];

	snprintf(path, sizeof(path), "/proc/%d/ns/net", pid);
	return !stat("/proc/self/ns/net", &ours) && !stat(path, &theirs) && ours.st_ino == theirs.st_ino;
}

void successor_init(struct successor_key *key, const struct selector *by)
{
	memset(key, 0, sizeof(*key));
	key->by = by;
}

bool successor_is_known(const struct successor_key *key)
{
	return key->n || key->by->kind != SELECT_PID;
}

int successor_learn(struct successor_key *key, pid_t pid)
{
	struct listen_table table = {};
	struct endpoint endpoints[FOLLOW_ENDPOINTS];
	int n;

	n = listen_endpoints(&table, pid, NULL, NULL, endpoints, FOLLOW_ENDPOINTS);
	listen_table_free(&table);
	if (n <= 0 && successor_is_known(key))
		return 0;
	if (n <= 0)
		return complain("-p %d: --follow finds the next server by where this one listens, and this one %s", pid,
				n ? "does not let us see that: run as root" : "listens nowhere: leave out --follow");
	memcpy(key->endpoints, endpoints, (size_t)n * sizeof(endpoints[0]));
	key->n = (size_t)n;
	key->host_network = in_our_network(pid);
	read_cgroup(pid, key->cgroup);
	return 0;
}

void successor_may_start(struct successor_key *key, pid_t restarted)
{
	struct timespec now;

	key->restarted = restarted;
	clock_gettime(CLOCK_BOOTTIME, &now);
	key->ended = (uint64_t)(now.tv_sec > OVERLAP_S ? now.tv_sec - OVERLAP_S : 0) * (uint64_t)sysconf(_SC_CLK_TCK);
}

static bool listens_there(const struct endpoint *endpoint, pid_t pid, const void *ctx)
{
	const struct successor_key *key = ctx;
	size_t i;

	if (key->by->kind != SELECT_PID)
		return selector_matches(endpoint, pid, key->by);
	for (i = 0; i < key->n; i++)
		if (key->endpoints[i].port == endpoint->port && !strcmp(key->endpoints[i].path, endpoint->path))
			return true;
	return false;
}

static bool fits_key(const struct successor_key *key, pid_t pid)
{
	char cgroup[FOLLOW_CGROUP];
	struct proc_stat stat;

	if (proc_stat(pid, &stat) || (stat.started < key->ended && pid != key->restarted) ||
	    in_our_network(pid) != key->host_network)
		return false;
	if (key->host_network)
		return true;
	read_cgroup(pid, cgroup);
	return !strcmp(cgroup, key->cgroup);
}

/* Narrows n candidates down to those that the key fits. */
static size_t keep_fitting(const struct successor_key *key, pid_t *pids, size_t n)
{
	size_t i, kept = 0;

	for (i = 0; i < n; i++)
		if (fits_key(key, pids[i]))
			pids[kept++] = pids[i];
	return kept;
}

/* How many servers could take the place; *pid is the first. */
static size_t candidates(const struct successor_key *key, pid_t *pid)
{
	pid_t pids[SERVERS_MAX];
	size_t n;

	n = discover_listening(listens_there, key, pids, SERVERS_MAX);
	if (n > SERVERS_MAX)
		n = SERVERS_MAX;
	/* Named by pid, others that listen on the same port are nobody's successors. */
	if (key->by->kind == SELECT_PID || n > 1)
		n = keep_fitting(key, pids, n);
	*pid = n ? pids[0] : 0;
	return n;
}

/* True when it is time to end: then *pid says how. */
static bool pause_for(int ms, pid_t *pid)
{
	struct pollfd fds[] = {
		{ .fd = signals_fd(), .events = POLLIN },
		{ .fd = STDOUT_FILENO },
	};

	if (poll(fds, 2, ms) < 0)
		return false; /* interrupted by the signal that the next round sees */
	*pid = fds[1].revents ? -1 : 0;
	return fds[0].revents || fds[1].revents;
}

pid_t successor_wait(const struct successor_key *key)
{
	char what[SELECTOR_TEXT];
	int ms = WAIT_MIN_MS;
	bool said = false;
	pid_t pid;
	size_t n;

	while (!pause_for(ms, &pid)) {
		n = candidates(key, &pid);
		if (n == 1)
			break;
		if (n > 1 && !said)
			complain("%s: %zu servers could be the next one: waiting until only one of them is left",
				 selector_describe(key->by, what), n);
		said |= n > 1;
		ms = ms * 2 < WAIT_MAX_MS ? ms * 2 : WAIT_MAX_MS;
	}
	return pid;
}
