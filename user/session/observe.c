/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/session/observe.h"

#include "user/complain.h"
#include "user/debug.h"
#include "user/kernel/engine.h"
#include "user/session/follow.h"
#include "user/kernel/preemption.h"
#include "user/kernel/probes.h"
#include "user/session/run.h"
#include "user/kernel/seccomp.h"
#include "user/output/stream.h"
#include "user/version.h"
#include "user/session/duty_cycle.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* With the socket tap only TLS and --dispatch have return probes. */
static bool has_return_probes(const struct target *target, struct way way)
{
	return way.tap == TAP_CHOICE_CONNECTION || way.dispatch || target->layer[CONN_TLS].sites.site[SITE_READ].present;
}

static int check_return_probes(const struct target *target, struct way way)
{
	enum filtered_child outcome;
	int err;

	if (!target->seccomp_filter || !has_return_probes(target, way))
		return 0;
	outcome = seccomp_ask(way.attach, &err);
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
static int check_tap(const struct target *target, struct way *way, enum tap_choice asked)
{
	const char *why = way->tap == TAP_CHOICE_SOCKET ? no_socket_tap(target) : NULL;

	if (!why)
		return 0;
	if (asked == TAP_CHOICE_SOCKET)
		return complain("--tap socket: -p %d: %s: use --tap auto", target->pid, why);
	way->tap = TAP_CHOICE_CONNECTION;
	return 0;
}

/* --dispatch needs the function, and to know struct client: no layout, no guess. */
static int check_dispatch(const struct target *target, struct way way)
{
	const char *asked = way.argv ? "--argv-from dispatch" : "--dispatch";

	if (!way.dispatch)
		return 0;
	if (!target->dispatch.site[DISPATCH_CALL].present)
		return complain("%s: -p %d: %s: leave the option out", asked, target->pid, target->no_dispatch);
	if (!target->layout.valid)
		return complain("%s: -p %d: %s: install the server's debug symbols, or leave the option out", asked,
				target->pid, target->no_layout);
	return 0;
}

int observe_prepare(struct target *target, pid_t pid, struct way *way)
{
	enum tap_choice asked = way->tap;

	return target_open(target, pid) || kernel_check(way) || check_tap(target, way, asked) ||
			       check_dispatch(target, *way) || check_return_probes(target, *way)
		       ? -1
		       : 0;
}

static int announce(struct stream *stream, const struct options *options, const struct target *target,
		    const struct engine *engine, const char *follows)
{
	char text[PLACES_MAX][PROBE_TEXT];
	const char *probes[PLACES_MAX];
	struct stream_start start = {
		.version = replylog_version,
		.follows = follows[0] ? follows : NULL,
		.server_exe = target->file[FILE_EXECUTABLE].name,
		.server_build_id = target->build_id[0] ? target->build_id : NULL,
		.server_version = target->version,
		.threshold = options->threshold,
		.tap = tap_name(engine->way.tap),
		.max_overhead = options->max_overhead,
		.probe_ns = engine->cost.ns[HIT_PROBE],
		.tracepoint_ns = engine->cost.ns[HIT_TRACEPOINT],
		.probes = probes,
		.n_probes = probes_describe(engine->way, target, text),
	};
	size_t i;

	for (i = 0; i < start.n_probes; i++) {
		probes[i] = text[i];
		debug_say("attached: %s", text[i]);
	}
	return stream_start(stream, &start);
}

static int stream_failed(int err)
{
	if (err == -EBADMSG)
		return complain("cannot understand a record from the BPF programs: this is a bug, please report it");
	return complain("stdout: %s", strerror(-err));
}

/* What a run hands on to the next one. */
struct succession {
	struct place place;
	char run_id[33];         /* of the last run that got as far as its start record, "" before */
	enum stop_reason reason; /* of the last run; STOP_REASONS: it had none */
	bool server_left;        /* ended, or executed itself anew */
};

static const char *const stop_reasons[] = {
	[STOP_SIGNAL] = "a signal came",
	[STOP_SERVER_EXITED] = "the server has ended",
	[STOP_SERVER_RESTARTED] = "the server has executed itself anew, or another program",
	[STOP_ERROR] = "replylog cannot go on",
	[STOP_REASONS] = "the start record could not be written",
};

/* Attached from first to last line of this function. */
static int log_replies(struct engine *engine, const struct options *options, const struct target *target,
		       struct stream *stream, struct succession *succession)
{
	struct probe_links links = {};
	struct run run;
	int err = -1, ret = -1;

	if (run_init(&run, engine, target, &links, stream, options))
		goto cleanup;
	if (engine_watch_server(engine, target) || probes_attach(&links, engine, target))
		goto cleanup;
	/* Who reads the start record may rely on it: what the server does from then on is observed. */
	engine_ready(engine, true);
	run_begin(&run);
	err = announce(stream, options, target, engine, succession->run_id);
	if (!err) {
		memcpy(succession->run_id, stream->run_id, sizeof(succession->run_id));
		succession->reason = windows_observe(&run);
		err = run.error;
	}
	probes_detach(&links);
	debug_say("detached: %s", stop_reasons[succession->reason]);
	if (succession->reason != STOP_REASONS) {
		ret = run_finish(&run, succession->reason);
		err = err ? err : run.error;
	}
	if (err)
		stream_failed(err);
cleanup:
	run_close(&run);
	return err || succession->reason == STOP_ERROR ? -1 : ret;
}

/* One run. What the next server will be known by is found out while this one lives. */
static int observe_one(const struct options *options, const struct server *server, struct succession *succession)
{
	struct way way = { .attach = options->attach,
			   .tap = options->tap,
			   .dispatch = options->dispatch,
			   .argv = options->argv_from == FROM_DISPATCH };
	struct sink sink;
	struct engine engine = {};
	struct stream stream;
	struct target target;
	bool restarted;
	int ret = -1;

	succession->reason = STOP_REASONS;
	debug_server(server->pid);
	if (observe_prepare(&target, server->pid, &way))
		goto cleanup;
	if (options->follow && place_of(&succession->place, server->pid))
		goto cleanup;
	if (engine_load(&engine, options, &target, way))
		goto cleanup;
	sink_init(&sink, STDOUT_FILENO);
	if (stream_init(&stream, &sink, (uint32_t)target.pid)) {
		complain("cannot get random bytes or read the clock: %s", strerror(errno));
		goto cleanup;
	}
	stream.window = options->max_overhead ? 1 : 0;
	ret = log_replies(&engine, options, &target, &stream, succession);
cleanup:
	engine_unload(&engine);
	restarted = succession->reason == STOP_SERVER_RESTARTED || target_is_replaced(&target);
	succession->server_left = restarted || target_has_ended(&target);
	place_left(&succession->place, restarted ? server->pid : 0);
	target_close(&target);
	return ret;
}

/* A server that ends while we attach to it is followed like any other. */
static bool goes_on(const struct options *options, const struct succession *succession, int ret)
{
	if (!options->follow || succession->reason == STOP_SIGNAL)
		return false;
	if (!ret)
		return succession->reason == STOP_SERVER_EXITED || succession->reason == STOP_SERVER_RESTARTED;
	return succession->reason == STOP_REASONS && succession->server_left && place_is_known(&succession->place);
}

int observe(const struct options *options, const struct server *first)
{
	struct server server = *first;
	struct succession succession = {};
	int ret;

	place_unknown(&succession.place, server.by);
	do {
		if (!server.pid) {
			debug_say("--follow: waiting for the next server");
			server.pid = place_wait(&succession.place);
		}
		if (server.pid <= 0)
			return server.pid ? stream_failed(-EPIPE) : 0;
		ret = observe_one(options, &server, &succession);
		server.pid = 0;
	} while (goes_on(options, &succession, ret));
	return ret;
}
