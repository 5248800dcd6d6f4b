/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "probes.h"

#include "complain.h"
#include "replylog.skel.h"
#include "uprobe_link.h"

#include <bpf/libbpf.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

_Static_assert(CONN_TYPES <= UPROBE_PLACES_MAX, "a link has room for the places of each connection type");

static const struct probe session_probes[] = {
	{ "conn_read_session", SITE_READ, false, ATTACH_TYPE_SESSION },
	{ "conn_write_session", SITE_WRITE, false, ATTACH_TYPE_SESSION },
	{ "conn_writev_session", SITE_WRITEV, false, ATTACH_TYPE_SESSION },
	{ "conn_close", SITE_CLOSE, false, ATTACH_TYPE_MULTI },
	{ "conn_accept", SITE_ACCEPT, false, ATTACH_TYPE_MULTI },
	{},
};

/* Returns first: an entry without its return is normal, a return without its entry is one probe hit for nothing. */
static const struct probe pair_probes[] = {
	{ "conn_read_return", SITE_READ, true, ATTACH_TYPE_MULTI },
	{ "conn_read_enter", SITE_READ, false, ATTACH_TYPE_MULTI },
	{ "conn_write_return", SITE_WRITE, true, ATTACH_TYPE_MULTI },
	{ "conn_write_enter", SITE_WRITE, false, ATTACH_TYPE_MULTI },
	{ "conn_writev_return", SITE_WRITEV, true, ATTACH_TYPE_MULTI },
	{ "conn_writev_enter", SITE_WRITEV, false, ATTACH_TYPE_MULTI },
	{ "conn_close", SITE_CLOSE, false, ATTACH_TYPE_MULTI },
	{ "conn_accept", SITE_ACCEPT, false, ATTACH_TYPE_MULTI },
	{},
};

const struct probe *probes_of(enum attach_choice how)
{
	return how == ATTACH_SESSION ? session_probes : pair_probes;
}

/* The places of a probe in one file of the server's. Their cookies are their addresses in the server's memory. */
static void places_in(const struct target *target, enum target_file_kind file, enum site_kind kind,
		      struct uprobe_places *places)
{
	places->count = 0;
	for (int type = 0; type < CONN_TYPES; type++) {
		const struct target_layer *layer = &target->layer[type];

		if (layer->file != file || !layer->sites.site[kind].present)
			continue;
		places->offset[places->count] = layer->sites.site[kind].probe_offset;
		places->cookie[places->count++] = layer->probe_address[kind];
	}
}

static int attach_multi(struct probe_links *links, enum attach_choice how, const struct probe *probe,
			struct bpf_program *program, const struct target *target, enum target_file_kind file)
{
	/*
	 * Sessions are younger than the bug of 6.6 to 6.9 that made the pid filter see the main thread only
	 * (46ba0e49b642); where it could be there, the programs' own comparison of the tgid has to do.
	 */
	pid_t filter = how == ATTACH_SESSION ? target->pid : 0;
	struct uprobe_places places;
	int fd;

	places_in(target, file, probe->site, &places);
	if (!places.count)
		return 0;
	fd = uprobe_link_places(bpf_program__fd(program), probe->attach_type, target->file[file].path, &places,
				probe->at_return, filter);
	if (fd < 0)
		return fd;
	links->fd[links->fds++] = fd;
	return 0;
}

static int attach_perf(struct probe_links *links, const struct probe *probe, struct bpf_program *program,
		       const struct target *target, enum target_file_kind file)
{
	LIBBPF_OPTS(bpf_uprobe_opts, opts, .retprobe = probe->at_return);
	pid_t thread = target_idle_thread(target);
	struct uprobe_places places;
	struct bpf_link *link;

	places_in(target, file, probe->site, &places);
	for (__u32 i = 0; i < places.count; i++) {
		link = bpf_program__attach_uprobe_opts(program, thread, target->file[file].path, places.offset[i], &opts);
		if (!link)
			return -errno;
		links->perf[links->perfs++] = link;
	}
	return 0;
}

static int attach_one(struct probe_links *links, struct engine *engine, const struct probe *probe,
		      const struct target *target, enum target_file_kind file)
{
	struct bpf_program *program = bpf_object__find_program_by_name(engine->skel->obj, probe->program);
	int err;

	if (engine->how == ATTACH_PERF)
		err = attach_perf(links, probe, program, target, file);
	else
		err = attach_multi(links, engine->how, probe, program, target, file);
	if (err == -ESRCH)
		return complain("-p %d: the server has ended", target->pid);
	if (err)
		return complain("attaching %s to %s: %s%s", probe->program, target->file[file].name, strerror(-err),
				err == -EPERM || err == -EACCES ? ": run as root" : "");
	return 0;
}

int probes_attach(struct probe_links *links, struct engine *engine, const struct target *target)
{
	const struct probe *probe;

	memset(links, 0, sizeof(*links));
	for (probe = probes_of(engine->how); probe->program; probe++) {
		for (int file = 0; file < TARGET_FILES; file++) {
			if (attach_one(links, engine, probe, target, file)) {
				probes_detach(links);
				return -1;
			}
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

static size_t describe_layer(enum attach_choice how, const struct target *target, enum conn_type type,
			     char (*text)[PROBE_TEXT])
{
	const struct probe *probe;
	size_t n = 0;

	for (probe = probes_of(how); probe->program; probe++) {
		const struct site *site = &target->layer[type].sites.site[probe->site];

		if (site->present)
			snprintf(text[n++], PROBE_TEXT, "%s %s 0x%" PRIx64 " %s %s", probe->program,
				 site_name(type, probe->site), site->probe_offset, attach_name(how),
				 site->emulated ? "emulated" : "single-stepped");
	}
	return n;
}

size_t probes_describe(enum attach_choice how, const struct target *target, char text[PROBES_MAX][PROBE_TEXT])
{
	size_t n = 0;

	for (int type = 0; type < CONN_TYPES; type++)
		n += describe_layer(how, target, type, text + n);
	return n;
}
