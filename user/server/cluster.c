/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A server in cluster mode locks its nodes.conf with flock() when it starts, keeps that file open until it ends, and
 * exits where it can't (clusterLockConfig() in redis 6.0 and 7.0 src/cluster.c, in redis 8.0 and valkey 8.0 to 9.1
 * src/cluster_legacy.c). Nothing else in these servers locks a file. So a server without any such lock is no cluster's.
 * A module may lock files, too: with a lock, the process title has to confirm it (redisSetProcTitle() in redis 7.0,
 * serverSetProcTitle() in valkey 9.1 src/server.c; proc-title-template may leave the mode out).
 */
#include "user/server/cluster.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

/* What the locks of the files that pid has open say. */
enum locks {
	LOCKS_NONE,
	LOCKS_SOME,
	LOCKS_UNKNOWN, /* not readable, or kept where the kernel does not show them */
};

/* A line of /proc/<pid>/fdinfo/<fd>: "lock:\t1: FLOCK  ADVISORY  WRITE 359 00:13:11691 0 EOF" (since Linux 4.1) */
static enum locks fdinfo_locks(int fdinfo, const char *name)
{
	int fd = openat(fdinfo, name, O_RDONLY | O_CLOEXEC);
	FILE *file = fd < 0 ? NULL : fdopen(fd, "r");
	enum locks locks = LOCKS_NONE;
	char line[256];

	if (!file) {
		if (fd >= 0)
			close(fd);
		return LOCKS_UNKNOWN;
	}
	while (fgets(line, sizeof(line), file))
		if (!strncmp(line, "lock:", 5) && strstr(line, " FLOCK "))
			locks = LOCKS_SOME;
	if (ferror(file))
		locks = LOCKS_UNKNOWN;
	fclose(file);
	return locks;
}

/* A FUSE server may keep its locks itself (fuse_file_flock() in fs/fuse/file.c): the kernel does not list those. */
static bool hides_locks(int fds, const char *name)
{
	int fd = openat(fds, name, O_PATH | O_CLOEXEC);
	struct statfs fs;
	bool hides = fd < 0 || fstatfs(fd, &fs) || fs.f_type == FUSE_SUPER_MAGIC;

	if (fd >= 0)
		close(fd);
	return hides;
}

/* Sockets can't be locked, and most open files are sockets. A file that is closed meanwhile is not nodes.conf. */
static enum locks file_locks(int fds, int fdinfo, const char *name)
{
	enum locks locks;
	struct stat st;

	if (name[0] == '.' || fstatat(fds, name, &st, 0) || !S_ISREG(st.st_mode))
		return LOCKS_NONE;
	locks = fdinfo_locks(fdinfo, name);
	if (locks == LOCKS_NONE && hides_locks(fds, name))
		locks = LOCKS_UNKNOWN;
	return locks == LOCKS_UNKNOWN && faccessat(fds, name, F_OK, AT_SYMLINK_NOFOLLOW) ? LOCKS_NONE : locks;
}

static int open_folder(pid_t pid, const char *name)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static enum locks all_locks(pid_t pid)
{
	int fds = open_folder(pid, "fd"), fdinfo = open_folder(pid, "fdinfo");
	DIR *dir = fds < 0 || fdinfo < 0 ? NULL : fdopendir(fds);
	enum locks locks = dir ? LOCKS_NONE : LOCKS_UNKNOWN, one;
	struct dirent *entry;

	while (dir && locks != LOCKS_SOME && (entry = readdir(dir))) {
		one = file_locks(fds, fdinfo, entry->d_name);
		if (one != LOCKS_NONE)
			locks = one;
	}
	if (dir)
		closedir(dir);
	else if (fds >= 0)
		close(fds);
	if (fdinfo >= 0)
		close(fdinfo);
	return locks;
}

/* "/usr/bin/valkey-server 127.0.0.1:6379 [cluster]", in a process title of the default form. */
static bool title_says_cluster(pid_t pid)
{
	char path[32], title[4096];
	FILE *file;
	size_t n;

	snprintf(path, sizeof(path), "/proc/%d/cmdline", pid);
	file = fopen(path, "re");
	if (!file)
		return false;
	n = fread(title, 1, sizeof(title) - 1, file);
	fclose(file);
	title[n] = '\0';
	return strstr(title, "[cluster]");
}

enum cluster cluster_find(pid_t pid)
{
	bool said = title_says_cluster(pid);

	switch (all_locks(pid)) {
	case LOCKS_NONE:
		return said ? CLUSTER_UNKNOWN : CLUSTER_NO;
	case LOCKS_SOME:
		return said ? CLUSTER_YES : CLUSTER_UNKNOWN;
	default:
		return CLUSTER_UNKNOWN;
	}
}
