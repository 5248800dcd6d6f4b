/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef REPLYLOG_OPTIONS_H
#define REPLYLOG_OPTIONS_H

#include <linux/types.h>
#include <stdbool.h>
#include <stdint.h>

#include "bpf/abi/record.h"
#include "user/server/selector.h"

/* How uprobes are attached; auto takes the first of the others that the kernel has. */
enum attach_choice { ATTACH_AUTO, ATTACH_SESSION, ATTACH_MULTI, ATTACH_PERF };

/* Where the bytes of plain connections are seen; auto takes the socket's tracepoints where the kernel has them. */
enum tap_choice { TAP_CHOICE_AUTO, TAP_CHOICE_SOCKET, TAP_CHOICE_CONNECTION };

/* What records take argv, database and user from: the request's bytes, or the server's structs as it dispatches it. */
enum argv_choice { FROM_REQUEST, FROM_DISPATCH };

struct way {
	enum attach_choice attach;
	enum tap_choice tap;
	bool dispatch; /* also the execution of commands */
	bool argv;     /* and what is executed: --argv-from dispatch */
};

#define SELECTORS_MAX 64

struct options {
	struct selector selectors[SELECTORS_MAX];
	uint32_t n_selectors; /* at least 1 */
	bool follow, check, json;
	bool debug;              /* explain on stderr or in debug_file what happens and why */
	const char *debug_file;  /* NULL: on stderr; from argv */
	bool dispatch;           /* also probe the execution of commands */
	uint32_t verify_wait_ms; /* how long a record waits for its check, at most */
	uint32_t max_overhead;   /* tenths of a percent of each thread's time; 0: no limit */
	uint64_t threshold;      /* bytes; 0 logs every reply */
	uint32_t max_clients;
	uint32_t max_pipeline; /* outstanding commands per client whose argv is kept */
	uint64_t argv_memory;  /* bytes, rounded up to whole ARGV_BLOCK_BYTES */
	uint64_t ring_size;    /* bytes, rounded up to a power of two */
	uint32_t attach;       /* enum attach_choice */
	uint32_t tap;          /* enum tap_choice */
	uint32_t argv_from;    /* enum argv_choice; FROM_DISPATCH: dispatch is set, too */
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
