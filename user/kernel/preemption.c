/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/kernel/preemption.h"

#include <linux/types.h>

#include "bpf/abi/shared.h"
#include "features.skel.h"

#include <bpf/libbpf.h>
#include <sys/socket.h>
#include <unistd.h>

/* What the program on the tracepoint sees of a byte that we send. */
static enum preemption send_a_byte(struct features_bpf *skel)
{
	struct bpf_link *link = bpf_program__attach_raw_tracepoint(skel->progs.ask_preemption, "sock_send_length");
	int pair[2];

	if (!link)
		return PREEMPTION_UNKNOWN;
	skel->bss->preemption_asker = getpid();
	if (!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) {
		if (send(pair[0], "", 1, MSG_NOSIGNAL) != 1)
			skel->bss->preemption_answer = PREEMPTION_UNKNOWN;
		close(pair[0]);
		close(pair[1]);
	}
	bpf_link__destroy(link);
	return skel->bss->preemption_answer;
}

bool tracepoints_run_undisturbed(void)
{
	struct features_bpf *skel = features_bpf__open();
	enum preemption answer = PREEMPTION_UNKNOWN;

	if (skel)
		bpf_program__set_autoload(skel->progs.ask_preemption, true);
	if (skel && !features_bpf__load(skel))
		answer = send_a_byte(skel);
	features_bpf__destroy(skel);
	return answer == PREEMPTION_OFF;
}
