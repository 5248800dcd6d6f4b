/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* From what happens to lines of NDJSON. What the lines promise is docs/SCHEMA.md. */
#ifndef REPLYLOG_USER_OUTPUT_STREAM_H
#define REPLYLOG_USER_OUTPUT_STREAM_H

#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bpf/abi/record.h"
#include "user/output/client_identity.h"
#include "user/output/clock_map.h"
#include "user/output/sink.h"

#define STREAM_SCHEMA 1

/* The longest line, its newline included. */
#define STREAM_LINE_MAX 16384

/* Bytes of each word of the start record that are written; a path may be longer. */
#define STREAM_WORD_MAX 1024

struct stream {
	struct sink *sink;
	const struct client_identities *identities; /* the caller's; NULL: who clients say they are is not known */
	bool modules_ran; /* modules' commands have run: any may have given any client another name */
	struct clock_map clock;
	uint64_t replies;   /* written so far; also the last seq */
	uint64_t ambiguous; /* of these */
	uint64_t dropped;
	uint32_t server_pid; /* on every line */
	uint64_t window;     /* with --max-overhead: the number of the window that replies are from, from 1 on; else 0 */
	uint64_t paused_ns;  /* between windows, all together */
	char run_id[33];
	size_t line_len;
	char line[STREAM_LINE_MAX]; /* the last line, its newline included; not NUL-terminated */
};

/* Strings are NUL-terminated and the caller's; NULL where unknown. */
struct stream_start {
	const char *version;
	const char *follows; /* run_id of the run before, of the same server before its restart */
	const char *server_exe;
	const char *server_build_id;
	const char *server_version;
	uint64_t threshold;    /* bytes */
	const char *tap;       /* "socket" or "connection" */
	uint32_t max_overhead; /* tenths of a percent; 0: no limit, and the next two are not written */
	uint32_t probe_ns;     /* what hits cost on this machine beside what the programs do */
	uint32_t tracepoint_ns;
	const char *const *probes;
	size_t n_probes;
};

enum stop_reason {
	STOP_SIGNAL,           /* "signal": SIGINT or SIGTERM */
	STOP_SERVER_EXITED,    /* "server_exited" */
	STOP_SERVER_RESTARTED, /* "server_restarted": the same process executed itself anew, or another program */
	STOP_ERROR,            /* "error": replylog cannot go on, stderr says why */
	STOP_REASONS,
};

/* What was lost for one reason. */
struct stream_loss {
	uint64_t count;   /* 0: more is known of what was lost before */
	uint64_t replies; /* that were not attributed because of it, as far as it is known */
	uint64_t bytes;   /* the same, in bytes */
};

/* A window ends. */
struct stream_pause {
	uint64_t observed_ns; /* how long it was */
	uint64_t probes_ns;   /* what the probes took of it, of the thread that gave most */
	uint64_t pause_ns;    /* how long nothing will be observed */
};

struct stream_stop {
	enum stop_reason reason;
	uint64_t hits_main;                   /* probe hits on the server's main thread */
	uint64_t hits_io;                     /* and on its other threads */
	uint64_t held;                        /* replies that had to wait for a check */
	uint64_t held_median_us, held_max_us; /* and how long; 0 when none had to */
	uint64_t counter[COUNTERS];
};

/*
 * Prepare s for one run on one server: a run id of its own, the clock map, lines to sink, which stays the caller's
 * and must outlive s. 0, or -errno when the kernel gives no random bytes or no time.
 */
int stream_init(struct stream *s, struct sink *sink, uint32_t server_pid);

/*
 * Each of these writes one line. 0; the negative errno of the sink, after which the stream is over; or
 *
 *   stream_start    -EMSGSIZE  the probes don't fit in a line: nothing is written
 *   stream_reply    -EBADMSG   rec, of size bytes with its head, is no record of ours (shorter than it says,
 *                              or a number that is no name): nothing is written
 *   stream_dropped  -EINVAL    no such reason
 *   stream_stop     -EINVAL    no such reason
 *
 * stream_dropped is to be called before the stream_reply that follows the loss. When nothing was lost it writes nothing.
 */
int stream_start(struct stream *s, const struct stream_start *start);
int stream_reply(struct stream *s, const struct reply_record *rec, size_t size);
int stream_dropped(struct stream *s, enum loss reason, const struct stream_loss *lost);
int stream_stop(struct stream *s, const struct stream_stop *stop);

/* What the stream calls a loss. */
const char *stream_loss_name(enum loss loss);

/*
 * Likewise: the connection that rec is about is out of step, and its replies are in doubt from the next line that is
 * written of it on.
 */
int stream_out_of_step(struct stream *s, const struct reply_record *rec);

/* Likewise. The window ends; and after so many nanoseconds the next one begins. */
int stream_paused(struct stream *s, const struct stream_pause *pause);
int stream_resumed(struct stream *s, uint64_t paused_ns);

#endif
