/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What --check finds out about one server, and about this machine. */
#ifndef REPLYLOG_USER_CLI_CHECK_REPORT_H
#define REPLYLOG_USER_CLI_CHECK_REPORT_H

#include "user/cli/options.h"
#include "user/kernel/features.h"
#include "user/kernel/probe_cost.h"
#include "user/output/sink.h"
#include "user/server/target.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/utsname.h>

#define CHECK_ITEMS_MAX 32
#define CHECK_ITEM 192

/* A list of short texts. */
struct check_items {
	char item[CHECK_ITEMS_MAX][CHECK_ITEM];
	size_t n;
};

/* What one kind of hit costs. */
struct check_cost {
	const char *key;   /* the median's, in JSON */
	const char *where; /* what each such hit is for */
	char probe[64];    /* "uprobe_session at entry and return, single-stepped" */
	struct probe_timing timing;
};

struct check_report {
	struct target target;
	struct kernel_feature features[KERNEL_FEATURES];
	struct kernel_capability capabilities[KERNEL_CAPABILITIES];
	struct utsname kernel;
	struct attach_mode mode;
	struct check_items listens, transports, sites, present, missing, may, may_not;
	unsigned int io_threads;
	bool tls_code;
	struct check_cost cost[PROBE_KINDS];
	size_t costs;          /* 0: not measured */
	char cost_source[320]; /* how the costs were measured, or why not; "" where no site is known */
	bool would_attach;
	char reason[1024]; /* why not */
};

/*
 * Finds out all that a run would before it attaches, and measures what a probe costs on a function of replylog's own. Why
 * the server can't be attached to is in *report, and on stderr.
 */
void check_collect(struct check_report *report, const struct options *options, pid_t pid);

/* Which threads of the server would pay: "io", or "main". */
const char *check_cost_threads(const struct check_report *report);

/* "uprobe_session at entry and return 1012 ns (990-1050): each read and each write of a connection" */
void check_cost_text(const struct check_cost *cost, char text[CHECK_ITEM]);

/* Writes a report as a JSON object on a line of its own (docs/SCHEMA.md). 0 or -errno. */
int check_write_json(const struct check_report *report, struct sink *sink);

/* Writes a report in words. 0 or -errno. */
int check_write_text(const struct check_report *report, FILE *out);

#endif
