/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The BPF side: its memory, its programs, its counters. Knows nothing of JSON. */
#ifndef REPLYLOG_USER_KERNEL_ENGINE_H
#define REPLYLOG_USER_KERNEL_ENGINE_H

#include "user/kernel/probe_cost.h"
#include "user/kernel/features.h"
#include "user/kernel/attach.h"
#include "user/server/target.h"

#include <linux/types.h>
#include <stdint.h>

#include "bpf/abi/layout.h"
#include "bpf/abi/shared.h"

struct bpf_link;
struct probe_list;
struct replylog_bpf;

struct engine_config {
	uint64_t threshold; /* bytes; 0 logs every reply */
	uint32_t max_clients;
	uint32_t max_pipeline; /* outstanding commands per client whose argv is kept */
	uint64_t argv_memory;  /* bytes, whole ARGV_BLOCK_BYTES */
	uint64_t ring_size;    /* bytes, a power of two */
	uint32_t max_overhead; /* tenths of a percent of each thread's time; 0: no limit */
	bool debug;            /* the programs explain what they do, and the kernel what it thinks of them */
};

struct engine {
	struct replylog_bpf *skel;
	struct attach_mode mode;
	struct probe_cost cost;         /* measured with --max-overhead only */
	struct bpf_link *watch, *exits; /* see engine_watch_server() */
};

/* Keeps libbpf from writing to stderr itself; its first warning becomes part of our own line. Call before all else. */
void engine_catch_warnings(void);

/*
 * Loads the programs that this mode attaches, with memory of the sizes in config. 0, or -1 with the reason on stderr.
 * Either way engine_unload() gives back what it holds.
 */
int engine_load(struct engine *engine, const struct engine_config *config, const struct target *target,
		struct attach_mode mode);
void engine_unload(struct engine *engine);

/*
 * From now on and until engine_unload(), engine_state()->executed says whether the server has executed itself anew, and
 * the ring buffer's doorbell rings when it does; and threads that end give their places back. Before anything is
 * attached. 0, or -1 with the reason on stderr: also when it has done that since target_open().
 */
int engine_watch_server(struct engine *engine, const struct target *target);

/*
 * Everything is attached: from now on the probes act, until the server executes itself anew; or not, even as long as
 * they are attached.
 */
void engine_ready(struct engine *engine, bool ready);

/* Shared with BPF, which adds to the counters at any time: read each once. */
volatile struct engine_state *engine_state(struct engine *engine);

/* Sums over the server's threads. Exact once the probes are detached. */
struct engine_hits {
	__u64 main_thread;
	__u64 other_threads;
	__u64 reply_bytes;
};

/* 0, or -1 with the reason on stderr. */
int engine_hits(struct engine *engine, pid_t server, struct engine_hits *hits);

/* Statistics of all threads of the server, of which each may be changing its own. 0, or -1 with the reason on stderr. */
int engine_thread_stats(struct engine *engine, struct thread_stats stats[THREADS_MAX]);

enum engine_end { END_SERVER_LEFT, END_DETACHED, END_PAUSE };

/*
 * Once the probes are detached: replies that were partly written become records (aborted, when the server took its
 * connections with it) or is counted as unfinished. At a pause all connections are forgotten, too: attached anew, the
 * probes take them for new, as at the first attach. 0, or -1 with the reason on stderr.
 */
int engine_sweep(struct engine *engine, enum engine_end why);

#endif
