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

/* Is one of the probes on a command's execution single-stepped? */
static bool dispatch_is_stepped(const struct target *target)
{
	for (int i = 0; i < DISPATCH_SITES; i++)
		if (target->dispatch.site[i].present && !target->dispatch.site[i].emulated)
			return true;
	return false;
}

/* Probes on a command's execution are two breakpoints, as those on a read or write are without the socket tap. */
static int measure_dispatch(struct check_report *r, const char **step)
{
	struct attach_mode mode = r->mode;
	struct probe_cost cost = {};
	int err;

	if (!r->mode.dispatch)
		return 0;
	mode.tap = TAP_CHOICE_CONNECTION;
	err = probe_cost_measure(&cost, dispatch_is_stepped(&r->target), mode, step);
	r->dispatch_cost_ns = err ? 0 : cost.ns[HIT_PROBE];
	return err;
}

/* On a function of our own: the server is not touched. */
static void measure_cost(struct check_report *r)
{
	enum hit hit = r->mode.tap == TAP_CHOICE_SOCKET ? HIT_TRACEPOINT : HIT_PROBE;
	struct probe_cost cost = {};
	const char *step;
	int err;

	if (!r->would_attach) {
		snprintf(r->cost_source, sizeof(r->cost_source), "not measured: replylog would not attach");
		return;
	}
	err = probe_cost_measure(&cost, probe_cost_is_stepped(&r->target), r->mode, &step);
	r->cost_ns = err ? 0 : cost.ns[hit];
	err = err ? err : measure_dispatch(r, &step);
	if (err)
		snprintf(r->cost_source, sizeof(r->cost_source), "not measured: %s: %s", step, strerror(-err));
	else if (!r->cost_ns)
		snprintf(r->cost_source, sizeof(r->cost_source), "not measured: this machine is too busy just now");
	else
		snprintf(r->cost_source, sizeof(r->cost_source),
			 "measured just now on this machine, on replylog's own process; what its programs do with the bytes "
			 "comes on top (docs/COST.md)");
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

const char *check_cost_threads(const struct check_report *r)
{
	return r->io_threads ? "io" : "main";
}
