/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/server/listen.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* TCP_LISTEN and __SO_ACCEPTCON, as /proc/net/tcp and /proc/net/unix print them. */
#define STATE_LISTEN 0x0a
#define FLAG_ACCEPTS 0x10000

/* More listening sockets than any namespace has; what is beyond is not looked at. */
#define LISTENERS_MAX 65536

struct listener {
	uint64_t inode;
	struct endpoint at;
};

struct listen_namespace {
	ino_t id;
	struct listener *listeners;
	size_t n;
};

static int add(struct listen_namespace *ns, const struct listener *listener)
{
	struct listener *grown;

	/* Room is made at each power of two. */
	if (!(ns->n & (ns->n - 1))) {
		grown = realloc(ns->listeners, (ns->n ? 2 * ns->n : 1) * sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		ns->listeners = grown;
	}
	ns->listeners[ns->n++] = *listener;
	return 0;
}

/* Listening sockets come first (tcp_seq_start() in net/ipv4/tcp_ipv4.c): the connections needn't be read. */
static bool tcp_row(const char *line, struct listener *listener)
{
	unsigned int port, state;

	memset(listener, 0, sizeof(*listener));
	if (sscanf(line, " %*d: %*[0-9A-Fa-f]:%x %*[0-9A-Fa-f]:%*x %x %*x:%*x %*x:%*x %*x %*u %*d %" SCNu64, &port, &state,
		   &listener->inode) != 3 ||
	    state != STATE_LISTEN || port > UINT16_MAX)
		return false;
	listener->at.port = (uint16_t)port;
	return true;
}

static bool unix_row(const char *line, struct listener *listener)
{
	unsigned int flags;
	int path = 0;
	size_t len;

	memset(listener, 0, sizeof(*listener));
	if (sscanf(line, "%*[0-9A-Fa-f]: %*x %*x %x %*x %*x %" SCNu64 "%n", &flags, &listener->inode, &path) != 2 ||
	    !(flags & FLAG_ACCEPTS) || line[path] != ' ')
		return false;
	len = strcspn(line + path + 1, "\n");
	if (!len || len >= ENDPOINT_PATH)
		return false;
	memcpy(listener->at.path, line + path + 1, len);
	return true;
}

static int read_rows(struct listen_namespace *ns, pid_t pid, const char *table)
{
	bool tcp = strcmp(table, "unix");
	char path[48], line[512];
	struct listener listener;
	FILE *file;
	int err = 0;

	snprintf(path, sizeof(path), "/proc/%d/net/%s", pid, table);
	file = fopen(path, "re");
	if (!file)
		return errno == ENOENT ? 0 : -errno; /* a kernel without IPv6, or the process has ended */
	if (!fgets(line, sizeof(line), file))
		line[0] = '\0'; /* the heading */
	while (!err && ns->n < LISTENERS_MAX && fgets(line, sizeof(line), file)) {
		if (tcp ? tcp_row(line, &listener) : unix_row(line, &listener))
			err = add(ns, &listener);
		else if (tcp)
			break;
	}
	fclose(file);
	return err;
}

static int read_namespace(struct listen_namespace *ns, pid_t pid)
{
	int err;

	err = read_rows(ns, pid, "tcp");
	if (!err)
		err = read_rows(ns, pid, "tcp6");
	return err ? err : read_rows(ns, pid, "unix");
}

static int namespace_of(struct listen_table *table, pid_t pid, const struct listen_namespace **found)
{
	struct listen_namespace *grown;
	struct stat st;
	char path[32];
	size_t i;
	int err;

	snprintf(path, sizeof(path), "/proc/%d/ns/net", pid);
	if (stat(path, &st))
		return -errno;
	for (i = 0; i < table->n && table->namespaces[i].id != st.st_ino; i++)
		;
	if (i == table->n) {
		grown = realloc(table->namespaces, (i + 1) * sizeof(*grown));
		if (!grown)
			return -ENOMEM;
		table->namespaces = grown;
		grown[i] = (struct listen_namespace){ .id = st.st_ino };
		table->n++;
		err = read_namespace(&grown[i], pid);
		if (err)
			return err;
	}
	*found = &table->namespaces[i];
	return 0;
}

void listen_table_free(struct listen_table *table)
{
	while (table->n)
		free(table->namespaces[--table->n].listeners);
	free(table->namespaces);
	table->namespaces = NULL;
}

/* The inode of an open file that is a socket, or 0. */
static uint64_t socket_inode(int dir, const char *fd)
{
	char link[64];
	ssize_t len = readlinkat(dir, fd, link, sizeof(link) - 1);
	uint64_t inode;

	if (len < 0)
		return 0;
	link[len] = '\0';
	return sscanf(link, "socket:[%" SCNu64 "]", &inode) == 1 ? inode : 0;
}

static const struct listener *listener_of(const struct listen_namespace *ns, uint64_t inode)
{
	size_t i;

	for (i = 0; inode && i < ns->n; i++)
		if (ns->listeners[i].inode == inode)
			return &ns->listeners[i];
	return NULL;
}

static bool passes(const struct endpoint *endpoint, pid_t pid, endpoint_filter filter, const void *ctx)
{
	return !filter || filter(endpoint, pid, ctx);
}

static bool known(const struct endpoint *endpoint, const struct endpoint *endpoints, size_t n)
{
	while (n--)
		if (endpoints[n].port == endpoint->port && !strcmp(endpoints[n].path, endpoint->path))
			return true; /* IPv4 and IPv6 are two sockets of one port */
	return false;
}

/* Whether it is worth looking who holds the namespace's sockets. */
static bool any_may_pass(const struct listen_namespace *ns, endpoint_filter filter, const void *ctx)
{
	size_t i;

	/* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): errno is not 0 where namespace_of() fails */
	for (i = 0; i < ns->n; i++)
		if (passes(&ns->listeners[i].at, 0, filter, ctx))
			return true;
	return false;
}

int listen_endpoints(struct listen_table *table, pid_t pid, endpoint_filter filter, const void *ctx,
		     struct endpoint *endpoints, size_t max)
{
	const struct listen_namespace *ns = NULL;
	const struct listener *listener;
	struct dirent *entry;
	char path[32];
	size_t n = 0;
	DIR *dir;
	int err;

	err = namespace_of(table, pid, &ns);
	if (err || !any_may_pass(ns, filter, ctx))
		return err;
	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = opendir(path);
	if (!dir)
		return -errno;
	while (n < max && (entry = readdir(dir))) {
		listener = listener_of(ns, socket_inode(dirfd(dir), entry->d_name));
		if (listener && passes(&listener->at, pid, filter, ctx) && !known(&listener->at, endpoints, n))
			endpoints[n++] = listener->at;
	}
	closedir(dir);
	return (int)n;
}

/* The file that path names for pid: absolute links stay inside its root, as for the server itself. */
static int stat_for(pid_t pid, const char *path, struct stat *st)
{
	struct open_how how = { .flags = O_PATH | O_CLOEXEC };
	char from[32];
	int dir, fd, err = -ENOENT;

	if (path[0] == '/')
		how.resolve = RESOLVE_IN_ROOT;
	snprintf(from, sizeof(from), "/proc/%d/%s", pid, path[0] == '/' ? "root" : "cwd");
	dir = open(from, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return -errno;
	fd = (int)syscall(SYS_openat2, dir, path, &how, sizeof(how));
	if (fd >= 0) {
		err = fstat(fd, st) ? -errno : 0;
		close(fd);
	}
	close(dir);
	return err;
}

bool endpoint_is_file(const struct endpoint *endpoint, pid_t pid, const char *path)
{
	struct stat ours, theirs;

	if (endpoint->port || strcmp(basename(endpoint->path), basename(path)))
		return false;
	if (!pid)
		return true;
	if (stat(path, &ours))
		return !strcmp(endpoint->path, path);
	/* NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinaryOperatorResult): nor where stat_for() fails */
	return !stat_for(pid, endpoint->path, &theirs) && ours.st_dev == theirs.st_dev && ours.st_ino == theirs.st_ino;
}
