/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* From the ring buffer to the stream, until somebody says stop. */
#ifndef REPLYLOG_RUN_H
#define REPLYLOG_RUN_H

#include "engine.h"
#include "probes.h"
#include "stream.h"
#include "target.h"

struct ring_buffer;

struct run {
	struct engine *engine;
	const struct target *target;
	struct stream *stream;
	struct ring_buffer *ring;
	struct identities identities;
	__u64 drained;               /* records taken from the ring */
	int error;                   /* negative errno of the stream, once it has failed */
	__u64 reported[LOSS_KINDS];  /* losses that are on the stream */
};

/* Prepares for records to come. 0, or -1 with the reason on stderr. */
int run_init(struct run *run, struct engine *engine, const struct target *target, struct stream *stream);
void run_close(struct run *run);

/* Writes replies as they come. Returns why it stopped; STOP_ERROR: run->error says more. */
enum stop_reason run_until_stopped(struct run *run);

/* After the probes are detached: what is still in the ring, then the stop record. 0 or negative errno (run->error). */
int run_finish(struct run *run, enum stop_reason reason);

#endif
