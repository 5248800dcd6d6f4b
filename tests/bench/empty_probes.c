/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Empty programs where replylog would have its own, so that only the cost of the probes remains. For scripts/bench.
 *
 *   empty_probes PID PLACE...
 *
 * PLACE is session:OFFSET, enter:OFFSET, return:OFFSET (bytes into the process's binary) or raw_tracepoint:NAME. Writes
 * "ready" when all are attached, and keeps them until its stdin ends.
 */
#include "user/kernel/features.h"
#include "user/kernel/uprobe_link.h"

#include <bpf/bpf.h>
#include <errno.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* "r0 = 0; exit". For a session this also requests a hit on return. */
static const struct bpf_insn empty[] = {
	{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0 },
	{ .code = BPF_JMP | BPF_EXIT },
};

static int load(enum bpf_prog_type type, int attach_type)
{
	LIBBPF_OPTS(bpf_prog_load_opts, opts, .expected_attach_type = attach_type);
	int fd = bpf_prog_load(type, "empty", "GPL", empty, sizeof(empty) / sizeof(empty[0]), &opts);

	return fd < 0 ? -errno : fd;
}

static int attach_uprobe(const char *kind, pid_t pid, const char *exe, uint64_t offset)
{
	bool session = !strcmp(kind, "session");
	int attach_type = session ? ATTACH_TYPE_SESSION : ATTACH_TYPE_MULTI;
	int program = load(BPF_PROG_TYPE_KPROBE, attach_type);

	if (program < 0)
		return program;
	/* As user/kernel/probes.c does it: the pid filter only with sessions. */
	return uprobe_link_create(program, attach_type, exe, offset, !strcmp(kind, "return"), session ? pid : 0);
}

static int attach_raw_tracepoint(const char *name)
{
	int program = load(BPF_PROG_TYPE_RAW_TRACEPOINT, 0), link;

	if (program < 0)
		return program;
	link = bpf_raw_tracepoint_open(name, program);
	return link < 0 ? -errno : link;
}

static int attach(const char *place, pid_t pid, const char *exe)
{
	const char *colon = strchr(place, ':');
	char kind[32];

	if (!colon || colon - place >= (ptrdiff_t)sizeof(kind))
		return -EINVAL;
	snprintf(kind, sizeof(kind), "%.*s", (int)(colon - place), place);
	if (!strcmp(kind, "raw_tracepoint"))
		return attach_raw_tracepoint(colon + 1);
	if (strcmp(kind, "session") && strcmp(kind, "enter") && strcmp(kind, "return"))
		return -EINVAL;
	return attach_uprobe(kind, pid, exe, strtoull(colon + 1, NULL, 0));
}

int main(int argc, char **argv)
{
	char exe[32], unused;
	pid_t pid;
	int i, fd;

	if (argc < 3) {
		fprintf(stderr, "usage: empty_probes PID {session|enter|return}:OFFSET|raw_tracepoint:NAME...\n");
		return 2;
	}
	pid = atoi(argv[1]);
	snprintf(exe, sizeof(exe), "/proc/%d/exe", pid);
	for (i = 2; i < argc; i++) {
		fd = attach(argv[i], pid, exe);
		if (fd < 0) {
			fprintf(stderr, "empty_probes: attaching to %s: %s\n", argv[i], strerror(-fd));
			return 1;
		}
	}
	puts("ready");
	fflush(stdout);
	while (read(STDIN_FILENO, &unused, 1) > 0)
		;
	return 0;
}
