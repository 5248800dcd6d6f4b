/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/cli/check_report.h"

const char *check_cost_threads(const struct check_report *r)
{
	return r->io_threads ? "io" : "main";
}

void check_cost_text(const struct check_cost *cost, char text[CHECK_ITEM])
{
	const struct probe_timing *t = &cost->timing;

	if (t->median)
		snprintf(text, CHECK_ITEM, "%s %u ns (%u-%u): %s", cost->probe, t->median, t->low, t->high, cost->where);
	else
		snprintf(text, CHECK_ITEM, "%s not measured, this machine is too busy just now: %s", cost->probe,
			 cost->where);
}
