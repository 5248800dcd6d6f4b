/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/cli/check_report.h"

#include <errno.h>
#include <stdio.h>

/* Paths may hold anything; a terminal takes no orders from them. */
static void say(const char *what, const char *text)
{
	printf("%-14s", what);
	for (; *text; text++)
		putchar(*text >= ' ' && *text < 0x7f ? *text : '?');
	putchar('\n');
}

static void say_items(const char *what, const struct check_items *items)
{
	size_t i;

	if (!items->n)
		say(what, "none");
	for (i = 0; i < items->n; i++)
		say(i ? "" : what, items->item[i]);
}

static void say_server(const struct check_report *r)
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

static void say_kernel(const struct check_report *r)
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

/* "1.1 us" */
static void say_cost_of(const char *what, unsigned int ns, const char *where)
{
	char text[CHECK_ITEM];

	snprintf(text, sizeof(text), "%u.%02u us for the probes on %s", ns / 1000, ns / 10 % 100, where);
	say(what, text);
}

static void say_cost(const struct check_report *r)
{
	const char *what = "cost";

	if (r->cost_ns) {
		say_cost_of(what, r->cost_ns, "each read and each write of a connection");
		say("", r->io_threads ? "on the IO threads; on the main thread for what it reads and writes itself"
				      : "on the main thread: there are no IO threads");
		what = "";
	}
	if (r->dispatch_cost_ns)
		say_cost_of("", r->dispatch_cost_ns, "each command, on the main thread");
	if (r->cost_source[0])
		say(what, r->cost_source);
}

int check_write_text(const struct check_report *r)
{
	say_server(r);
	say_kernel(r);
	say_cost(r);
	if (r->would_attach) {
		say("tap", tap_name(r->mode.tap));
		say("attach by", attach_name(r->mode.attach));
	}
	say("would attach", r->would_attach ? "yes" : "no");
	if (!r->would_attach)
		say("reason", r->reason);
	putchar('\n');
	return fflush(stdout) ? -errno : 0;
}
