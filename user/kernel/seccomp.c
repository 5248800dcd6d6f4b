/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/kernel/seccomp.h"

#include <linux/types.h>

#include "user/kernel/features.h"
#include "user/kernel/self_probe.h"
#include "features.skel.h"

#include <bpf/libbpf.h>
#include <errno.h>
#include <unistd.h>

/* What the child calls, with a return probe on it. */
static __attribute__((noinline)) int one_more(int n)
{
	asm volatile("" : "+r"(n));
	return n + 1;
}

_Static_assert(FILTERED_CHILD_RESULT == FILTERED_CHILD_ARGUMENT + 1, "one_more() returns what is expected");

struct asker {
	struct features_bpf *skel;
	enum attach_choice how;
	int link; /* -1: none */
	struct bpf_link *perf;
};

static int attach(pid_t child, void *ctx)
{
	LIBBPF_OPTS(bpf_uprobe_opts, opts, .retprobe = true);
	struct asker *asker = ctx;
	struct bpf_program *program = asker->skel->progs.ask_seccomp;
	struct uprobe_locations location;

	asker->skel->bss->seccomp_child = child;
	self_probe_location((uintptr_t)one_more, &location);
	if (asker->how == ATTACH_PERF) {
		asker->perf = bpf_program__attach_uprobe_opts(program, child, SELF_EXECUTABLE, location.offset[0], &opts);
		return asker->perf ? 0 : -errno;
	}
	/* Other replylogs run this binary, too: in the child only. It has one thread, which any pid filter finds. */
	asker->link = uprobe_link_locations(bpf_program__fd(program), bpf_program__expected_attach_type(program),
					    SELF_EXECUTABLE, &location, asker->how == ATTACH_MULTI, child);
	return asker->link < 0 ? asker->link : 0;
}

static int load(struct asker *asker)
{
	struct bpf_program *program;

	asker->skel = features_bpf__open();
	if (!asker->skel)
		return -errno;
	program = asker->skel->progs.ask_seccomp;
	if (asker->how == ATTACH_SESSION)
		bpf_program__set_expected_attach_type(program, ATTACH_TYPE_SESSION);
	else if (asker->how == ATTACH_MULTI)
		bpf_program__set_expected_attach_type(program, ATTACH_TYPE_MULTI);
	bpf_program__set_autoload(program, true);
	return features_bpf__load(asker->skel);
}

enum filtered_child seccomp_ask(enum attach_choice how, int *err)
{
	struct asker asker = { .how = how, .link = -1 };
	const struct filtered_trial trial = { .function = one_more, .attach = attach, .ctx = &asker };
	enum filtered_child outcome = CHILD_NOT_TRIED;

	*err = -load(&asker);
	if (!*err)
		outcome = filtered_child_try(&trial, err);
	if (outcome == CHILD_SURVIVED && asker.skel->bss->seccomp_hits < (how == ATTACH_SESSION ? 2 : 1)) {
		*err = ENODATA;
		outcome = CHILD_NOT_TRIED;
	}
	bpf_link__destroy(asker.perf);
	if (asker.link >= 0)
		close(asker.link);
	features_bpf__destroy(asker.skel);
	return outcome;
}
