/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/kernel/probe_cost.h"

#include "user/clock.h"
#include "user/kernel/self_probe.h"
#include "user/kernel/probes.h"
#include "replylog.skel.h"

#include <bpf/libbpf.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/*
 * Called as write(connection, buffer, length) of the connection layer is. Nothing was written, they say: so that the
 * program at the return has nothing to do. The first instruction of one is emulated by all kernels, that of the other
 * by none (shared facts: docs/COST.md).
 */
int hit_emulated(const void *connection, const void *buffer, unsigned long length);
int hit_stepped(const void *connection, const void *buffer, unsigned long length);

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

FUNCTION(hit_emulated, EMULATED);
FUNCTION(hit_stepped, STEPPED);

/* The least of so many batches is the one least interrupted. */
#define BATCHES 32
#define BATCH 256

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

static void send_byte(const struct work_load *load)
{
	char byte = 0;

	if (write(load->pair[0], &byte, 1) == 1 && read(load->pair[1], &byte, 1) < 0)
		byte = 0;
}

static __u64 time_once(const struct work_load *load)
{
	__u64 best = ~0ULL, begin, took;

	for (int batch = 0; batch < BATCHES; batch++) {
		begin = monotonic_ns();
		for (int i = 0; i < BATCH; i++)
			load->once(load);
		took = monotonic_ns() - begin;
		best = took < best ? took : best;
	}
	return best / BATCH;
}

/* The programs that this mode attaches to the server's write function. */
static void list_write(struct attach_mode mode, struct probe_list *list)
{
	struct probe_list all;

	probes_list(mode, &all);
	list->n = 0;
	for (size_t i = 0; i < all.n; i++)
		if (all.probe[i].site == SITE_WRITE && !all.probe[i].tracepoint && all.probe[i].types != FOR_DISPATCH)
			list->probe[list->n++] = all.probe[i];
}

static struct replylog_bpf *load(struct attach_mode mode, const struct probe_list *list)
{
	struct replylog_bpf *skel = replylog_bpf__open();
	int err;

	if (!skel)
		return NULL;
	skel->rodata->target_tgid = getpid();
	probes_choose_programs(skel, mode, list);
	bpf_program__set_autoload(skel->progs.sweep_connections, false);
	bpf_program__set_autoload(skel->progs.forget_calls, false);
	bpf_program__set_autoload(skel->progs.socket_sent, mode.tap == TAP_CHOICE_SOCKET);
	err = replylog_bpf__load(skel);
	if (!err)
		return skel;
	replylog_bpf__destroy(skel);
	errno = -err;
	return NULL;
}

static int measure_probe(struct replylog_bpf *skel, struct attach_mode mode, const struct probe_list *list, bool stepped,
			 __u32 *cost)
{
	struct work_load load = { .once = call_function, .function = stepped ? hit_stepped : hit_emulated };
	struct probe_process self = { .pid = getpid(), .thread = getpid() };
	struct probe_links links = {};
	struct uprobe_locations locations;
	__u64 bare = time_once(&load), probed;

	self_probe_location((uintptr_t)load.function, &locations);
	for (size_t i = 0; i < list->n; i++) {
		struct bpf_program *program = bpf_object__find_program_by_name(skel->obj, list->probe[i].program);
		int err = probes_attach_locations(&links, mode.attach, &list->probe[i], program, SELF_EXECUTABLE, &locations,
						  &self);

		if (err) {
			probes_detach(&links);
			return err;
		}
	}
	skel->bss->engine.ready = 1;
	probed = time_once(&load);
	skel->bss->engine.ready = 0;
	probes_detach(&links);
	*cost = probed > bare ? probed - bare : 0;
	return 0;
}

/* With the engine not ready: what the program does beyond, it measures itself. */
static int measure_tracepoint(struct replylog_bpf *skel, __u32 *cost)
{
	struct work_load load = { .once = send_byte };
	struct bpf_link *link;
	__u64 bare, traced;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, load.pair))
		return -errno;
	bare = time_once(&load);
	link = bpf_program__attach_raw_tracepoint(skel->progs.socket_sent, "sock_send_length");
	traced = link ? time_once(&load) : 0;
	bpf_link__destroy(link);
	close(load.pair[0]);
	close(load.pair[1]);
	*cost = traced > bare ? traced - bare : 0;
	return link ? 0 : -errno;
}

bool probe_cost_is_stepped(const struct target *target)
{
	for (int type = 0; type < CONN_TYPES; type++)
		for (int kind = SITE_READ; kind <= SITE_WRITEV; kind++) {
			const struct site *site = &target->layer[type].sites.site[kind];

			if (site->present && !site->emulated)
				return true;
		}
	return false;
}

int probe_cost_measure(struct probe_cost *cost, bool stepped, struct attach_mode mode, const char **step)
{
	struct replylog_bpf *skel;
	struct probe_list list;
	int err;

	list_write(mode, &list);
	*step = "loading the program for it";
	skel = load(mode, &list);
	if (!skel)
		return -errno;
	*step = "attaching a probe to replylog itself";
	err = measure_probe(skel, mode, &list, stepped, &cost->ns[HIT_PROBE]);
	if (!err && mode.tap == TAP_CHOICE_SOCKET)
		err = measure_tracepoint(skel, &cost->ns[HIT_TRACEPOINT]);
	replylog_bpf__destroy(skel);
	return err;
}
