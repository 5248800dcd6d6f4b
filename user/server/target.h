/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef REPLYLOG_USER_SERVER_TARGET_H
#define REPLYLOG_USER_SERVER_TARGET_H

#include "user/server/cluster.h"
#include "user/code/dispatch_sites.h"
#include "user/code/elf_image.h"
#include "user/code/layouts.h"
#include "user/code/sites.h"

#include <elf.h>
#include <limits.h>
#include <stdbool.h>
#include <sys/types.h>

/*
 * A file of the server's with functions to probe. Held open and named by path, so that it is the process's own file,
 * also in another mount namespace, after an upgrade replaced it on disk, or when the pid is used again.
 */
struct target_file {
	int fd;              /* -1: not there */
	char path[32];       /* "/proc/self/fd/<fd>": what probes are attached to */
	char name[PATH_MAX]; /* for people: where the file is, as the server's own mount namespace names it */
};

enum target_file_kind {
	FILE_EXECUTABLE,
	FILE_TLS_MODULE, /* valkey-tls.so, redis-tls.so: where TLS is not built in */
	TARGET_FILES
};

/* The functions of one connection type: where they are in their file, and in the process. */
struct target_layer {
	struct conn_sites sites;
	enum target_file_kind file;
	uint64_t probe_address[SITE_KINDS]; /* 0 for sites that are not there */
};

/* Words of the auxiliary vector: AT_VECTOR_SIZE is under 64 in all architectures (include/linux/auxvec.h). */
#define TARGET_AUXV 64

/* The server process. */
struct target {
	pid_t pid;
	Elf64_auxv_t auxv[TARGET_AUXV]; /* what execve gave it, its random addresses among that */
	size_t n_auxv;                  /* 0: not read */
	int pidfd;                      /* becomes readable when the server is gone */
	struct target_file file[TARGET_FILES];
	char version[32];                      /* "valkey 9.1.2" */
	char build_id[ELF_BUILD_ID_HEX];       /* "" when there is none */
	enum cluster cluster;                  /* whether it runs in cluster mode */
	uint64_t cluster_read;                 /* where its clusterReadHandler() is in the process; 0 unknown */
	bool seccomp_filter;                   /* it runs under a seccomp filter (container, systemd) */
	struct target_layer layer[CONN_TYPES]; /* CONN_TLS has no sites where the server has no TLS */
	struct dispatch_sites dispatch;        /* where commands are executed */
	uint64_t dispatch_address[DISPATCH_SITES];
	char no_dispatch[256];       /* why not known, for what is not present */
	struct client_layout layout; /* valid is LAYOUT_NONE when this server's is not known, and then */
	char no_layout[256];         /* why not */
};

/*
 * Finds out all that is needed to attach to pid, without touching the process. 0, or -1 with the reason on stderr.
 * Either way target_close() gives back what it holds.
 */
int target_open(struct target *target, pid_t pid);
void target_close(struct target *target);

/*
 * Has the process ended? Also while it is ending, which takes seconds with much memory to free: then it has no
 * executable any more.
 */
bool target_has_ended(const struct target *target);

/*
 * Whether the process has executed itself anew, or another program, since target_open(): then nothing in *target but
 * the pid holds. False when that can't be told: it has ended.
 */
bool target_is_replaced(const struct target *target);

/* Where a function of the connection layer begins in the process; 0 when it is not there. */
uint64_t target_function(const struct target *target, enum conn_type type, enum site_kind kind);

/*
 * A thread of the server that hardly ever runs (a "bio_*" background thread), or the main thread. A perf uprobe
 * filters by address space, so any thread will do, but it is switched in and out with that one.
 */
pid_t target_idle_thread(const struct target *target);

#endif
