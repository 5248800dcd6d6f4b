/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Where processes listen, asked of the kernel, each in its own network namespace. */
#ifndef REPLYLOG_USER_SERVER_LISTEN_H
#define REPLYLOG_USER_SERVER_LISTEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* Bytes of a Unix socket's name (sun_path), and the terminator. */
#define ENDPOINT_PATH 109

struct endpoint {
	uint16_t port;            /* of TCP; 0: a Unix socket */
	char path[ENDPOINT_PATH]; /* as the server bound it: relative to its own root or working directory */
};

/* The listening sockets of each network namespace, read once. Starts as all zero; valid for one look around. */
struct listen_table {
	struct listen_namespace *namespaces;
	size_t n;
};

void listen_table_free(struct listen_table *table);

/* With pid 0: whether it may pass for some process, answered from the endpoint alone. */
typedef bool (*endpoint_filter)(const struct endpoint *endpoint, pid_t pid, const void *ctx);

/*
 * Where pid listens, the first max of those that pass the filter (NULL: all). How many, or -errno (-EACCES: not ours to
 * see). Its open files are only gone through when its namespace has such an endpoint at all.
 */
int listen_endpoints(struct listen_table *table, pid_t pid, endpoint_filter filter, const void *ctx,
		     struct endpoint *endpoints, size_t max);

/*
 * Whether the file at path, as we see it, is the socket that pid has bound: the same inode, whatever the server's root
 * or mount namespace. Where we see no such file, the names are compared. In both cases the last part of the path is the
 * same; for pid 0, that is all that is asked.
 */
bool endpoint_is_file(const struct endpoint *endpoint, pid_t pid, const char *path);

#endif
