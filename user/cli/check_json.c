/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/cli/check_report.h"

#include "user/output/json.h"
#include "user/output/stream.h"
#include "user/version.h"

#include <string.h>

static void put(struct json *j, const char *key, const char *word)
{
	if (word[0])
		json_text(j, key, word, strlen(word));
}

static void put_items(struct json *j, const char *key, const struct check_items *items)
{
	size_t i;

	json_array_begin(j, key);
	for (i = 0; i < items->n; i++)
		json_item_text(j, items->item[i], strlen(items->item[i]));
	json_array_end(j);
}

static void put_server(struct json *j, const struct check_report *r)
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

static void put_kernel(struct json *j, const struct check_report *r)
{
	put(j, "kernel", r->kernel.release);
	put(j, "machine", r->kernel.machine);
	put_items(j, "features", &r->present);
	put_items(j, "features_missing", &r->missing);
	put_items(j, "capabilities", &r->may);
	put_items(j, "capabilities_missing", &r->may_not);
}

/* A number only where one was measured. */
static void put_costs(struct json *j, const struct check_report *r)
{
	struct check_items hits = {};

	for (size_t i = 0; i < r->costs; i++) {
		if (r->cost[i].timing.median)
			json_u64(j, r->cost[i].key, r->cost[i].timing.median);
		check_cost_text(&r->cost[i], hits.item[hits.n++]);
	}
	put_items(j, "cost_hits", &hits);
	if (!r->cost_source[0])
		return;
	put(j, "cost_threads", check_cost_threads(r));
	put(j, "cost_source", r->cost_source);
}

int check_write_json(const struct check_report *r, struct sink *sink)
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
		put(&j, "tap", tap_name(r->mode.tap));
		put(&j, "attach", attach_name(r->mode.attach));
	}
	put_costs(&j, r);
	len = json_end(&j);
	if (len < 0)
		return len;
	line[len] = '\n';
	return sink_write(sink, line, (size_t)len + 1);
}
