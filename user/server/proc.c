/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/server/proc.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int proc_status_number(pid_t pid, const char *key, long *number)
{
	char path[32], line[256];
	size_t key_len = strlen(key);
	int ret = -ENODATA;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	file = fopen(path, "re");
	if (!file)
		return -errno;
	while (ret && fgets(line, sizeof(line), file)) {
		if (strncmp(line, key, key_len) || line[key_len] != ':')
			continue;
		*number = strtol(line + key_len + 1, NULL, 10);
		ret = 0;
	}
	fclose(file);
	return ret;
}

/* include/linux/sched.h, in the field "flags" of proc_pid_stat(5). */
#define PF_FORKNOEXEC 0x40

int proc_stat(pid_t pid, struct proc_stat *stat)
{
	char path[32], line[1024];
	unsigned int flags;
	const char *after;
	size_t len;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	file = fopen(path, "re");
	if (!file)
		return -errno;
	len = fread(line, 1, sizeof(line) - 1, file);
	fclose(file);
	line[len] = '\0';
	/* The name is in parentheses and may hold any of them, too. */
	after = strrchr(line, ')');
	if (!after ||
	    sscanf(after + 1, " %*c %d %*d %*d %*d %*d %u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %ld %*d %" SCNu64,
		   &stat->parent, &flags, &stat->threads, &stat->started) != 4)
		return -ENODATA;
	stat->forked = flags & PF_FORKNOEXEC;
	return 0;
}

static bool thread_is_named(pid_t pid, const char *tid, const char *prefix)
{
	char path[64], name[16];
	bool named;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/task/%.16s/comm", pid, tid);
	file = fopen(path, "re");
	if (!file)
		return false;
	named = fgets(name, sizeof(name), file) && !strncmp(name, prefix, strlen(prefix));
	fclose(file);
	return named;
}

size_t proc_threads_named(pid_t pid, const char *prefix, pid_t *first)
{
	struct dirent *entry;
	char path[32];
	size_t n = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	while (dir && (entry = readdir(dir))) {
		if (!thread_is_named(pid, entry->d_name, prefix))
			continue;
		if (!n++ && first)
			*first = atoi(entry->d_name);
	}
	if (dir)
		closedir(dir);
	return n;
}
