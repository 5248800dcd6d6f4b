/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* From the ring buffer to the stream, until somebody says stop. */
#ifndef REPLYLOG_USER_SESSION_RUN_H
#define REPLYLOG_USER_SESSION_RUN_H

#include "user/kernel/engine.h"
#include "user/session/governor.h"
#include "user/session/settings.h"
#include "user/session/confirm.h"
#include "user/kernel/probes.h"
#include "user/output/stream.h"
#include "user/server/target.h"

struct ring_buffer;

struct run {
	struct engine *engine;
	const struct target *target;
	struct stream *stream;
	struct ring_buffer *ring;
	struct client_identities identities;
	struct confirm confirm;
	__u64 drained;                           /* records taken from the ring */
	int error;                               /* negative errno of the stream, once it has failed */
	struct stream_loss reported[LOSS_KINDS]; /* losses that are on the stream */
	__u64 debug_lost;                        /* --debug: events lost, as far as that was said */
	__u64 more_lost_ns;                      /* when the stream may be told again that they got larger */
	struct governor governor;                /* --max-overhead */
	struct probe_links *links;               /* what it takes off */
	__u64 pause_ns;                          /* how long it wants them off, 0: they are on */
	__u64 paused_at_ns;                      /* since when they are off */
};

/*
 * Prepares for records to come. links: of the probes, still to be attached; the caller's. Of settings only
 * --max-overhead, --verify-wait and --dispatch matter. 0, or -1 with the reason on stderr.
 */
int run_init(struct run *run, struct engine *engine, const struct target *target, struct probe_links *links,
	     struct stream *stream, const struct settings *settings);
void run_close(struct run *run);

/*
 * Writes replies as they come. Returns why it stopped; STOP_ERROR: run->error says more, or when that is 0, stderr has.
 * STOP_REASONS: it has not, but --max-overhead wants a pause of run->pause_ns, and the probes are detached. That happens
 * from run_begin() on, also while a line waits for stdout.
 */
enum stop_reason run_until_stopped(struct run *run);

/* The probes act (again). */
void run_begin(struct run *run);

/* A pause has begun: what is still in the ring, and what was lost. 0, or -1: as STOP_ERROR. */
int run_pause(struct run *run);

/*
 * Sits out the rest of the pause, of which *paused_ns are over when it returns: STOP_REASONS when all of it is, or why
 * it is no use to go on.
 */
enum stop_reason run_sit_out(struct run *run, __u64 *paused_ns);

/* After the probes are detached: what is still in the ring, then the stop record. 0, or -1: as STOP_ERROR. */
int run_finish(struct run *run, enum stop_reason reason);

#endif
