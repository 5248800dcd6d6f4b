/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "observe.h"

#include "complain.h"
#include "engine.h"
#include "follow.h"
#include "preemption.h"
#include "probes.h"
#include "run.h"
#include "stream.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

/* With the socket tap only TLS and --dispatch have return probes. */
static bool has_return_probes(const struct target *target, struct way way)
{
	return way.tap == TAP_CHOICE_CONNECTION || way.dispatch || target->layer[CONN_TLS].sites.site[SITE_READ].present;
}

static int check_return_probes(const struct target *target, struct way way)
{
	struct utsname kernel;

	uname(&kernel);
	if (!has_return_probes(target, way) || !target->seccomp_filter ||
	    !kernel_uretprobe_kills_seccomp(kernel.release, kernel.machine))
		return 0;
	return complain("-p %d runs under a seccomp filter, and on Linux %s a return probe would kill it "
			"(fixed in 6.12.14 and 6.13.3): upgrade the kernel, or run the server without the filter",
			target->pid, kernel.release);
}

/*
 * Why the socket tap can't be used, NULL when it can. It finds a server's connection by its fd, and learns from the
 * accept function that one begins.
 */
static const char *no_socket_tap(const struct target *target)
{
	const struct conn_sites *sites = &target->layer[CONN_SOCKET].sites;

	if (sites->fd_offset < 0 || !sites->site[SITE_ACCEPT].present)
		return "the server's accept function, or its connections' fd, was not found";
	if (!tracepoints_run_undisturbed())
		return "this kernel preempts tracepoints, and would skip some";
	return NULL;
}

/* Where the socket tap can't be used the connection tap can. */
static int check_tap(const struct target *target, struct way *way, enum tap_choice asked)
{
	const char *why = way->tap == TAP_CHOICE_SOCKET ? no_socket_tap(target) : NULL;

	if (!why)
		return 0;
	if (asked == TAP_CHOICE_SOCKET)
		return complain("--tap socket: -p %d: %s: use auto", target->pid, why);
	way->tap = TAP_CHOICE_CONNECTION;
	return 0;
}

/* --dispatch needs the function, and to know struct client: no layout, no guess. */
static int check_dispatch(const struct target *target, struct way way)
{
	if (!way.dispatch)
		return 0;
	if (!target->dispatch.site[DISPATCH_CALL].present)
		return complain("--dispatch: -p %d: %s: leave it out", target->pid, target->no_dispatch);
	if (!target->layout.valid)
		return complain("--dispatch: -p %d: %s: install the server's debug symbols, or leave it out", target->pid,
				target->no_layout);
	return 0;
}

int observe_prepare(struct target *target, pid_t pid, struct way *way)
{
	enum tap_choice asked = way->tap;

	return target_open(target, pid) || kernel_check(way) || check_tap(target, way, asked) ||
	       check_dispatch(target, *way) || check_return_probes(target, *way) ? -1 : 0;
}

static int announce(struct stream *stream, const struct options *options, const struct target *target,
		    struct way way, const char *follows)
{
	char text[PROBES_MAX][PROBE_TEXT];
	const char *probes[PROBES_MAX];
	struct stream_start start = {
		.version = REPLYLOG_VERSION,
		.follows = follows[0] ? follows : NULL,
		.server_exe = target->file[FILE_EXECUTABLE].name,
		.server_build_id = target->build_id[0] ? target->build_id : NULL,
		.server_version = target->version,
		.threshold = options->threshold,
		.tap = tap_name(way.tap),
		.probes = probes,
		.n_probes = probes_describe(way, target, text),
	};
	size_t i;

	for (i = 0; i < start.n_probes; i++)
		probes[i] = text[i];
	return stream_start(stream, &start);
}

static int stream_failed(int err)
{
	if (err == -EBADMSG)
		return complain("a record of the BPF programs is not understood: this is a bug, please report it");
	return complain("stdout: %s", strerror(-err));
}

/* What a run hands on to the next one. */
struct succession {
	struct place place;
	char run_id[33];         /* of the last run that got as far as its start record, "" before */
	enum stop_reason reason; /* of the last run; STOP_REASONS: it had none */
	bool server_ended;
};

/* Attached from first to last line of this function. */
static int log_replies(struct engine *engine, const struct options *options, const struct target *target,
		       struct stream *stream, struct succession *succession)
{
	struct probe_links links = {};
	struct run run;
	int err = -1;

	if (run_init(&run, engine, target, stream))
		goto cleanup;
	if (probes_attach(&links, engine, target))
		goto cleanup;
	/* Who reads the start record may rely on it: what the server does from then on is observed. */
	engine_ready(engine);
	err = announce(stream, options, target, engine->way, succession->run_id);
	if (!err) {
		memcpy(succession->run_id, stream->run_id, sizeof(succession->run_id));
		succession->reason = run_until_stopped(&run);
		err = run.error;
	}
	probes_detach(&links);
	if (succession->reason != STOP_REASONS && run_finish(&run, succession->reason) && !err)
		err = run.error;
	if (err)
		stream_failed(err);
cleanup:
	run_close(&run);
	return err ? -1 : 0;
}

/* Also while it is ending, which takes seconds with much memory to free: then it has no executable any more. */
static bool has_ended(const struct target *target)
{
	struct pollfd fd = { .fd = target->pidfd, .events = POLLIN };
	char path[32], exe;

	snprintf(path, sizeof(path), "/proc/%d/exe", target->pid);
	if (readlink(path, &exe, 1) < 0 && errno == ENOENT)
		return true;
	if (target->pidfd < 0)
		return kill(target->pid, 0) && errno == ESRCH;
	return poll(&fd, 1, 0) > 0;
}

/* One run. What the next server will be known by is found out while this one lives. */
static int observe_one(const struct options *options, const struct server *server, struct succession *succession)
{
	struct way way = { .attach = options->attach, .tap = options->tap, .dispatch = options->dispatch };
	struct sink sink;
	struct engine engine = {};
	struct stream stream;
	struct target target;
	int ret = -1;

	succession->reason = STOP_REASONS;
	if (observe_prepare(&target, server->pid, &way))
		goto cleanup;
	if (options->follow && place_of(&succession->place, server->pid))
		goto cleanup;
	if (engine_load(&engine, options, &target, way))
		goto cleanup;
	sink_init(&sink, STDOUT_FILENO);
	if (stream_init(&stream, &sink, (uint32_t)target.pid)) {
		complain("no random bytes or no clock: %s", strerror(errno));
		goto cleanup;
	}
	ret = log_replies(&engine, options, &target, &stream, succession);
cleanup:
	engine_unload(&engine);
	succession->server_ended = has_ended(&target);
	place_left(&succession->place);
	target_close(&target);
	return ret;
}

/* A server that ends while we attach to it is followed like any other. */
static bool goes_on(const struct options *options, const struct succession *succession, int ret)
{
	if (!options->follow || succession->reason == STOP_SIGNAL)
		return false;
	if (!ret)
		return succession->reason == STOP_SERVER_EXITED;
	return succession->reason == STOP_REASONS && succession->server_ended && place_is_known(&succession->place);
}

int observe(const struct options *options, const struct server *first)
{
	struct server server = *first;
	struct succession succession = {};
	int ret;

	place_unknown(&succession.place, server.by);
	do {
		if (!server.pid)
			server.pid = place_wait(&succession.place);
		if (server.pid <= 0)
			return server.pid ? stream_failed(-EPIPE) : 0;
		ret = observe_one(options, &server, &succession);
		server.pid = 0;
	} while (goes_on(options, &succession, ret));
	return ret;
}
