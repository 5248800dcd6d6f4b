/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/kernel/probe_cost.h"

#include "user/kernel/self_probe.h"
#include "user/kernel/probes.h"
#include "replylog.skel.h"

#include <bpf/libbpf.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/*
 * Called as write(connection, buffer, length) of the connection layer is. Nothing was written, they say: so that the
 * program at the return has nothing to do. The first instruction of one is emulated by all kernels, that of the other
 * by none (shared facts: docs/COST.md).
 */
int probed_emulated(const void *connection, const void *buffer, unsigned long length);
int probed_stepped(const void *connection, const void *buffer, unsigned long length);

#if defined(__x86_64__)
#define EMULATED "nop\n\txorl %eax, %eax\n\tret"
#define STEPPED "xorl %eax, %eax\n\tret"
#elif defined(__aarch64__)
#define EMULATED "b 1f\n1:\tmov w0, #0\n\tret"
#define STEPPED "mov w0, #0\n\tret"
#else
#error "which instructions does the kernel emulate here?"
#endif

#define FUNCTION(name, code)                            \
	asm(".pushsection .text\n\t.balign 16\n\t"      \
	    ".hidden " #name "\n\t.globl " #name "\n\t" \
	    ".type " #name ", %function\n" #name ":\n\t" code "\n\t.size " #name ", . - " #name "\n\t.popsection")

FUNCTION(probed_emulated, EMULATED);
FUNCTION(probed_stepped, STEPPED);

/* Short ones: where other processes want the CPU, most of them still run from begin to end undisturbed. */
#define BATCHES 256
#define BATCH 32

/* What is timed. */
struct work_load {
	void (*once)(const struct work_load *load);
	int (*function)(const void *connection, const void *buffer, unsigned long length);
	int pair[2];
};

static void call_function(const struct work_load *load)
{
	load->function(load, NULL, 0);
}

/* No byte: what the socket does with one takes long, and not the same each time. */
static void send_nothing(const struct work_load *load)
{
	send(load->pair[0], "", 0, MSG_NOSIGNAL);
}

/* Not the wall clock: other processes that take the CPU must not count. */
static __u64 thread_cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (__u64)t.tv_sec * 1000000000 + (__u64)t.tv_nsec;
}

static int compare(const void *a, const void *b)
{
	const __u64 *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/* What one call takes, in each batch; the fastest batch first. */
struct batches {
	__u64 ns[BATCHES];
};

static void time_batches(const struct work_load *load, struct batches *batches)
{
	for (int batch = 0; batch < BATCHES; batch++) {
		__u64 begin = thread_cpu_ns();

		for (int i = 0; i < BATCH; i++)
			load->once(load);
		batches->ns[batch] = (thread_cpu_ns() - begin) / BATCH;
	}
	qsort(batches->ns, BATCHES, sizeof(batches->ns[0]), compare);
}

static __u32 difference(__u64 probed, __u64 bare)
{
	return probed > bare ? probed - bare : 0;
}

static void compare_batches(const struct batches *bare, const struct batches *probed, struct probe_timing *timing)
{
	__u64 median = bare->ns[BATCHES / 2];

	timing->least = difference(probed->ns[0], bare->ns[0]);
	timing->low = difference(probed->ns[BATCHES / 4], median);
	timing->median = difference(probed->ns[BATCHES / 2], median);
	timing->high = difference(probed->ns[BATCHES * 3 / 4], median);
}

/* The programs of this mode at one site of plain connections, or of TLS where only those have it. */
static void list_site(struct attach_mode mode, enum site_kind site, struct probe_list *list)
{
	struct probe_list all;

	probes_list(mode, &all);
	list->n = 0;
	for (size_t i = 0; i < all.n; i++)
		if (all.probe[i].site == (int)site && !all.probe[i].tracepoint && all.probe[i].types != FOR_DISPATCH)
			list->probe[list->n++] = all.probe[i];
}

/* What is loaded and attached to measure with. */
struct bench {
	struct replylog_bpf *skel;
	struct attach_mode mode;
	struct probe_list io, entry; /* entry: empty when nobody asks */
};

static int load(struct bench *bench)
{
	struct replylog_bpf *skel = replylog_bpf__open();
	int err;

	if (!skel)
		return -errno;
	skel->rodata->target_tgid = getpid();
	probes_choose_programs(skel, bench->mode, &bench->io);
	probes_choose_programs(skel, bench->mode, &bench->entry);
	bpf_program__set_autoload(skel->progs.sweep_connections, false);
	bpf_program__set_autoload(skel->progs.forget_calls, false);
	bpf_program__set_autoload(skel->progs.socket_sent, bench->mode.tap == TAP_CHOICE_SOCKET);
	err = replylog_bpf__load(skel);
	if (err) {
		replylog_bpf__destroy(skel);
		return err;
	}
	bench->skel = skel;
	return 0;
}

static int attach(const struct bench *bench, const struct probe_list *list, uintptr_t function, struct probe_links *links)
{
	/* Filtered: another replylog that measures at the same time must not be slowed by our breakpoints. */
	struct probe_process self = { .pid = getpid(), .thread = getpid(), .has_one_thread = true };
	struct uprobe_locations locations;

	self_probe_location(function, &locations);
	for (size_t i = 0; i < list->n; i++) {
		struct bpf_program *program = bpf_object__find_program_by_name(bench->skel->obj, list->probe[i].program);
		int err = probes_attach_locations(links, bench->mode.attach, &list->probe[i], program, SELF_EXECUTABLE,
						  &locations, &self);

		if (err)
			return err;
	}
	return 0;
}

static int time_probe(const struct bench *bench, const struct probe_list *list, bool stepped, struct probe_timing *timing)
{
	struct work_load load = { .once = call_function, .function = stepped ? probed_stepped : probed_emulated };
	struct engine_state *state = &bench->skel->bss->engine;
	struct probe_links links = {};
	struct batches bare, probed;
	int err;

	time_batches(&load, &bare);
	err = attach(bench, list, (uintptr_t)load.function, &links);
	if (!err) {
		/* Where it is not ready, a session's program asks for no hit at the return. */
		state->ready = list == &bench->io;
		time_batches(&load, &probed);
		state->ready = 0;
		compare_batches(&bare, &probed, timing);
	}
	probes_detach(&links);
	return err;
}

/* With the engine not ready: what the program does beyond, it measures itself. */
static int time_tracepoint(const struct bench *bench, struct probe_timing *timing)
{
	struct work_load load = { .once = send_nothing };
	struct batches bare, traced;
	struct bpf_link *link;
	int err = 0;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, load.pair))
		return -errno;
	time_batches(&load, &bare);
	link = bpf_program__attach_raw_tracepoint(bench->skel->progs.socket_sent, "sock_send_length");
	if (link) {
		time_batches(&load, &traced);
		compare_batches(&bare, &traced, timing);
	} else {
		err = -errno;
	}
	bpf_link__destroy(link);
	close(load.pair[0]);
	close(load.pair[1]);
	return err;
}

static bool is_stepped(const struct site *site)
{
	return site->present && !site->emulated;
}

static bool layers_step(const struct target *target, enum site_kind first, enum site_kind last)
{
	for (int type = 0; type < CONN_TYPES; type++)
		for (int kind = first; kind <= (int)last; kind++)
			if (is_stepped(&target->layer[type].sites.site[kind]))
				return true;
	return false;
}

static void find_stepped(const struct target *target, bool stepped[PROBE_KINDS])
{
	stepped[PROBE_IO] = layers_step(target, SITE_READ, SITE_WRITEV);
	stepped[PROBE_ENTRY] = layers_step(target, SITE_CLOSE, SITE_ACCEPT);
	stepped[PROBE_DISPATCH] = false;
	stepped[PROBE_TRACEPOINT] = false;
	for (int i = 0; i < DISPATCH_SITES; i++)
		stepped[PROBE_DISPATCH] |= is_stepped(&target->dispatch.site[i]);
}

/* On a command's execution there are the same two hits as on a read or write, with the same attach mode. */
static int time_dispatch(const struct bench *bench, const bool stepped[PROBE_KINDS], struct probe_timing timing[PROBE_KINDS])
{
	if (stepped[PROBE_DISPATCH] != stepped[PROBE_IO])
		return time_probe(bench, &bench->io, stepped[PROBE_DISPATCH], &timing[PROBE_DISPATCH]);
	timing[PROBE_DISPATCH] = timing[PROBE_IO];
	return 0;
}

static int time_all(const struct bench *bench, const bool stepped[PROBE_KINDS], struct probe_timing timing[PROBE_KINDS],
		    const char **step)
{
	int err;

	*step = "attaching a probe to replylog itself";
	err = time_probe(bench, &bench->io, stepped[PROBE_IO], &timing[PROBE_IO]);
	if (!err && bench->entry.n)
		err = time_probe(bench, &bench->entry, stepped[PROBE_ENTRY], &timing[PROBE_ENTRY]);
	if (!err && bench->mode.dispatch)
		err = time_dispatch(bench, stepped, timing);
	if (err || bench->mode.tap != TAP_CHOICE_SOCKET)
		return err;
	*step = "attaching to a tracepoint";
	return time_tracepoint(bench, &timing[PROBE_TRACEPOINT]);
}

static int load_and_time(struct bench *bench, const struct target *target, struct probe_timing timing[PROBE_KINDS],
			 const char **step)
{
	bool stepped[PROBE_KINDS];
	int err;

	find_stepped(target, stepped);
	memset(timing, 0, PROBE_KINDS * sizeof(timing[0]));
	*step = "loading the programs for it";
	err = load(bench);
	if (err)
		return err;
	err = time_all(bench, stepped, timing, step);
	for (int kind = 0; kind < PROBE_KINDS; kind++)
		timing[kind].stepped = stepped[kind];
	replylog_bpf__destroy(bench->skel);
	return err;
}

int probe_cost_time(struct probe_timing timing[PROBE_KINDS], const struct target *target, struct attach_mode mode,
		    const char **step)
{
	struct bench bench = { .mode = mode };

	list_site(mode, SITE_WRITE, &bench.io);
	list_site(mode, SITE_CLOSE, &bench.entry);
	return load_and_time(&bench, target, timing, step);
}

int probe_cost_measure(struct probe_cost *cost, const struct target *target, struct attach_mode mode, const char **step)
{
	struct bench bench = { .mode = mode };
	struct probe_timing timing[PROBE_KINDS];
	int err;

	bench.mode.dispatch = false;
	list_site(bench.mode, SITE_WRITE, &bench.io);
	err = load_and_time(&bench, target, timing, step);
	cost->ns[HIT_PROBE] = timing[PROBE_IO].least;
	cost->ns[HIT_TRACEPOINT] = timing[PROBE_TRACEPOINT].least;
	return err;
}
