/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/server/discover.h"

#include "user/complain.h"
#include "user/code/elf_image.h"
#include "user/server/server_version.h"
#include "user/server/proc.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Executables that were looked into. Files are told apart as long as they are not written to. */
struct executable {
	dev_t device;
	ino_t inode;
	struct timespec changed;
	bool server;
};

#define EXECUTABLES_MAX 128

static bool same_file(const struct executable *known, const struct stat *st)
{
	return known->device == st->st_dev && known->inode == st->st_ino && known->changed.tv_sec == st->st_ctim.tv_sec &&
	       known->changed.tv_nsec == st->st_ctim.tv_nsec;
}

static bool look_into(const char *path)
{
	struct elf_image *image = NULL;
	char version[32], why[256];
	bool server;

	server = !elf_image_open(path, &image, why, sizeof(why)) && !identify_server(image, version, sizeof(version));
	elf_image_close(image);
	return server;
}

/* Reading a large executable takes time, and --follow asks again and again. */
static bool runs_server(pid_t pid)
{
	static struct executable known[EXECUTABLES_MAX];
	static size_t next;
	struct executable *at;
	char path[32];
	struct stat st;
	size_t i;

	snprintf(path, sizeof(path), "/proc/%d/exe", pid);
	if (stat(path, &st))
		return false;
	for (i = 0; i < EXECUTABLES_MAX; i++)
		if (same_file(&known[i], &st))
			return known[i].server;
	at = &known[next++ % EXECUTABLES_MAX];
	*at = (struct executable){ st.st_dev, st.st_ino, st.st_ctim, look_into(path) };
	return at->server;
}

static bool same_executable(pid_t pid, pid_t other)
{
	char path[32];
	struct stat a, b;

	snprintf(path, sizeof(path), "/proc/%d/exe", pid);
	if (stat(path, &a))
		return false;
	snprintf(path, sizeof(path), "/proc/%d/exe", other);
	return !stat(path, &b) && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/*
 * A server forks to write its files (BGSAVE, BGREWRITEAOF) and to debug scripts. Such a child has the executable of
 * its parent; when that has died, it is still known by never having called execve and by its one thread: a server,
 * which may have daemonized, has the threads of bio.c, too. Its parent, itself when the parent is gone, or 0 when it
 * is none.
 */
static pid_t forked_by(pid_t pid)
{
	struct proc_stat stat;

	if (proc_stat(pid, &stat) || !stat.forked)
		return 0;
	if (same_executable(pid, stat.parent))
		return stat.parent;
	return stat.threads == 1 ? pid : 0;
}

static bool is_server(pid_t pid)
{
	return runs_server(pid) && !forked_by(pid);
}

/* Listening is asked first: it is quick to find out, and most processes don't. */
static bool matches(struct listen_table *table, pid_t pid, endpoint_filter filter, const void *ctx)
{
	struct endpoint endpoint;

	return listen_endpoints(table, pid, filter, ctx, &endpoint, 1) > 0 && is_server(pid);
}

size_t discover_listening(endpoint_filter filter, const void *ctx, pid_t *pids, size_t max)
{
	struct listen_table table = {};
	struct dirent *entry;
	size_t n = 0;
	DIR *proc;

	proc = opendir("/proc");
	while (proc && (entry = readdir(proc))) {
		pid_t pid = atoi(entry->d_name);

		if (pid <= 0 || pid == getpid() || !matches(&table, pid, filter, ctx))
			continue;
		if (n < max)
			pids[n] = pid;
		n++;
	}
	if (proc)
		closedir(proc);
	listen_table_free(&table);
	return n;
}

static const char *as_root(void)
{
	return geteuid() ? " (only root can see the sockets of other users' processes)" : "";
}

/* "-p 12, -p 34", as many as fit. */
static int ambiguous(const struct selector *selector, const pid_t *pids, size_t n)
{
	char what[SELECTOR_TEXT], list[256];
	size_t i, len = 0;

	list[0] = '\0';
	for (i = 0; i < n && len + 16 < sizeof(list); i++)
		len += (size_t)snprintf(list + len, sizeof(list) - len, "%s-p %d", i ? ", " : "", pids[i]);
	return complain("%s: %zu servers listen there, each in its own network namespace: name one or more with %s",
			selector_describe(selector, what), n, list);
}

static int none(const struct selector *selector)
{
	char what[SELECTOR_TEXT];

	if (selector->kind == SELECT_ALL)
		return complain("--all: no Valkey or Redis server is listening%s: start one, or wait for one with --follow",
				as_root());
	return complain("%s: no Valkey or Redis server listens there, in any network namespace%s: "
			"ss -lxtp shows what listens there",
			selector_describe(selector, what), as_root());
}

static void add(struct servers *servers, pid_t pid, const struct selector *by)
{
	size_t i;

	for (i = 0; i < servers->n; i++)
		if (pid && servers->server[i].pid == pid)
			return;
	if (servers->n < SERVERS_MAX)
		servers->server[servers->n++] = (struct server){ pid, by };
}

/* Any other pid is judged when it is opened; a child that saves is a server's executable, too. */
static int find_pid(const struct selector *selector, struct servers *servers)
{
	pid_t parent = forked_by(selector->pid);

	if (parent && parent != selector->pid && runs_server(selector->pid))
		return complain("-p %d: this is a child that the server forked, to save for example: use -p %d",
				selector->pid, parent);
	if (parent && runs_server(selector->pid))
		return complain(
			"-p %d: this is not a server but a forked child of one that has ended: use the pid of a server",
			selector->pid);
	add(servers, selector->pid, selector);
	return 0;
}

static int find_all(const struct selector *selector, bool follow, struct servers *servers)
{
	pid_t pids[SERVERS_MAX];
	size_t i, n;

	n = discover_listening(selector_matches, selector, pids, SERVERS_MAX);
	if (n > SERVERS_MAX)
		return complain(
			"--all: there are %zu servers, and replylog observes at most %d at once: choose some with -p", n,
			SERVERS_MAX);
	if (!n && !follow)
		return none(selector);
	for (i = 0; i < n; i++)
		add(servers, pids[i], selector);
	return 0;
}

static int find_one(const struct selector *selector, bool follow, struct servers *servers)
{
	pid_t pids[SERVERS_MAX];
	size_t n;

	n = discover_listening(selector_matches, selector, pids, SERVERS_MAX);
	if (n > 1)
		return ambiguous(selector, pids, n < SERVERS_MAX ? n : SERVERS_MAX);
	if (!n && !follow)
		return none(selector);
	add(servers, n ? pids[0] : 0, selector);
	return 0;
}

static int find(const struct selector *selector, bool follow, struct servers *servers)
{
	switch (selector->kind) {
	case SELECT_PID:
		return find_pid(selector, servers);
	case SELECT_ALL:
		return find_all(selector, follow, servers);
	default:
		return find_one(selector, follow, servers);
	}
}

/* include/linux/proc_ns.h PROC_PID_INIT_INO: the inode of the initial pid namespace, fixed since Linux 3.8. */
#define INIT_PID_NAMESPACE 0xEFFFFFFCU

/*
 * BPF sees the pids of the initial namespace; in another one, -p would name a different process, and /proc shows none
 * but those that are inside: --port would look, or with --follow wait, for what can't be seen.
 */
static int check_pid_namespace(void)
{
	struct stat st;

	if (stat("/proc/self/ns/pid", &st))
		return complain("cannot read /proc/self/ns/pid: %s: mount /proc", strerror(errno));
	if (st.st_ino != INIT_PID_NAMESPACE)
		return complain("this is not the host's pid namespace: run replylog on the host, or in a container "
				"with --pid=host");
	return 0;
}

int discover_selected(const struct selector *selectors, size_t n, bool follow, struct servers *servers)
{
	size_t i;

	servers->n = 0;
	if (check_pid_namespace())
		return -1;
	for (i = 0; i < n; i++)
		if (find(&selectors[i], follow, servers))
			return -1;
	return 0;
}
