/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/kernel/prepare.h"

#include "user/complain.h"
#include "user/kernel/features.h"
#include "user/kernel/preemption.h"
#include "user/kernel/seccomp.h"

#include <stddef.h>
#include <string.h>

/* With the socket tap only TLS and --dispatch have return probes. */
static bool has_return_probes(const struct target *target, struct attach_mode mode)
{
	return mode.tap == TAP_CHOICE_CONNECTION || mode.dispatch || target->layer[CONN_TLS].sites.site[SITE_READ].present;
}

static int check_return_probes(const struct target *target, struct attach_mode mode)
{
	enum filtered_child outcome;
	int err;

	if (!target->seccomp_filter || !has_return_probes(target, mode))
		return 0;
	outcome = seccomp_ask(mode.attach, &err);
	if (outcome == CHILD_SURVIVED)
		return 0;
	if (outcome == CHILD_DIED)
		return complain(
			"-p %d: the server runs under a seccomp filter, and on this kernel a return probe kills such a "
			"process: it killed replylog's own test child (fixed in Linux 6.12.14 and 6.13.3): upgrade "
			"the kernel, or run the server without the filter",
			target->pid);
	return complain(
		"-p %d: the server runs under a seccomp filter, and replylog could not test on a child of its own "
		"whether the server survives a return probe: %s: run replylog as root on the host, or the server without "
		"the filter",
		target->pid, strerror(err));
}

/*
 * Why the socket tap can't be used, NULL when it can. It finds a server's connection by its fd, and learns from the
 * accept function that one begins.
 */
static const char *no_socket_tap(const struct target *target)
{
	const struct conn_sites *sites = &target->layer[CONN_SOCKET].sites;

	if (sites->fd_offset < 0 || !sites->site[SITE_ACCEPT].present)
		return "cannot find the server's accept function or the fd of its connections";
	if (!tracepoints_run_undisturbed())
		return "this kernel preempts programs on tracepoints, and would skip some of their runs";
	return NULL;
}

/* Where the socket tap can't be used the connection tap can. */
static int check_tap(const struct target *target, struct attach_mode *mode, enum tap_choice asked)
{
	const char *why = mode->tap == TAP_CHOICE_SOCKET ? no_socket_tap(target) : NULL;

	if (!why)
		return 0;
	if (asked == TAP_CHOICE_SOCKET)
		return complain("--tap socket: -p %d: %s: use --tap auto", target->pid, why);
	mode->tap = TAP_CHOICE_CONNECTION;
	return 0;
}

/* --dispatch needs the function, and to know struct client: no layout, no guess. */
static int check_dispatch(const struct target *target, struct attach_mode mode)
{
	const char *asked = mode.argv ? "--argv-from dispatch" : "--dispatch";

	if (!mode.dispatch)
		return 0;
	if (!target->dispatch.site[DISPATCH_CALL].present)
		return complain("%s: -p %d: %s: leave the option out", asked, target->pid, target->no_dispatch);
	if (!target->layout.valid)
		return complain("%s: -p %d: %s: install the server's debug symbols, or leave the option out", asked,
				target->pid, target->no_layout);
	return 0;
}

int attach_prepare(struct target *target, pid_t pid, struct attach_mode *mode)
{
	enum tap_choice asked = mode->tap;

	return target_open(target, pid) || kernel_check(mode) || check_tap(target, mode, asked) ||
			       check_dispatch(target, *mode) || check_return_probes(target, *mode)
		       ? -1
		       : 0;
}
