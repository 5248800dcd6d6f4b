/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/cli/check.h"

#include "user/complain.h"
#include "user/kernel/engine.h"
#include "user/output/json.h"
#include "user/kernel/features.h"
#include "user/server/listen.h"
#include "user/session/observe.h"
#include "user/output/sink.h"
#include "user/output/stream.h"
#include "user/server/target.h"
#include "user/version.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

/*
 * What a read or write of a connection pays, in a VM of two cores (docs/COST.md; docs/DECISIONS.md): a
 * breakpoint at entry and one at return, emulated or single-stepped, or a tracepoint; and our program.
 */
#define PAIR_EMULATED_NS 1100
#define PAIR_STEPPED_NS 10000
#define TRACEPOINT_NS 160
#define PROGRAM_NS 600
#define DISPATCH_NS 400
#define DISPATCH_ARGV_NS 400
#define COST_SOURCE                                                                                      \
	"measured in a 2-core x86-64 VM on Linux 6.18, see docs/COST.md; single-stepping costs about a " \
	"fifth of it on metal"

#define LISTENS_MAX 16
#define ITEMS_MAX 32
#define ITEM 192

/* A list of short texts. */
struct items {
	char item[ITEMS_MAX][ITEM];
	size_t n;
};

struct report {
	struct target target;
	struct kernel_feature features[KERNEL_FEATURES];
	struct kernel_capability capabilities[KERNEL_CAPABILITIES];
	struct utsname kernel;
	struct way way;
	struct items listens, transports, sites, present, missing, may, may_not;
	unsigned int io_threads;
	bool tls_code;
	unsigned int cost_ns;          /* 0: unknown */
	unsigned int dispatch_cost_ns; /* 0: nothing is attached there */
	bool would_attach;
	char reason[1024]; /* why not */
};

static __attribute__((format(printf, 2, 3))) void add(struct items *items, const char *format, ...)
{
	va_list args;

	if (items->n == ITEMS_MAX)
		return;
	va_start(args, format);
	vsnprintf(items->item[items->n++], ITEM, format, args);
	va_end(args);
}

static void find_listens(struct report *r)
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

/* "io_thd_1": their name in Redis since 6.0 and in Valkey (networking.c, io_threads.c, iothread.c). */
static unsigned int count_io_threads(pid_t pid)
{
	char path[320], name[16];
	unsigned int n = 0;
	struct dirent *entry;
	FILE *comm;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	dir = opendir(path);
	while (dir && (entry = readdir(dir))) {
		snprintf(path, sizeof(path), "/proc/%d/task/%s/comm", pid, entry->d_name);
		comm = fopen(path, "re");
		if (!comm)
			continue;
		n += fgets(name, sizeof(name), comm) && !strncmp(name, "io_thd_", 7);
		fclose(comm);
	}
	if (dir)
		closedir(dir);
	return n;
}

static void describe_layer(struct report *r, enum conn_type type)
{
	const struct conn_sites *sites = &r->target.layer[type].sites;
	bool stepped = false;
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
		stepped |= kind <= SITE_WRITEV && !site->emulated;
	}
	if (!sites->found_by || type != CONN_SOCKET)
		return;
	r->cost_ns = PROGRAM_NS;
	if (r->way.tap == TAP_CHOICE_SOCKET)
		r->cost_ns += TRACEPOINT_NS;
	else
		r->cost_ns += stepped ? PAIR_STEPPED_NS : PAIR_EMULATED_NS;
}

static void describe_dispatch(struct report *r)
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
		if (r->way.dispatch)
			r->dispatch_cost_ns = DISPATCH_NS + (r->way.argv ? DISPATCH_ARGV_NS : 0) +
					      (site->emulated ? PAIR_EMULATED_NS : PAIR_STEPPED_NS);
	}
}

static void describe_sites(struct report *r)
{
	int type;

	for (type = 0; type < CONN_TYPES; type++)
		describe_layer(r, type);
	if (r->target.version[0])
		describe_dispatch(r);
}

static void ask_kernel(struct report *r)
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
static bool try_without_attaching(struct report *r, const struct options *options, pid_t pid)
{
	struct engine engine = {};
	bool loaded;

	r->way = (struct way){ .attach = options->attach,
			       .tap = options->tap,
			       .dispatch = options->dispatch,
			       .argv = options->argv_from == FROM_DISPATCH };
	if (observe_prepare(&r->target, pid, &r->way))
		return false;
	loaded = !engine_load(&engine, options, &r->target, r->way);
	engine_unload(&engine);
	return loaded;
}

static void examine(struct report *r, const struct options *options, pid_t pid)
{
	memset(r, 0, sizeof(*r));
	r->would_attach = try_without_attaching(r, options, pid);
	if (!r->would_attach)
		snprintf(r->reason, sizeof(r->reason), "%s", complain_last());
	ask_kernel(r);
	describe_sites(r);
	if (r->target.version[0]) {
		find_listens(r);
		r->tls_code = has_tls_code(pid);
		r->io_threads = count_io_threads(pid);
	}
	target_close(&r->target);
}

static const char *cost_threads(const struct report *r)
{
	return r->io_threads ? "io" : "main";
}

/* ---- as JSON ---- */

static void put(struct json *j, const char *key, const char *word)
{
	if (word[0])
		json_text(j, key, word, strlen(word));
}

static void put_items(struct json *j, const char *key, const struct items *items)
{
	size_t i;

	json_array_begin(j, key);
	for (i = 0; i < items->n; i++)
		json_item_text(j, items->item[i], strlen(items->item[i]));
	json_array_end(j);
}

static void put_server(struct json *j, const struct report *r)
{
	const struct target *target = &r->target;

	json_u64(j, "server_pid", (uint64_t)target->pid);
	put(j, "server_exe", target->file[FILE_EXECUTABLE].name);
	put(j, "server_build_id", target->build_id);
	put(j, "server_version", target->version);
	put_items(j, "listens", &r->listens);
	put_items(j, "transports", &r->transports);
	json_bool(j, "tls_code", r->tls_code);
	json_u64(j, "io_threads", r->io_threads);
	json_bool(j, "seccomp_filter", target->seccomp_filter);
	put_items(j, "sites", &r->sites);
}

static void put_kernel(struct json *j, const struct report *r)
{
	put(j, "kernel", r->kernel.release);
	put(j, "machine", r->kernel.machine);
	put_items(j, "features", &r->present);
	put_items(j, "features_missing", &r->missing);
	put_items(j, "capabilities", &r->may);
	put_items(j, "capabilities_missing", &r->may_not);
}

static int write_json(const struct report *r, struct sink *sink)
{
	char line[STREAM_LINE_MAX];
	struct json j;
	int len;

	json_begin(&j, line, sizeof(line) - 1);
	put(&j, "event", "check");
	json_u64(&j, "schema", STREAM_SCHEMA);
	put(&j, "version", replylog_version);
	json_bool(&j, "would_attach", r->would_attach);
	put(&j, "reason", r->reason);
	put_server(&j, r);
	put_kernel(&j, r);
	if (r->would_attach) {
		put(&j, "tap", tap_name(r->way.tap));
		put(&j, "attach", attach_name(r->way.attach));
	}
	if (r->cost_ns) {
		json_u64(&j, "cost_per_io_ns", r->cost_ns);
		put(&j, "cost_threads", cost_threads(r));
		put(&j, "cost_source", COST_SOURCE);
	}
	if (r->dispatch_cost_ns)
		json_u64(&j, "cost_per_command_ns", r->dispatch_cost_ns);
	len = json_end(&j);
	if (len < 0)
		return len;
	line[len] = '\n';
	return sink_write(sink, line, (size_t)len + 1);
}

/* ---- in words ---- */

/* Paths may hold anything; a terminal takes no orders from them. */
static void say(const char *what, const char *text)
{
	printf("%-14s", what);
	for (; *text; text++)
		putchar(*text >= ' ' && *text < 0x7f ? *text : '?');
	putchar('\n');
}

static void say_items(const char *what, const struct items *items)
{
	size_t i;

	if (!items->n)
		say(what, "none");
	for (i = 0; i < items->n; i++)
		say(i ? "" : what, items->item[i]);
}

static void say_server(const struct report *r)
{
	const struct target *target = &r->target;
	char number[32];

	snprintf(number, sizeof(number), "pid %d", target->pid);
	say("server", number);
	say("version", target->version[0] ? target->version : "unknown");
	say("executable", target->file[FILE_EXECUTABLE].name[0] ? target->file[FILE_EXECUTABLE].name : "unknown");
	say("build id", target->build_id[0] ? target->build_id : "none");
	say_items("listens", &r->listens);
	say("tls",
	    r->tls_code ? "the server has TLS code; replylog cannot see which ports use it" : "the server has no TLS code");
	snprintf(number, sizeof(number), "%u", r->io_threads);
	say("io threads", number);
	say("seccomp", target->seccomp_filter ? "runs under a filter" : "no filter");
	say_items("sites", &r->sites);
}

static void say_kernel(const struct report *r)
{
	char text[256];
	size_t i;

	snprintf(text, sizeof(text), "%s %s %s", r->kernel.sysname, r->kernel.release, r->kernel.machine);
	say("kernel", text);
	for (i = 0; i < KERNEL_FEATURES; i++) {
		const struct kernel_feature *f = &r->features[i];

		snprintf(text, sizeof(text), "%-24s %-8s (%s, %s)", f->name, f->present ? "present" : "MISSING", f->since,
			 f->needed ? "needed" : "used if present");
		say(i ? "" : "features", text);
	}
	for (i = 0; i < KERNEL_CAPABILITIES; i++) {
		const struct kernel_capability *c = &r->capabilities[i];

		snprintf(text, sizeof(text), "%-24s %-8s (%s)", c->name, c->present ? "present" : "missing", c->use);
		say(i ? "" : "capabilities", text);
	}
}

static void say_cost(const struct report *r)
{
	char text[320];

	if (!r->cost_ns)
		return;
	snprintf(text, sizeof(text), "about %u.%u us for each read or write of a connection", r->cost_ns / 1000,
		 r->cost_ns / 100 % 10);
	say("cost", text);
	say("", r->io_threads ? "on the IO threads; on the main thread for what it reads and writes itself"
			      : "on the main thread: there are no IO threads");
	if (r->dispatch_cost_ns) {
		snprintf(text, sizeof(text), "about %u.%u us for each command, on the main thread (%s)",
			 r->dispatch_cost_ns / 1000, r->dispatch_cost_ns / 100 % 10,
			 r->way.argv ? "--argv-from dispatch" : "--dispatch");
		say("", text);
	}
	say("", COST_SOURCE);
}

static int write_words(const struct report *r)
{
	say_server(r);
	say_kernel(r);
	say_cost(r);
	if (r->would_attach) {
		say("tap", tap_name(r->way.tap));
		say("attach by", attach_name(r->way.attach));
	}
	say("would attach", r->would_attach ? "yes" : "no");
	if (!r->would_attach)
		say("reason", r->reason);
	putchar('\n');
	return fflush(stdout) ? -errno : 0;
}

int check(const struct options *options, const struct servers *servers)
{
	static struct report report;
	struct sink sink;
	int ret = 0, err;
	size_t i;

	sink_init(&sink, STDOUT_FILENO);
	for (i = 0; i < servers->n; i++) {
		examine(&report, options, servers->server[i].pid);
		err = options->json ? write_json(&report, &sink) : write_words(&report);
		if (err)
			return complain("stdout: %s", strerror(-err));
		ret |= report.would_attach ? 0 : -1;
	}
	return ret;
}
