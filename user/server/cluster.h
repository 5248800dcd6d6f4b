/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef REPLYLOG_USER_SERVER_CLUSTER_H
#define REPLYLOG_USER_SERVER_CLUSTER_H

#include <sys/types.h>

enum cluster {
	CLUSTER_UNKNOWN, /* it may be either */
	CLUSTER_NO,
	CLUSTER_YES,
};

/*
 * Whether the server pid runs in cluster mode, which it decides when it starts and never later. Only for a server that
 * has finished starting: it must have its background threads (InitServerLast() in redis 7.0 and valkey 9.1
 * src/server.c).
 */
enum cluster cluster_find(pid_t pid);

#endif
