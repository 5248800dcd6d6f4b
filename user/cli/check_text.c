/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/cli/check_report.h"

#include <errno.h>
#include <stdio.h>

/* Paths may hold anything; a terminal takes no orders from them. */
static void say(FILE *out, const char *what, const char *text)
{
	fprintf(out, "%-14s", what);
	for (; *text; text++)
		putc(*text >= ' ' && *text < 0x7f ? *text : '?', out);
	putc('\n', out);
}

static void say_items(FILE *out, const char *what, const struct check_items *items)
{
	size_t i;

	if (!items->n)
		say(out, what, "none");
	for (i = 0; i < items->n; i++)
		say(out, i ? "" : what, items->item[i]);
}

static void say_server(FILE *out, const struct check_report *r)
{
	const struct target *target = &r->target;
	char number[32];

	snprintf(number, sizeof(number), "pid %d", target->pid);
	say(out, "server", number);
	say(out, "version", target->version[0] ? target->version : "unknown");
	say(out, "executable", target->file[FILE_EXECUTABLE].name[0] ? target->file[FILE_EXECUTABLE].name : "unknown");
	say(out, "build id", target->build_id[0] ? target->build_id : "none");
	say_items(out, "listens", &r->listens);
	say(out, "tls",
	    r->tls_code ? "the server has TLS code; replylog cannot see which ports use it" : "the server has no TLS code");
	snprintf(number, sizeof(number), "%u", r->io_threads);
	say(out, "io threads", number);
	say(out, "seccomp", target->seccomp_filter ? "runs under a filter" : "no filter");
	say_items(out, "sites", &r->sites);
}

static void say_kernel(FILE *out, const struct check_report *r)
{
	char text[256];
	size_t i;

	snprintf(text, sizeof(text), "%s %s %s", r->kernel.sysname, r->kernel.release, r->kernel.machine);
	say(out, "kernel", text);
	for (i = 0; i < KERNEL_FEATURES; i++) {
		const struct kernel_feature *f = &r->features[i];

		snprintf(text, sizeof(text), "%-24s %-8s (%s, %s)", f->name, f->present ? "present" : "MISSING", f->since,
			 f->needed ? "needed" : "used if present");
		say(out, i ? "" : "features", text);
	}
	for (i = 0; i < KERNEL_CAPABILITIES; i++) {
		const struct kernel_capability *c = &r->capabilities[i];

		snprintf(text, sizeof(text), "%-24s %-8s (%s)", c->name, c->present ? "present" : "missing", c->use);
		say(out, i ? "" : "capabilities", text);
	}
}

static void say_cost(FILE *out, const struct check_report *r)
{
	char text[CHECK_ITEM];

	if (!r->cost_source[0])
		return;
	say(out, "cost", r->cost_source);
	for (size_t i = 0; i < r->costs; i++) {
		check_cost_text(&r->cost[i], text);
		say(out, "", text);
	}
	if (r->costs)
		say(out, "",
		    r->io_threads
			    ? "reads and writes: on the IO threads; on the main thread for what it reads and writes itself"
			    : "all on the main thread: there are no IO threads");
}

int check_write_text(const struct check_report *r, FILE *out)
{
	say_server(out, r);
	say_kernel(out, r);
	say_cost(out, r);
	if (r->would_attach) {
		say(out, "tap", tap_name(r->mode.tap));
		say(out, "attach by", attach_name(r->mode.attach));
	}
	say(out, "would attach", r->would_attach ? "yes" : "no");
	if (!r->would_attach)
		say(out, "reason", r->reason);
	putc('\n', out);
	return fflush(out) ? -errno : 0;
}
