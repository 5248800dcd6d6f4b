/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "proc_status.h"

#include <errno.h>
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
