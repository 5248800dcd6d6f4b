/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/cli/check.h"

#include "user/cli/check_report.h"
#include "user/complain.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

int check(const struct options *options, const struct servers *servers)
{
	static struct check_report report;
	struct sink sink;
	int ret = 0, err;
	size_t i;

	sink_init(&sink, STDOUT_FILENO);
	for (i = 0; i < servers->n; i++) {
		check_collect(&report, options, servers->server[i].pid);
		err = options->json ? check_write_json(&report, &sink) : check_write_text(&report, stdout);
		if (err)
			return complain("stdout: %s", strerror(-err));
		ret |= report.would_attach ? 0 : -1;
	}
	return ret;
}
