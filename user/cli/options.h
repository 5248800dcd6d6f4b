/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef REPLYLOG_USER_CLI_OPTIONS_H
#define REPLYLOG_USER_CLI_OPTIONS_H

#include <linux/types.h>
#include <stdbool.h>
#include <stdint.h>

#include "bpf/abi/record.h"
#include "user/kernel/attach.h"
#include "user/kernel/engine.h"
#include "user/server/selector.h"

/* What records take argv, database and user from: the request's bytes, or the server's structs as it dispatches it. */
enum argv_choice { FROM_REQUEST, FROM_DISPATCH };

#define SELECTORS_MAX 64

struct options {
	struct selector selectors[SELECTORS_MAX];
	uint32_t n_selectors; /* at least 1 */
	bool follow, check, json;
	const char *debug_file;  /* of --debug; NULL: on stderr; from argv */
	uint32_t verify_wait_ms; /* how long a record waits for its check, at most */
	uint32_t argv_from;      /* enum argv_choice; FROM_DISPATCH: mode has it, too */
	struct attach_mode mode;
	struct engine_config engine;
};

/* The values are exit statuses, except that OPTIONS_RUN goes on. */
enum options_result {
	OPTIONS_DONE = 0, /* --help or --version was answered on stdout */
	OPTIONS_RUN = 1,
	OPTIONS_BAD = 2, /* one line on stderr has said what is wrong and what to do */
};

/*
 * Fill *o from the command line, defaults included. Reorders argv as getopt_long does. *o is whole on
 * OPTIONS_RUN only.
 */
enum options_result options_parse(int argc, char **argv, struct options *o);

#endif
