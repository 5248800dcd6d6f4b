/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/session/run.h"

#include "user/clock.h"
#include "user/complain.h"
#include "user/debug.h"
#include "user/output/debug_line.h"
#include "user/server/quirks.h"
#include "replylog.skel.h"
#include "user/session/signals.h"
#include "user/session/write_alarm.h"

#include <bpf/libbpf.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <string.h>

#define NS_PER_MS 1000000ULL

/* While records keep coming they are fetched this often, and nobody pays for waking us. */
#define LINGER_MS 1

/* At the end, what waits to be proven gets this long. */
#define SETTLE_MS 100

/* Records after which the loop looks up from the ring. */
#define DRAIN_MAX 1024

/*
 * A connection that is lost goes on losing bytes: of that alone the stream is told this often, and before it pauses or
 * ends.
 */
#define MORE_LOST_NS 1000000000ULL

/*
 * What was lost since the stream was last told. Of connections out of step EVENT_CHECKED tells; of those whose record
 * found no room in the ring, this at last.
 */
static struct stream_loss lost_since(struct run *run, enum loss loss, bool all)
{
	volatile struct engine_state *state = engine_state(run->engine);
	const struct stream_loss *reported = &run->reported[loss];

	__u64 told = loss == LOSS_OUT_OF_STEP ? run->confirm.told_by_bpf : 0;

	return (struct stream_loss){
		.count = loss != LOSS_OUT_OF_STEP || all ? state->losses[loss] - told - reported->count : 0,
		.replies = state->lost_replies[loss] - reported->replies,
		.bytes = state->lost_bytes[loss] - reported->bytes,
	};
}

static int report_loss(struct run *run, enum loss loss, const struct stream_loss *lost)
{
	int err = stream_dropped(run->stream, loss, lost);

	if (err)
		return err;
	debug_say("dropped: %s: count %llu, replies %llu, bytes %llu", stream_loss_name(loss),
		  (unsigned long long)lost->count, (unsigned long long)lost->replies, (unsigned long long)lost->bytes);
	run->reported[loss].count += lost->count;
	run->reported[loss].replies += lost->replies;
	run->reported[loss].bytes += lost->bytes;
	run->more_lost_ns = 0;
	return 0;
}

/* An earlier loss gets larger: is it to be told of? That it happened comes first. */
static bool is_time_for_more(struct run *run)
{
	__u64 now = monotonic_ns();

	if (!run->more_lost_ns)
		run->more_lost_ns = now + MORE_LOST_NS;
	return now >= run->more_lost_ns;
}

/* all: also what is only more bytes of an earlier loss. */
static int report_losses(struct run *run, bool all)
{
	int loss, err;

	for (loss = 0; loss < LOSS_KINDS; loss++) {
		struct stream_loss lost = lost_since(run, loss, all);

		if (!lost.count && (!(lost.bytes | lost.replies) || (!all && !is_time_for_more(run))))
			continue;
		err = report_loss(run, loss, &lost);
		if (err)
			return err;
	}
	return 0;
}

/* It has only woken us. */
static int on_doorbell(void *ctx, void *data, size_t size)
{
	return 0;
}

/* --debug: says when events found no room. */
static void report_debug_lost(struct run *run)
{
	__u64 lost = engine_state(run->engine)->debug_lost;

	if (lost != run->debug_lost)
		debug_say("%llu debug events found no room in their buffer and are lost", lost - run->debug_lost);
	run->debug_lost = lost;
}

static int on_debug(void *ctx, void *data, size_t size)
{
	const struct debug_event *event = data;
	char text[DEBUG_LINE_TEXT];
	struct run *run = ctx;

	report_debug_lost(run);
	run->error = debug_line(text, event, size);
	if (run->error)
		return run->error;
	debug_say_at(event->ns, "%s", text);
	return ++run->drained % DRAIN_MAX == 0 ? -EAGAIN : 0;
}

/* After the records: a flood of events must not keep those waiting. */
static int debug_begin(struct run *run)
{
	return debug_on() ? ring_buffer__add(run->ring, bpf_map__fd(run->engine->skel->maps.debug_ring), on_debug, run) : 0;
}

/* Under a load that never ends, neither does ring_buffer__consume(): now and then we look for signals, too. */
static int on_record(void *ctx, void *data, size_t size)
{
	struct run *run = ctx;
	int err;

	err = report_losses(run, false);
	run->stream->modules_ran |= engine_state(run->engine)->modules_ran;
	if (!err)
		err = confirm_take(&run->confirm, data, size, monotonic_ns());
	if (err)
		run->error = err;
	if (!err && ++run->drained % DRAIN_MAX == 0)
		return -EAGAIN;
	return err;
}

static int confirm_begin(struct run *run, const struct settings *settings)
{
	const struct bpf_map *connections = run->engine->skel->maps.connections;
	const struct confirm_setup setup = {
		.stream = run->stream,
		.identities = &run->identities,
		.verify = {
			.layout = &run->target->layout,
			.server = run->target->pid,
			.connections_fd = bpf_map__fd(connections),
			.connections = bpf_map__max_entries(connections),
			.dispatches_fd = settings->mode.dispatch ? bpf_map__fd(run->engine->skel->maps.dispatch_logs) : -1,
			.state = engine_state(run->engine),
		},
		.wait_ns = settings->verify_wait_ms * NS_PER_MS,
	};
	int err = confirm_init(&run->confirm, &setup);

	return err ? complain("cannot read the BPF map of connections: %s", strerror(-err)) : 0;
}

int run_init(struct run *run, struct engine *engine, const struct target *target, struct probe_links *links,
	     struct stream *stream, const struct settings *settings)
{
	memset(run, 0, sizeof(*run));
	governor_init(&run->governor, settings->engine.max_overhead, monotonic_ns());
	run->engine = engine;
	run->target = target;
	run->links = links;
	run->stream = stream;
	if (settings->engine.max_overhead && write_alarm_init())
		return -1;
	if (client_identities_init(&run->identities, bpf_map__max_entries(engine->skel->maps.connections)))
		return complain("not enough memory for the identities of %u clients: lower --max-clients",
				bpf_map__max_entries(engine->skel->maps.connections));
	run->identities.hello_in_parts = quirk_hello_in_parts(target->version);
	stream->identities = &run->identities;
	if (confirm_begin(run, settings))
		return -1;
	run->ring = ring_buffer__new(bpf_map__fd(engine->skel->maps.ring), on_record, run, NULL);
	if (!run->ring || ring_buffer__add(run->ring, bpf_map__fd(engine->skel->maps.doorbell), on_doorbell, run) ||
	    debug_begin(run))
		return complain("cannot open the ring buffer: %s", strerror(errno));
	return 0;
}

void run_close(struct run *run)
{
	write_alarm_stop();
	run->stream->sink->interrupted = NULL;
	ring_buffer__free(run->ring);
	run->ring = NULL;
	confirm_close(&run->confirm);
	client_identities_free(&run->identities);
	run->stream->identities = NULL;
}

/* What is in the ring, or the next records of it. How many, or negative errno. */
static int drain(struct run *run)
{
	__u64 before = run->drained;

	ring_buffer__consume(run->ring);
	return run->error ? run->error : (int)(run->drained - before);
}

/*
 * Asks to be woken, then looks once more: a record that came in between either sees the request or is seen here (the
 * other half is wake_consumer() in bpf/engine/emit.bpf.h).
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
	fds[WATCH_SIGNALS] = (struct pollfd){ .fd = signals_fd(), .events = POLLIN };
	fds[WATCH_SERVER] = (struct pollfd){ .fd = run->target->pidfd, .events = POLLIN };
	/* No events asked for: POLLERR and POLLHUP come unasked when the reader has gone. */
	fds[WATCH_STDOUT] = (struct pollfd){ .fd = run->stream->sink->fd };
}

/* True when it is over, with the reason. */
static bool is_over(struct run *run, const struct pollfd fds[WATCHED], enum stop_reason *reason)
{
	*reason = STOP_ERROR;
	if (run->error)
		return true;
	if (fds[WATCH_STDOUT].revents & (POLLERR | POLLHUP | POLLNVAL)) {
		run->error = -EPIPE;
		return true;
	}
	*reason = STOP_SIGNAL;
	if (fds[WATCH_SIGNALS].revents)
		return true;
	*reason = STOP_SERVER_RESTARTED;
	if (engine_state(run->engine)->executed)
		return true;
	*reason = STOP_SERVER_EXITED;
	return fds[WATCH_SERVER].revents;
}

static __u64 next_sample(const struct run *run)
{
	return run->governor.budget ? run->governor.sampled_ns + governor_interval(&run->governor) : ~0ULL;
}

/* The probes go at once, for the server pays for them. What else there is to a pause is writing, and may take long. */
static void begin_pause(struct run *run, __u64 pause_ns)
{
	write_alarm_stop();
	engine_ready(run->engine, false);
	probes_detach(run->links);
	run->pause_ns = pause_ns;
	run->paused_at_ns = monotonic_ns();
	debug_say("--max-overhead: the probes took %llu us of one thread's time since the last pause: detached for %llu ms",
		  (unsigned long long)(governor_taken(&run->governor) / 1000), pause_ns / NS_PER_MS);
}

/* Has --max-overhead enough? Samples only when it is time to. 0, or -1: it could not. */
static int sample(struct run *run)
{
	struct thread_stats stats[THREADS_MAX];
	__u64 now = monotonic_ns(), pause_ns;

	if (run->pause_ns || now < next_sample(run))
		return 0;
	if (engine_thread_stats(run->engine, stats))
		return -1;
	pause_ns = governor_sample(&run->governor, stats, now);
	if (pause_ns)
		begin_pause(run, pause_ns);
	else
		write_alarm_from(next_sample(run));
	return 0;
}

/* A line waits for stdout. If we can't sample now, the loop will have to. */
static void on_interrupted(void *ctx)
{
	if (sample(ctx))
		write_alarm_stop();
}

void run_begin(struct run *run)
{
	governor_begin(&run->governor, monotonic_ns());
	run->pause_ns = 0;
	if (!run->governor.budget)
		return;
	run->stream->sink->ctx = run;
	run->stream->sink->interrupted = on_interrupted;
	write_alarm_from(next_sample(run));
}

/* True when the window ends, with the reason. A pause that has begun is on the stream before anything else is. */
static bool observation_ends(struct run *run, const struct pollfd fds[WATCHED], enum stop_reason *reason)
{
	if ((run->error || !run->pause_ns) && is_over(run, fds, reason))
		return true;
	*reason = sample(run) ? STOP_ERROR : STOP_REASONS;
	return *reason == STOP_ERROR || run->pause_ns;
}

/* For poll(): until a moment, -1 for ever. The next millisecond, so that it is there when we wake. */
static int until_ms(__u64 when_ns)
{
	__u64 now = monotonic_ns();

	if (when_ns == ~0ULL)
		return -1;
	if (when_ns <= now)
		return 0;
	return when_ns - now >= (__u64)INT_MAX * NS_PER_MS ? INT_MAX : (int)((when_ns - now + NS_PER_MS - 1) / NS_PER_MS);
}

/* When the loop has something to do even if no record comes. */
static __u64 next_task(const struct run *run)
{
	__u64 sample = next_sample(run), held = confirm_next_ns(&run->confirm);

	return sample < held ? sample : held;
}

/* Looks at what waits to be proven. How many records were drained before, or negative errno. */
static int check_held(struct run *run, int records)
{
	int err = run->error ? 0 : confirm_look(&run->confirm, monotonic_ns());

	if (err)
		run->error = err;
	return err ? err : records;
}

/* Before the probes go: what waits still can be proven, but not for long. */
static void settle(struct run *run)
{
	__u64 end = monotonic_ns() + SETTLE_MS * NS_PER_MS;

	while (!run->error && drain(run) >= 0 && confirm_next_ns(&run->confirm) < end && monotonic_ns() < end) {
		poll(NULL, 0, LINGER_MS);
		check_held(run, 0);
	}
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
		if (poll(fds, WATCHED, records ? LINGER_MS : until_ms(next_task(run))) < 0 && errno != EINTR)
			run->error = -errno;
		stay_awake(run);
		clock_map_refresh(&run->stream->clock);
		records = check_held(run, drain(run));
	} while (!observation_ends(run, fds, &reason));
	if (reason == STOP_SIGNAL)
		settle(run);
	return reason;
}

/* Everything that is in the ring and everything that was lost. */
static int take_rest(struct run *run)
{
	run->error = 0; /* of stdout, it is still known to the sink */
	while (drain(run) > 0)
		;
	if (!run->error)
		run->error = confirm_give_up(&run->confirm, monotonic_ns());
	if (!run->error)
		run->error = report_losses(run, true);
	return run->error;
}

int run_pause(struct run *run)
{
	struct stream_pause pause = {
		.observed_ns = run->governor.sampled_ns - run->governor.began_ns,
		.probes_ns = governor_taken(&run->governor),
		.pause_ns = run->pause_ns,
	};

	/* What was known before must not be believed after the pause. */
	if (engine_sweep(run->engine, END_PAUSE))
		return -1;
	if (!take_rest(run))
		run->error = stream_paused(run->stream, &pause);
	return run->error ? -1 : 0;
}

enum stop_reason run_sit_out(struct run *run, __u64 *paused_ns)
{
	struct pollfd fds[WATCHED];
	enum stop_reason reason;

	watch(run, fds);
	do {
		if (poll(fds, WATCHED, until_ms(run->paused_at_ns + run->pause_ns)) < 0 && errno != EINTR)
			run->error = -errno;
		*paused_ns = monotonic_ns() - run->paused_at_ns;
		if (is_over(run, fds, &reason))
			return reason;
	} while (*paused_ns < run->pause_ns);
	clock_map_refresh(&run->stream->clock);
	return STOP_REASONS;
}

static bool server_left(enum stop_reason reason)
{
	return reason == STOP_SERVER_EXITED || reason == STOP_SERVER_RESTARTED;
}

int run_finish(struct run *run, enum stop_reason reason)
{
	struct stream_stop stop = { .reason = reason };
	const struct waits *waits = &run->confirm.waits;
	struct engine_hits hits;
	int counter;

	write_alarm_stop();
	engine_sweep(run->engine, server_left(reason) ? END_SERVER_LEFT : END_DETACHED);
	report_debug_lost(run);
	if (take_rest(run) || engine_hits(run->engine, run->target->pid, &hits))
		return -1;
	stop.hits_main = hits.main_thread;
	stop.hits_io = hits.other_threads;
	stop.held = waits->records;
	stop.held_median_us = waits_median_us(waits);
	stop.held_max_us = waits->max_us;
	for (counter = 0; counter < COUNTERS; counter++)
		stop.counter[counter] = engine_state(run->engine)->counters[counter];
	stop.counter[COUNTER_REPLY_BYTES] += hits.reply_bytes;
	run->error = stream_stop(run->stream, &stop);
	return run->error ? -1 : 0;
}
