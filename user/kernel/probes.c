/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/kernel/probes.h"

#include "bpf/abi/layout.h"
#include "bpf/abi/shared.h"
#include "user/complain.h"
#include "replylog.skel.h"
#include "user/kernel/uprobe_link.h"

#include <bpf/libbpf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

_Static_assert(CONN_TYPES <= UPROBE_LOCATIONS_MAX, "a link has room for the locations of each connection type");

/* Reads and writes seen in the connection layer. */
static const struct probe session_io[] = {
	{ "conn_read_session", SITE_READ, false, ATTACH_TYPE_SESSION, 0, NULL },
	{ "conn_write_session", SITE_WRITE, false, ATTACH_TYPE_SESSION, 0, NULL },
	{ "conn_writev_session", SITE_WRITEV, false, ATTACH_TYPE_SESSION, 0, NULL },
};

/* Returns first: an entry without its return is normal, a return without its entry is one probe hit for nothing. */
static const struct probe pair_io[] = {
	{ "conn_read_return", SITE_READ, true, ATTACH_TYPE_MULTI, 0, NULL },
	{ "conn_read_enter", SITE_READ, false, ATTACH_TYPE_MULTI, 0, NULL },
	{ "conn_write_return", SITE_WRITE, true, ATTACH_TYPE_MULTI, 0, NULL },
	{ "conn_write_enter", SITE_WRITE, false, ATTACH_TYPE_MULTI, 0, NULL },
	{ "conn_writev_return", SITE_WRITEV, true, ATTACH_TYPE_MULTI, 0, NULL },
	{ "conn_writev_enter", SITE_WRITEV, false, ATTACH_TYPE_MULTI, 0, NULL },
};

/* Its connections begin and end. */
static const struct probe connection_life[] = {
	{ "conn_close", SITE_CLOSE, false, ATTACH_TYPE_MULTI, FOR_SOCKET, NULL },
	{ "conn_accept", SITE_ACCEPT, false, ATTACH_TYPE_MULTI, FOR_SOCKET | FOR_TLS, NULL },
};

/* The socket tap, and what begins and ends for both taps then. Tracepoints last: they begin to cost at once. */
static const struct probe socket_tap[] = {
	{ "socket_close", SITE_CLOSE, false, ATTACH_TYPE_MULTI, FOR_SOCKET, NULL },
	{ "socket_accept", SITE_ACCEPT, false, ATTACH_TYPE_MULTI, FOR_SOCKET, NULL },
	{ "socket_accept_tls", SITE_ACCEPT, false, ATTACH_TYPE_MULTI, FOR_TLS, NULL },
	{ "socket_sent", 0, false, 0, 0, "sock_send_length" },
	{ "socket_received", 0, false, 0, 0, "sock_recv_length" },
};

/* --dispatch. Last but for the tracepoints. */
static const struct probe dispatch_session[] = {
	{ "call_session", DISPATCH_CALL, false, ATTACH_TYPE_SESSION, FOR_DISPATCH, NULL },
};

static const struct probe dispatch_pair[] = {
	{ "call_return", DISPATCH_CALL, true, ATTACH_TYPE_MULTI, FOR_DISPATCH, NULL },
	{ "call_enter", DISPATCH_CALL, false, ATTACH_TYPE_MULTI, FOR_DISPATCH, NULL },
};

static void list_add(struct probe_list *list, const struct probe *probes, size_t n, unsigned int types)
{
	size_t i;

	for (i = 0; i < n; i++) {
		list->probe[list->n] = probes[i];
		if (types)
			list->probe[list->n].types = types;
		list->n++;
	}
}

#define LIST_ADD(list, probes, types) list_add(list, probes, sizeof(probes) / sizeof((probes)[0]), types)

_Static_assert(sizeof(pair_io) + sizeof(socket_tap) + sizeof(dispatch_pair) <= PROBES_MAX * sizeof(struct probe),
	       "every list has room");

void probes_list(struct attach_mode mode, struct probe_list *list)
{
	bool socket = mode.tap == TAP_CHOICE_SOCKET;
	unsigned int types = socket ? FOR_TLS : FOR_SOCKET | FOR_TLS;

	list->n = 0;
	if (mode.attach == ATTACH_SESSION)
		LIST_ADD(list, session_io, types);
	else
		LIST_ADD(list, pair_io, types);
	if (mode.dispatch && mode.attach == ATTACH_SESSION)
		LIST_ADD(list, dispatch_session, 0);
	else if (mode.dispatch)
		LIST_ADD(list, dispatch_pair, 0);
	if (socket)
		LIST_ADD(list, socket_tap, 0);
	else
		LIST_ADD(list, connection_life, 0);
}

void probes_choose_programs(struct replylog_bpf *skel, struct attach_mode mode, const struct probe_list *list)
{
	size_t i;

	for (i = 0; i < list->n; i++) {
		struct bpf_program *program = bpf_object__find_program_by_name(skel->obj, list->probe[i].program);

		bpf_program__set_autoload(program, true);
		if (mode.attach != ATTACH_PERF && !list->probe[i].tracepoint)
			bpf_program__set_expected_attach_type(program, list->probe[i].attach_type);
	}
}

/* The locations of a probe in one file of the server's. */
static void locations_in(const struct target *target, enum target_file_kind file, const struct probe *probe,
			 struct uprobe_locations *locations)
{
	locations->count = 0;
	if (probe->types == FOR_DISPATCH) {
		if (file != FILE_EXECUTABLE || !target->dispatch.site[probe->site].present)
			return;
		locations->offset[locations->count] = target->dispatch.site[probe->site].probe_offset;
		locations->cookie[locations->count++] = target->dispatch_address[probe->site];
		return;
	}
	for (int type = 0; type < CONN_TYPES; type++) {
		const struct target_layer *layer = &target->layer[type];

		if (!(probe->types & 1U << type) || layer->file != file || !layer->sites.site[probe->site].present)
			continue;
		locations->offset[locations->count] = layer->sites.site[probe->site].probe_offset;
		locations->cookie[locations->count++] = layer->probe_address[probe->site];
	}
}

static int attach_multi(struct probe_links *links, enum attach_choice how, const struct probe *probe,
			struct bpf_program *program, const char *path, const struct uprobe_locations *locations,
			const struct probe_process *process)
{
	/*
	 * Sessions are younger than the bug of 6.6 to 6.9 that made the pid filter see the main thread only
	 * (46ba0e49b642); where it could be there, the programs' own comparison of the tgid has to do.
	 */
	pid_t filter = how == ATTACH_SESSION || process->has_one_thread ? process->pid : 0;
	int fd = uprobe_link_locations(bpf_program__fd(program), probe->attach_type, path, locations, probe->at_return,
				       filter);

	if (fd < 0)
		return fd;
	links->fd[links->fds++] = fd;
	return 0;
}

static int attach_perf(struct probe_links *links, const struct probe *probe, struct bpf_program *program, const char *path,
		       const struct uprobe_locations *locations, pid_t thread)
{
	LIBBPF_OPTS(bpf_uprobe_opts, opts, .retprobe = probe->at_return);
	struct bpf_link *link;

	for (__u32 i = 0; i < locations->count; i++) {
		link = bpf_program__attach_uprobe_opts(program, thread, path, locations->offset[i], &opts);
		if (!link)
			return -errno;
		links->perf[links->perfs++] = link;
	}
	return 0;
}

int probes_attach_locations(struct probe_links *links, enum attach_choice how, const struct probe *probe,
			    struct bpf_program *program, const char *path, const struct uprobe_locations *locations,
			    const struct probe_process *process)
{
	if (how == ATTACH_PERF)
		return attach_perf(links, probe, program, path, locations, process->thread);
	return attach_multi(links, how, probe, program, path, locations, process);
}

static int attach_tracepoint(struct probe_links *links, const struct probe *probe, struct bpf_program *program)
{
	struct bpf_link *link = bpf_program__attach_raw_tracepoint(program, probe->tracepoint);

	if (!link)
		return complain("cannot attach %s to the tracepoint %s: %s", probe->program, probe->tracepoint,
				strerror(errno));
	links->perf[links->perfs++] = link;
	return 0;
}

static int attach_one(struct probe_links *links, enum attach_choice how, const struct probe *probe,
		      struct bpf_program *program, const struct target *target, const struct probe_process *process,
		      enum target_file_kind file)
{
	struct uprobe_locations locations;
	int err;

	locations_in(target, file, probe, &locations);
	if (!locations.count)
		return 0;
	err = probes_attach_locations(links, how, probe, program, target->file[file].path, &locations, process);
	if (err == -ESRCH)
		return complain("-p %d: the server has ended", target->pid);
	if (err)
		return complain("cannot attach %s to %s: %s%s", probe->program, target->file[file].name, strerror(-err),
				err == -EPERM || err == -EACCES ? ": run as root" : "");
	return 0;
}

/* To each file of the server's that has the site. */
static int attach_sites(struct probe_links *links, enum attach_choice how, const struct probe *probe,
			struct bpf_program *program, const struct target *target, const struct probe_process *process)
{
	int file;

	for (file = 0; file < TARGET_FILES; file++)
		if (attach_one(links, how, probe, program, target, process, file))
			return -1;
	return 0;
}

int probes_attach(struct probe_links *links, const struct replylog_bpf *skel, struct attach_mode mode,
		  const struct target *target)
{
	struct probe_process process = { .pid = target->pid, .thread = target_idle_thread(target) };
	struct probe_list list;
	size_t i;
	int err;

	memset(links, 0, sizeof(*links));
	probes_list(mode, &list);
	for (i = 0; i < list.n; i++) {
		const struct probe *probe = &list.probe[i];
		struct bpf_program *program = bpf_object__find_program_by_name(skel->obj, probe->program);

		if (probe->tracepoint)
			err = attach_tracepoint(links, probe, program);
		else
			err = attach_sites(links, mode.attach, probe, program, target, &process);
		if (err) {
			probes_detach(links);
			return -1;
		}
	}
	return 0;
}

void probes_detach(struct probe_links *links)
{
	while (links->fds)
		close(links->fd[--links->fds]);
	while (links->perfs)
		bpf_link__destroy(links->perf[--links->perfs]);
}

static void describe_site(struct attach_mode mode, const struct probe *probe, const struct site *site, const char *name,
			  char text[PROBE_TEXT])
{
	snprintf(text, PROBE_TEXT, "%s %s 0x%" PRIx64 " %s %s", probe->program, name, site->probe_offset,
		 attach_name(mode.attach), site->emulated ? "emulated" : "single-stepped");
}

static size_t describe(struct attach_mode mode, const struct target *target, const struct probe *probe,
		       char (*text)[PROBE_TEXT])
{
	size_t n = 0;

	if (probe->tracepoint) {
		snprintf(text[n++], PROBE_TEXT, "%s %s raw_tracepoint", probe->program, probe->tracepoint);
		return n;
	}
	if (probe->types == FOR_DISPATCH) {
		describe_site(mode, probe, &target->dispatch.site[probe->site], dispatch_site_name(probe->site), text[n++]);
		return n;
	}
	for (int type = 0; type < CONN_TYPES; type++) {
		const struct site *site = &target->layer[type].sites.site[probe->site];

		if (probe->types & 1U << type && site->present)
			describe_site(mode, probe, site, site_name(type, probe->site), text[n++]);
	}
	return n;
}

size_t probes_describe(struct attach_mode mode, const struct target *target, char text[LOCATIONS_MAX][PROBE_TEXT])
{
	struct probe_list list;
	size_t n = 0, i;

	probes_list(mode, &list);
	for (i = 0; i < list.n; i++)
		n += describe(mode, target, &list.probe[i], text + n);
	return n;
}
