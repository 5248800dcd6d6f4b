/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Which program goes to which site, and putting them there. */
#ifndef REPLYLOG_USER_KERNEL_PROBES_H
#define REPLYLOG_USER_KERNEL_PROBES_H

#include "user/kernel/attach.h"
#include "user/kernel/features.h"
#include "user/code/sites.h"
#include "user/server/target.h"
#include "user/kernel/uprobe_link.h"

#include <stddef.h>

struct bpf_link;
struct bpf_program;
struct replylog_bpf;

/* Which connection types a probe is for. */
#define FOR_SOCKET (1U << CONN_SOCKET)
#define FOR_TLS (1U << CONN_TLS)
/* Or not for connections at all. */
#define FOR_DISPATCH (1U << CONN_TYPES)

/* One program, on a site of the server's or on a tracepoint of the kernel's. */
struct probe {
	const char *program;
	int site; /* enum site_kind; FOR_DISPATCH: enum dispatch_site */
	bool at_return;
	int attach_type;        /* of uprobe_multi links */
	unsigned int types;     /* FOR_SOCKET | FOR_TLS, or FOR_DISPATCH */
	const char *tracepoint; /* NULL: on a site */
};

/* Entry and return of each function. */
#define PROBES_MAX 16

struct probe_list {
	struct probe probe[PROBES_MAX];
	size_t n;
};

/* All that this mode attaches, in the order of attaching. */
void probes_list(struct attach_mode mode, struct probe_list *list);

/* Enables, of each program's variants, those of the list: only these are loaded, for this mode. */
void probes_choose_programs(struct replylog_bpf *skel, struct attach_mode mode, const struct probe_list *list);

/* A probe is in the functions of each connection type, and a perf link is in one location only. */
#define LOCATIONS_MAX (PROBES_MAX * CONN_TYPES)

/* Links of one attach. All or none. */
struct probe_links {
	int fd[LOCATIONS_MAX]; /* uprobe_multi links */
	struct bpf_link *perf[LOCATIONS_MAX];
	size_t fds, perfs;
};

/* Whose address space a probe is for, and which of its threads a perf uprobe goes along with. */
struct probe_process {
	pid_t pid;
	pid_t thread;
	bool has_one_thread; /* every kernel's pid filter finds it */
};

/*
 * Attaches a program to locations of one file. 0, or -errno; either way what is attached is in links, which has room for
 * as many as a list has probes.
 */
int probes_attach_locations(struct probe_links *links, enum attach_choice how, const struct probe *probe,
			    struct bpf_program *program, const char *path, const struct uprobe_locations *locations,
			    const struct probe_process *process);

/*
 * Attaches every program of this mode that the server has a site for; skel has them loaded. 0, or -1 with the reason on
 * stderr and nothing attached.
 */
int probes_attach(struct probe_links *links, const struct replylog_bpf *skel, struct attach_mode mode,
		  const struct target *target);

/* Detaches all; when it returns, no program runs any more. For nothing attached, too. */
void probes_detach(struct probe_links *links);

#define PROBE_TEXT 96

/*
 * What probes_attach() did, for the start record: "conn_read_session connSocketRead 0x1b96c4 uprobe_session emulated",
 * one text a location. Returns how many.
 */
size_t probes_describe(struct attach_mode mode, const struct target *target, char text[LOCATIONS_MAX][PROBE_TEXT]);

#endif
