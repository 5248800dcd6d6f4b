/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/kernel/engine.h"

#include "user/complain.h"
#include "user/debug.h"
#include "user/server/known_names.h"
#include "user/kernel/probes.h"
#include "user/server/quirks.h"
#include "replylog.skel.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* libbpf's first warning: what it says later only follows from that. One line of it is enough. */
static char first_warning[512];

static int keep_warning(enum libbpf_print_level level, const char *format, va_list args)
{
	va_list again;

	va_copy(again, args);
	debug_say_lines("libbpf: ", format, again);
	va_end(again);
	if (level == LIBBPF_WARN && !first_warning[0])
		vsnprintf(first_warning, sizeof(first_warning), format, args);
	return 0;
}

void engine_catch_warnings(void)
{
	libbpf_set_print(keep_warning);
}

static void configure(struct replylog_bpf *skel, const struct engine_config *config, const struct target *target,
		      struct attach_mode mode, const struct probe_cost *cost)
{
	__u32 blocks = config->argv_memory / ARGV_BLOCK_BYTES;

	skel->rodata->target_tgid = target->pid;
	skel->rodata->threshold = config->threshold;
	skel->rodata->max_pipeline = config->max_pipeline;
	skel->rodata->fd_offset = target->layer[CONN_SOCKET].sites.fd_offset;
	skel->rodata->plain_read = target_function(target, CONN_SOCKET, SITE_READ);
	skel->rodata->auth_is_silent = quirk_auth_is_silent(target->version);
	skel->rodata->blank_lines_confuse = quirk_blank_lines_confuse(target->version);
	skel->rodata->cluster_read = target->cluster_read;
	skel->rodata->not_in_cluster = target->cluster == CLUSTER_NO;
	skel->rodata->debug = config->debug;
	bpf_map__set_autocreate(skel->maps.debug_ring, config->debug);
	skel->rodata->probe_dispatch = mode.dispatch;
	skel->rodata->argv_at_dispatch = mode.argv;
	skel->rodata->client_span = layout_span(&target->layout);
	skel->rodata->measure_overhead = config->max_overhead;
	memcpy((void *)skel->rodata->hit_ns, cost->ns, sizeof(cost->ns));
	memcpy((void *)&skel->rodata->client_layout, &target->layout, sizeof(target->layout));
	bpf_map__set_max_entries(skel->maps.connections, config->max_clients);
	bpf_map__set_max_entries(skel->maps.connection_numbers, config->max_clients);
	bpf_map__set_max_entries(skel->maps.free_connections, config->max_clients);
	if (mode.dispatch) {
		bpf_map__set_max_entries(skel->maps.dispatch_logs, config->max_clients);
		bpf_map__set_max_entries(skel->maps.dispatch_numbers, config->max_clients);
		bpf_map__set_max_entries(skel->maps.dispatch_stacks, THREADS_MAX);
	}
	if (mode.argv) {
		bpf_map__set_max_entries(skel->maps.dispatch_heads, config->max_clients);
		bpf_map__set_max_entries(skel->maps.head_works, THREADS_MAX);
	}
	bpf_map__set_max_entries(skel->maps.blocks, blocks);
	bpf_map__set_max_entries(skel->maps.free_blocks, blocks);
	bpf_map__set_max_entries(skel->maps.ring, config->ring_size);
}

/* Everything is free at first; what is given out last is taken first. */
static int fill(const struct bpf_map *free_numbers)
{
	__u32 number = bpf_map__max_entries(free_numbers);

	while (number--)
		if (bpf_map_update_elem(bpf_map__fd(free_numbers), NULL, &number, BPF_ANY))
			return complain("cannot fill the BPF map %s: %s", bpf_map__name(free_numbers), strerror(errno));
	return 0;
}

/* What a probe costs, for --max-overhead. 0, or -1 with the reason on stderr. */
static int measure_cost(struct probe_cost *cost, const struct target *target, struct attach_mode mode)
{
	const char *step;
	int err = probe_cost_measure(cost, target, mode, &step);

	return err ? complain("--max-overhead: cannot measure what a probe costs: %s: %s", step, strerror(-err)) : 0;
}

/* BPF_LOG_LEVEL1 | BPF_LOG_STATS (include/linux/bpf_verifier.h): where the verifier gets to, and what that takes. */
#define VERIFIER_LOG 5

int engine_load(struct engine *engine, const struct engine_config *config, const struct target *target,
		struct attach_mode mode)
{
	LIBBPF_OPTS(bpf_object_open_opts, open, .kernel_log_level = config->debug ? VERIFIER_LOG : 0);
	struct probe_list list;
	int err;

	engine->mode = mode;
	if (config->max_overhead && measure_cost(&engine->cost, target, mode))
		return -1;
	engine->skel = replylog_bpf__open_opts(&open);
	if (!engine->skel)
		return complain("cannot open the BPF programs: %s: %s", strerror(errno), first_warning);
	configure(engine->skel, config, target, mode, &engine->cost);
	if (known_names_fill((__u64 *)engine->skel->rodata->known_names, (__u64 *)&engine->skel->rodata->known_names_seed))
		return complain(
			"cannot build the hash table of the servers' command names: this is a bug, please report it");
	probes_list(mode, &list);
	probes_choose_programs(engine->skel, mode, &list);
	bpf_program__set_autoload(engine->skel->progs.server_executes, true);
	bpf_program__set_autoload(engine->skel->progs.thread_exits, true);
	err = replylog_bpf__load(engine->skel);
	if (err == -ENOMEM)
		return complain("not enough memory for the BPF maps: lower --max-clients, --argv-memory or --ring-size");
	if (err)
		return complain("the kernel refused the BPF programs: %s: %s", strerror(-err), first_warning);
	return fill(engine->skel->maps.free_blocks) || fill(engine->skel->maps.free_connections) ? -1 : 0;
}

static struct bpf_link *watch(const struct bpf_program *program, const char *tracepoint)
{
	struct bpf_link *link = bpf_program__attach_raw_tracepoint(program, tracepoint);

	if (!link)
		complain("cannot attach %s to the tracepoint %s: %s", bpf_program__name(program), tracepoint,
			 strerror(errno));
	return link;
}

int engine_watch_server(struct engine *engine, const struct target *target)
{
	engine->watch = watch(engine->skel->progs.server_executes, "sched_process_exec");
	engine->exits = watch(engine->skel->progs.thread_exits, "sched_process_exit");
	if (!engine->watch || !engine->exits)
		return -1;
	/* What it executes from here on is seen by the program; what it has executed since it was looked at, here. */
	if (target_is_replaced(target))
		return complain("-p %d: the server restarted itself while replylog was attaching: try again", target->pid);
	return 0;
}

void engine_unload(struct engine *engine)
{
	bpf_link__destroy(engine->watch);
	bpf_link__destroy(engine->exits);
	engine->watch = engine->exits = NULL;
	replylog_bpf__destroy(engine->skel);
	engine->skel = NULL;
}

void engine_ready(struct engine *engine, bool ready)
{
	struct engine_state *state = &engine->skel->bss->engine;

	/* If the server executes itself at this moment, either we see it or its ready = 0 comes after ours. */
	__atomic_store_n(&state->ready, ready, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&state->executed, __ATOMIC_SEQ_CST))
		__atomic_store_n(&state->ready, 0, __ATOMIC_SEQ_CST);
}

volatile struct engine_state *engine_state(struct engine *engine)
{
	return &engine->skel->bss->engine;
}

int engine_thread_stats(struct engine *engine, struct thread_stats stats[THREADS_MAX])
{
	__u32 slots[THREADS_MAX], next, count = THREADS_MAX;

	if (bpf_map_lookup_batch(bpf_map__fd(engine->skel->maps.thread_stats), NULL, &next, slots, stats, &count, NULL) &&
	    errno != ENOENT) /* that was the last of them */
		return complain("cannot read the counters of the server's threads: %s", strerror(errno));
	return 0;
}

int engine_hits(struct engine *engine, pid_t server, struct engine_hits *hits)
{
	struct thread_stats stats[THREADS_MAX];
	int err = engine_thread_stats(engine, stats);

	memset(hits, 0, sizeof(*hits));
	hits->other_threads = engine_state(engine)->hits_gone;
	for (int i = 0; !err && i < THREADS_MAX; i++) {
		if (stats[i].tid == (__u32)server)
			hits->main_thread += stats[i].hits;
		else
			hits->other_threads += stats[i].hits;
		hits->reply_bytes += stats[i].reply_bytes;
	}
	return err;
}

/* Nothing else runs on our CPU meanwhile, so that is not for long. */
#define SWEPT_AT_ONCE 4096

static int run_program(const struct bpf_program *program, struct sweep *sweep)
{
	LIBBPF_OPTS(bpf_test_run_opts, run, .ctx_in = sweep, .ctx_size_in = sizeof(*sweep));

	if (bpf_prog_test_run_opts(bpf_program__fd(program), &run))
		return complain("cannot run %s over all connections: %s", bpf_program__name(program), strerror(errno));
	return 0;
}

int engine_sweep(struct engine *engine, enum engine_end why)
{
	__u32 max_clients = bpf_map__max_entries(engine->skel->maps.connections);
	struct sweep sweep = {
		.count = SWEPT_AT_ONCE,
		.server_exited = why == END_SERVER_LEFT,
		.forget = why == END_PAUSE,
	};

	for (; sweep.from < max_clients; sweep.from += SWEPT_AT_ONCE)
		if (run_program(engine->skel->progs.sweep_connections, &sweep))
			return -1;
	return sweep.forget ? run_program(engine->skel->progs.forget_calls, &sweep) : 0;
}
