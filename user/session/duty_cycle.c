/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/session/duty_cycle.h"

#include "user/debug.h"

/* A server that ends at this moment has ended, whatever we fail at. */
static enum stop_reason failed(const struct run *run)
{
	return !run->error && target_has_ended(run->target) ? STOP_SERVER_EXITED : STOP_ERROR;
}

/* 0, or -1: see duty_cycle_observe(). */
static int begin_observation(struct run *run, __u64 paused_ns)
{
	if (probes_attach(run->links, run->engine->skel, run->engine->mode, run->target))
		return -1;
	engine_ready(run->engine, true);
	run_begin(run);
	debug_say("attached again");
	run->error = stream_resumed(run->stream, paused_ns);
	return run->error ? -1 : 0;
}

enum stop_reason duty_cycle_observe(struct run *run)
{
	enum stop_reason reason = run_until_stopped(run);
	__u64 paused_ns;

	while (reason == STOP_REASONS) {
		if (run_pause(run))
			return STOP_ERROR;
		reason = run_sit_out(run, &paused_ns);
		if (reason != STOP_REASONS) {
			run->stream->paused_ns += paused_ns;
			return reason;
		}
		if (begin_observation(run, paused_ns))
			return failed(run);
		reason = run_until_stopped(run);
	}
	return reason;
}
