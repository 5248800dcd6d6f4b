/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The BPF side: its memory, its programs, its counters. Knows nothing of JSON. */
#ifndef REPLYLOG_ENGINE_H
#define REPLYLOG_ENGINE_H

#include "hit_cost.h"
#include "kernel.h"
#include "options.h"
#include "target.h"

#include <linux/types.h>

#include "layout.h"
#include "shared.h"

struct replylog_bpf;

struct engine {
	struct replylog_bpf *skel;
	struct way way;
	struct hit_cost cost; /* measured with --max-overhead only */
};

/* Of the variants of each program, only those of the list are to be loaded, for this way of attaching. */
struct probe_list;
void engine_choose_programs(struct replylog_bpf *skel, struct way way, const struct probe_list *list);

/* Keeps libbpf from writing to stderr itself; its first warning becomes part of our own line. Call before all else. */
void engine_catch_warnings(void);

/*
 * Loads the programs that this way attaches, with memory of the sizes in options. 0, or -1 with the reason on stderr.
 * Either way engine_unload() gives back what it holds.
 */
int engine_load(struct engine *engine, const struct options *options, const struct target *target,
		struct way way);
void engine_unload(struct engine *engine);

/* Everything is attached: from now on the probes act; or not, even as long as they are attached. */
void engine_ready(struct engine *engine, bool ready);

/* Shared with BPF, which adds to the counters at any time: read each once. */
volatile struct engine_state *engine_state(struct engine *engine);

/* Sums over the server's threads. Exact once the probes are detached. */
struct engine_hits {
	__u64 main_thread;
	__u64 other_threads;
	__u64 unattributed_bytes;
};

/* 0 or -errno. */
int engine_hits(struct engine *engine, pid_t server, struct engine_hits *hits);

/* Statistics of all threads of the server, of which each thread may be changing its own. 0 or -errno. */
int engine_thread_stats(struct engine *engine, struct thread_stats stats[THREADS_MAX]);

enum engine_end { END_SERVER_EXITED, END_DETACHED, END_PAUSE };

/*
 * Once the probes are detached: what was under way on any connection becomes records (aborted, when the server ended)
 * or is counted as unfinished. At a pause all connections are forgotten, too: attached anew, the probes meet them as
 * they do at first. 0, or -1 with the reason on stderr.
 */
int engine_sweep(struct engine *engine, enum engine_end why);

#endif
