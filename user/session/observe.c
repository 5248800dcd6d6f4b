/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/session/observe.h"

#include "user/complain.h"
#include "user/debug.h"
#include "user/kernel/engine.h"
#include "user/session/follow.h"
#include "user/kernel/prepare.h"
#include "user/kernel/probes.h"
#include "user/session/run.h"
#include "user/output/stream.h"
#include "user/version.h"
#include "user/session/duty_cycle.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int announce(struct stream *stream, const struct settings *settings, const struct target *target,
		    const struct engine *engine, const char *follows)
{
	char text[LOCATIONS_MAX][PROBE_TEXT];
	const char *probes[LOCATIONS_MAX];
	struct stream_start start = {
		.version = replylog_version,
		.follows = follows[0] ? follows : NULL,
		.server_exe = target->file[FILE_EXECUTABLE].name,
		.server_build_id = target->build_id[0] ? target->build_id : NULL,
		.server_version = target->version,
		.threshold = settings->engine.threshold,
		.tap = tap_name(engine->mode.tap),
		.max_overhead = settings->engine.max_overhead,
		.probe_ns = engine->cost.ns[HIT_PROBE],
		.tracepoint_ns = engine->cost.ns[HIT_TRACEPOINT],
		.probes = probes,
		.n_probes = probes_describe(engine->mode, target, text),
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
	struct successor_key key;
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
static int log_replies(struct engine *engine, const struct settings *settings, const struct target *target,
		       struct stream *stream, struct succession *succession)
{
	struct probe_links links = {};
	struct run run;
	int err = -1, ret = -1;

	if (run_init(&run, engine, target, &links, stream, settings))
		goto cleanup;
	if (engine_watch_server(engine, target) || probes_attach(&links, engine->skel, engine->mode, target))
		goto cleanup;
	/* Who reads the start record may rely on it: what the server does from then on is observed. */
	engine_ready(engine, true);
	run_begin(&run);
	err = announce(stream, settings, target, engine, succession->run_id);
	if (!err) {
		memcpy(succession->run_id, stream->run_id, sizeof(succession->run_id));
		succession->reason = duty_cycle_observe(&run);
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
static int observe_one(const struct settings *settings, const struct server *server, struct succession *succession)
{
	struct attach_mode mode = settings->mode;
	struct sink sink;
	struct engine engine = {};
	struct stream stream;
	struct target target;
	bool restarted;
	int ret = -1;

	succession->reason = STOP_REASONS;
	debug_server(server->pid);
	if (attach_prepare(&target, server->pid, &mode))
		goto cleanup;
	if (settings->follow && successor_learn(&succession->key, server->pid))
		goto cleanup;
	if (engine_load(&engine, &settings->engine, &target, mode))
		goto cleanup;
	sink_init(&sink, STDOUT_FILENO);
	if (stream_init(&stream, &sink, (uint32_t)target.pid)) {
		complain("cannot get random bytes or read the clock: %s", strerror(errno));
		goto cleanup;
	}
	stream.window = settings->engine.max_overhead ? 1 : 0;
	ret = log_replies(&engine, settings, &target, &stream, succession);
cleanup:
	engine_unload(&engine);
	restarted = succession->reason == STOP_SERVER_RESTARTED || target_is_replaced(&target);
	succession->server_left = restarted || target_has_ended(&target);
	successor_may_start(&succession->key, restarted ? server->pid : 0);
	target_close(&target);
	return ret;
}

/* A server that ends while we attach to it is followed like any other. */
static bool goes_on(const struct settings *settings, const struct succession *succession, int ret)
{
	if (!settings->follow || succession->reason == STOP_SIGNAL)
		return false;
	if (!ret)
		return succession->reason == STOP_SERVER_EXITED || succession->reason == STOP_SERVER_RESTARTED;
	return succession->reason == STOP_REASONS && succession->server_left && successor_is_known(&succession->key);
}

int observe(const struct settings *settings, const struct server *first)
{
	struct server server = *first;
	struct succession succession = {};
	int ret;

	successor_init(&succession.key, server.by);
	do {
		if (!server.pid) {
			debug_say("--follow: waiting for the next server");
			server.pid = successor_wait(&succession.key);
		}
		if (server.pid <= 0)
			return server.pid ? stream_failed(-EPIPE) : 0;
		ret = observe_one(settings, &server, &succession);
		server.pid = 0;
	} while (goes_on(settings, &succession, ret));
	return ret;
}
