/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "run.h"

#include "complain.h"
#include "replylog.skel.h"

#include <bpf/libbpf.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* While records keep coming they are fetched this often, and nobody pays for waking us. */
#define LINGER_MS 1

static int report_losses(struct run *run)
{
	volatile struct engine_state *state = engine_state(run->engine);
	int loss, err;

	for (loss = 0; loss < LOSS_KINDS; loss++) {
		__u64 lost = state->losses[loss];

		if (lost == run->reported[loss])
			continue;
		err = stream_dropped(run->stream, loss, lost - run->reported[loss]);
		if (err)
			return err;
		run->reported[loss] = lost;
	}
	return 0;
}

static int on_record(void *ctx, void *data, size_t size)
{
	struct run *run = ctx;
	int err;

	if (!size) /* it has only woken us: wake_consumer() in bpf/emit.bpf.h */
		return 0;
	err = report_losses(run);
	if (!err)
		err = stream_reply(run->stream, data, size);
	if (err)
		run->error = err;
	return err;
}

/* The write end of the pipe that run->signals reads, for the handler. */
static int signal_pipe = -1;

/*
 * A handler and not a signalfd: a write to a reader that has stopped reading can only be ended by a signal that is not
 * blocked. The first signal asks for an orderly end, the second one does not wait for it; the kernel then detaches.
 */
static void on_signal(int signal)
{
	static volatile sig_atomic_t signals;
	int saved = errno;

	(void)signal;
	if (signals++)
		_exit(EXIT_FAILURE);
	if (write(signal_pipe, "", 1) < 0)
		_exit(EXIT_FAILURE);
	errno = saved;
}

static int catch_signals(struct run *run)
{
	struct sigaction action = { .sa_handler = on_signal };
	int fds[2];

	if (pipe2(fds, O_CLOEXEC))
		return -1;
	run->signals = fds[0];
	signal_pipe = fds[1];
	signal(SIGPIPE, SIG_IGN);
	return sigaction(SIGINT, &action, NULL) || sigaction(SIGTERM, &action, NULL) ? -1 : 0;
}

int run_init(struct run *run, struct engine *engine, const struct target *target, struct stream *stream)
{
	memset(run, 0, sizeof(*run));
	run->engine = engine;
	run->target = target;
	run->stream = stream;
	run->signals = -1;
	if (catch_signals(run))
		return complain("signals: %s", strerror(errno));
	run->ring = ring_buffer__new(bpf_map__fd(engine->skel->maps.ring), on_record, run, NULL);
	if (!run->ring)
		return complain("the ring buffer: %s", strerror(errno));
	return 0;
}

void run_close(struct run *run)
{
	ring_buffer__free(run->ring);
	run->ring = NULL;
	if (run->signals > 0)
		close(run->signals);
	run->signals = -1;
}

/* Everything that is in the ring. How many records, or negative errno. */
static int drain(struct run *run)
{
	int records = ring_buffer__consume(run->ring);

	return run->error ? run->error : records;
}

/*
 * Asks to be woken, then looks once more: a record that came in between either sees the request or is seen here (the
 * other half is wake_consumer() in bpf/emit.bpf.h).
 */
static int go_to_sleep(struct run *run)
{
	__atomic_store_n(&run->engine->skel->bss->engine.consumer_sleeps, 1, __ATOMIC_SEQ_CST);
	return drain(run);
}

static void stay_awake(struct run *run)
{
	__atomic_store_n(&run->engine->skel->bss->engine.consumer_sleeps, 0, __ATOMIC_SEQ_CST);
}

enum { WATCH_RING, WATCH_SIGNALS, WATCH_SERVER, WATCH_STDOUT, WATCHED };

static void watch(struct run *run, struct pollfd fds[WATCHED])
{
	fds[WATCH_RING] = (struct pollfd){ .fd = ring_buffer__epoll_fd(run->ring), .events = POLLIN };
	fds[WATCH_SIGNALS] = (struct pollfd){ .fd = run->signals, .events = POLLIN };
	fds[WATCH_SERVER] = (struct pollfd){ .fd = run->target->pidfd, .events = POLLIN };
	/* No events asked for: POLLERR comes unasked when the reader of a pipe has gone. */
	fds[WATCH_STDOUT] = (struct pollfd){ .fd = run->stream->sink->fd };
}

/* True when it is over, with the reason. */
static bool is_over(struct run *run, const struct pollfd fds[WATCHED], enum stop_reason *reason)
{
	*reason = STOP_ERROR;
	if (run->error)
		return true;
	if (fds[WATCH_STDOUT].revents & POLLERR) {
		run->error = -EPIPE;
		return true;
	}
	*reason = STOP_SIGNAL;
	if (fds[WATCH_SIGNALS].revents)
		return true;
	*reason = STOP_SERVER_EXITED;
	return fds[WATCH_SERVER].revents;
}

enum stop_reason run_until_stopped(struct run *run)
{
	struct pollfd fds[WATCHED];
	enum stop_reason reason;
	int records = 0;

	watch(run, fds);
	do {
		if (!records)
			records = go_to_sleep(run);
		if (poll(fds, WATCHED, records ? LINGER_MS : -1) < 0 && errno != EINTR)
			run->error = -errno;
		stay_awake(run);
		if (!records) /* the wall clock may have been set while we slept */
			clock_map_refresh(&run->stream->clock);
		records = drain(run);
	} while (!is_over(run, fds, &reason));
	return reason;
}

int run_finish(struct run *run, enum stop_reason reason)
{
	struct stream_stop stop = { .reason = reason };
	struct engine_hits hits;
	int tally, err;

	err = drain(run);
	if (err >= 0)
		err = report_losses(run);
	if (err < 0)
		return err;
	engine_hits(run->engine, run->target->pid, &hits);
	stop.hits_main = hits.main_thread;
	stop.hits_io = hits.other_threads;
	for (tally = 0; tally < TALLIES; tally++)
		stop.tally[tally] = engine_state(run->engine)->tallies[tally];
	stop.tally[TALLY_UNATTRIBUTED_BYTES] += hits.unattributed_bytes;
	return stream_stop(run->stream, &stop);
}
