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

static const struct probe session_probes[] = {
	{ "conn_read_session", SITE_READ, false, ATTACH_TYPE_SESSION },
	{ "conn_write_session", SITE_WRITE, false, ATTACH_TYPE_SESSION },
	{ "conn_writev_session", SITE_WRITEV, false, ATTACH_TYPE_SESSION },
	{ "conn_close", SITE_CLOSE, false, ATTACH_TYPE_MULTI },
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
	{},
};

const struct probe *probes_of(enum attach_choice how)
{
	return how == ATTACH_SESSION ? session_probes : pair_probes;
}

static int attach_multi(struct probe_links *links, enum attach_choice how, const struct probe *probe,
			struct bpf_program *program, const struct target *target, uint64_t offset)
{
	/*
	 * Sessions are younger than the bug of 6.6 to 6.9 that made the pid filter see the main thread only
	 * (46ba0e49b642); where it could be there, the programs' own comparison of the tgid has to do.
	 */
	pid_t filter = how == ATTACH_SESSION ? target->pid : 0;
	int fd = uprobe_link_create(bpf_program__fd(program), probe->attach_type, target->path, offset,
				    probe->at_return, filter);

	if (fd < 0)
		return fd;
	links->fd[links->fds++] = fd;
	return 0;
}

static int attach_perf(struct probe_links *links, const struct probe *probe, struct bpf_program *program,
		       const struct target *target, uint64_t offset)
{
	LIBBPF_OPTS(bpf_uprobe_opts, opts, .retprobe = probe->at_return);
	struct bpf_link *link = bpf_program__attach_uprobe_opts(program, target_idle_thread(target), target->path,
								offset, &opts);

	if (!link)
		return -errno;
	links->perf[links->perfs++] = link;
	return 0;
}

static int attach_one(struct probe_links *links, struct engine *engine, const struct probe *probe,
		      const struct target *target)
{
	struct bpf_program *program = bpf_object__find_program_by_name(engine->skel->obj, probe->program);
	uint64_t offset = target->sites.site[probe->site].probe_offset;
	int err;

	if (engine->how == ATTACH_PERF)
		err = attach_perf(links, probe, program, target, offset);
	else
		err = attach_multi(links, engine->how, probe, program, target, offset);
	if (err == -ESRCH)
		return complain("-p %d: the server has ended", target->pid);
	if (err)
		return complain("attaching %s at 0x%" PRIx64 " of %s: %s%s", probe->program, offset, target->exe,
				strerror(-err), err == -EPERM || err == -EACCES ? ": run as root" : "");
	return 0;
}

int probes_attach(struct probe_links *links, struct engine *engine, const struct target *target)
{
	const struct probe *probe;

	memset(links, 0, sizeof(*links));
	for (probe = probes_of(engine->how); probe->program; probe++) {
		if (!target->sites.site[probe->site].present)
			continue;
		if (attach_one(links, engine, probe, target)) {
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

size_t probes_describe(enum attach_choice how, const struct conn_sites *sites, char text[PROBES_MAX][PROBE_TEXT])
{
	const struct probe *probe;
	size_t n = 0;

	for (probe = probes_of(how); probe->program; probe++) {
		const struct site *site = &sites->site[probe->site];

		if (site->present)
			snprintf(text[n++], PROBE_TEXT, "%s 0x%" PRIx64 " %s %s", probe->program, site->probe_offset,
				 attach_name(how), site->emulated ? "emulated" : "single-stepped");
	}
	return n;
}
