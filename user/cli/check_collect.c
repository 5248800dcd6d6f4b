/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/cli/check_report.h"

#include "user/complain.h"
#include "user/kernel/engine.h"
#include "user/kernel/prepare.h"
#include "user/kernel/probe_cost.h"
#include "user/server/listen.h"
#include "user/server/proc.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define LISTENS_MAX 16

static __attribute__((format(printf, 2, 3))) void add(struct check_items *items, const char *format, ...)
{
	va_list args;

	if (items->n == CHECK_ITEMS_MAX)
		return;
	va_start(args, format);
	vsnprintf(items->item[items->n++], CHECK_ITEM, format, args);
	va_end(args);
}

static void find_listens(struct check_report *r)
{
	struct listen_table table = {};
	struct endpoint endpoints[LISTENS_MAX];
	bool tcp = false, local = false;
	int i, n;

	n = listen_endpoints(&table, r->target.pid, NULL, NULL, endpoints, LISTENS_MAX);
	listen_table_free(&table);
	for (i = 0; i < n; i++) {
		if (endpoints[i].port)
			add(&r->listens, "tcp %u", endpoints[i].port);
		else
			add(&r->listens, "unix %s", endpoints[i].path);
		tcp |= endpoints[i].port;
		local |= !endpoints[i].port;
	}
	if (tcp)
		add(&r->transports, "tcp");
	if (local)
		add(&r->transports, "unix");
}

/* Whether the server could speak TLS: which of its ports do is known to itself alone. */
static bool has_tls_code(pid_t pid)
{
	char path[32], line[512];
	bool found = false;
	FILE *maps;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	maps = fopen(path, "re");
	if (!maps)
		return false;
	while (!found && fgets(line, sizeof(line), maps))
		found = strstr(line, "/libssl.so") || strstr(line, "-tls.so");
	fclose(maps);
	return found;
}

static void describe_layer(struct check_report *r, enum conn_type type)
{
	const struct conn_sites *sites = &r->target.layer[type].sites;
	size_t kind;

	for (kind = 0; sites->found_by && kind < SITE_KINDS; kind++) {
		const struct site *site = &sites->site[kind];
		const char *name = site_name(type, kind);

		if (!name)
			continue;
		if (!site->present) {
			add(&r->sites, "%s absent", name);
			continue;
		}
		add(&r->sites, "%s 0x%" PRIx64 " %s, found by %s", name, site->probe_offset,
		    site->emulated ? "emulated" : "single-stepped", sites->found_by);
	}
}

static void describe_dispatch(struct check_report *r)
{
	const struct site *site;

	for (int i = 0; i < DISPATCH_SITES; i++) {
		site = &r->target.dispatch.site[i];
		if (!site->present) {
			add(&r->sites, "%s absent", dispatch_site_name(i));
			continue;
		}
		add(&r->sites, "%s 0x%" PRIx64 " %s, found by symbol", dispatch_site_name(i), site->probe_offset,
		    site->emulated ? "emulated" : "single-stepped");
	}
}

static void describe_sites(struct check_report *r)
{
	int type;

	for (type = 0; type < CONN_TYPES; type++)
		describe_layer(r, type);
	if (r->target.version[0])
		describe_dispatch(r);
}

static void ask_kernel(struct check_report *r)
{
	size_t i;

	uname(&r->kernel);
	kernel_features(r->features);
	for (i = 0; i < KERNEL_FEATURES; i++)
		add(r->features[i].present ? &r->present : &r->missing, "%s", r->features[i].name);
	kernel_capabilities(r->capabilities);
	for (i = 0; i < KERNEL_CAPABILITIES; i++)
		add(r->capabilities[i].present ? &r->may : &r->may_not, "%s", r->capabilities[i].name);
}

/* All of a run but the attaching. */
static bool try_without_attaching(struct check_report *r, const struct options *options, pid_t pid)
{
	struct engine engine = {};
	bool loaded;

	r->mode = options->mode;
	if (attach_prepare(&r->target, pid, &r->mode))
		return false;
	loaded = !engine_load(&engine, &options->engine, &r->target, r->mode);
	engine_unload(&engine);
	return loaded;
}

static void add_cost(struct check_report *r, const char *key, const char *where, enum probe_kind kind,
		     const struct probe_timing timing[PROBE_KINDS])
{
	struct check_cost *cost = &r->cost[r->costs++];
	const char *how = attach_name(r->mode.attach);

	if (kind == PROBE_ENTRY && r->mode.attach == ATTACH_SESSION)
		how = attach_name(ATTACH_MULTI);
	if (kind == PROBE_TRACEPOINT)
		snprintf(cost->probe, sizeof(cost->probe), "raw_tracepoint");
	else
		snprintf(cost->probe, sizeof(cost->probe), "%s at entry%s%s", how, kind == PROBE_ENTRY ? "" : " and return",
			 timing[kind].stepped ? ", single-stepped" : "");
	cost->key = key;
	cost->where = where;
	cost->timing = timing[kind];
}

/* Each kind of hit that a run would cause. */
static void add_costs(struct check_report *r, const struct probe_timing timing[PROBE_KINDS])
{
	if (r->mode.tap == TAP_CHOICE_CONNECTION) {
		add_cost(r, "cost_per_io_ns", "each read and each write of a connection", PROBE_IO, timing);
	} else {
		add_cost(r, "cost_per_io_ns", "each read and each write of a plain connection", PROBE_TRACEPOINT, timing);
		if (r->target.layer[CONN_TLS].sites.found_by)
			add_cost(r, "cost_per_tls_io_ns", "each read and each write of a TLS connection", PROBE_IO, timing);
	}
	add_cost(r, "cost_per_entry_ns", "each accept and each close of a connection", PROBE_ENTRY, timing);
	if (r->mode.dispatch)
		add_cost(r, "cost_per_command_ns",
			 r->mode.argv
				 ? "each command, on the main thread; reading its argv (--argv-from dispatch) comes on top"
				 : "each command, on the main thread",
			 PROBE_DISPATCH, timing);
}

static void measure_cost(struct check_report *r)
{
	struct probe_timing timing[PROBE_KINDS];
	const char *step;
	int err;

	if (!r->would_attach) {
		snprintf(r->cost_source, sizeof(r->cost_source), "not measured: replylog would not attach, see the reason");
		return;
	}
	err = probe_cost_time(timing, &r->target, r->mode, &step);
	if (err) {
		snprintf(r->cost_source, sizeof(r->cost_source), "not measured: %s: %s", step, strerror(-err));
		return;
	}
	add_costs(r, timing);
	snprintf(r->cost_source, sizeof(r->cost_source),
		 "measured just now on this machine, on replylog's own process: no probe was attached to the server. "
		 "Medians, half of the batches in brackets; replylog's work on the bytes comes on top (docs/COST.md)");
}

void check_collect(struct check_report *r, const struct options *options, pid_t pid)
{
	memset(r, 0, sizeof(*r));
	r->would_attach = try_without_attaching(r, options, pid);
	if (!r->would_attach)
		snprintf(r->reason, sizeof(r->reason), "%s", complain_last());
	ask_kernel(r);
	describe_sites(r);
	if (r->target.layer[CONN_SOCKET].sites.found_by)
		measure_cost(r);
	if (r->target.version[0]) {
		find_listens(r);
		r->tls_code = has_tls_code(pid);
		/* "io_thd_1": their name in Redis since 6.0 and in Valkey (networking.c, io_threads.c, iothread.c). */
		r->io_threads = (unsigned int)proc_threads_named(pid, "io_thd_", NULL);
	}
	target_close(&r->target);
}
