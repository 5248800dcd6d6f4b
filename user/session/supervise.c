/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/session/supervise.h"

#include "user/clock.h"
#include "user/complain.h"
#include "user/session/observe.h"
#include "user/session/signals.h"
#include "user/output/sink.h"
#include "user/output/stream.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* Lines taken from one worker before it is the next one's turn. */
#define LINES_PER_TURN 16

/* Bytes of lines on their way to us, for each worker: with less, a line of full length may be refused. */
#define PENDING_BYTES (16 * STREAM_LINE_MAX)

/* How often --all --follow looks for new servers. */
#define LOOK_MS 1000

/*
 * A worker observes one server and knows nothing of the others: what befalls it, its server or its memory doesn't
 * touch them. Its stdout is a socket that keeps messages apart, so that a line is whole here or isn't here at all,
 * even when the worker is killed.
 */
struct worker {
	pid_t pid; /* 0: ended */
	int lines; /* our end of its stdout, -1 when closed */
	struct server server;
	int server_fd; /* a pidfd: the server is not observed a second time as long as it lives; or -1 */
};

struct supervisor {
	const struct settings *settings;
	const struct selector *all; /* NULL: no other servers are looked for */
	struct worker workers[SERVERS_MAX];
	size_t n;
	struct sink sink;
	bool ending; /* all workers were told */
	int status;
};

static int be_worker(struct supervisor *s, const struct server *server, int lines, const sigset_t *mask)
{
	struct settings settings = *s->settings;
	size_t i;

	for (i = 0; i < s->n; i++)
		if (s->workers[i].lines >= 0)
			close(s->workers[i].lines);
	/* With --all the supervisor finds what takes a server's place. */
	if (server->by->kind == SELECT_ALL)
		settings.follow = false;
	if (dup2(lines, STDOUT_FILENO) < 0)
		return complain("stdout: %s", strerror(errno));
	close(lines);
	if (signals_catch_in_worker() || sigprocmask(SIG_SETMASK, mask, NULL))
		return -1;
	return observe(&settings, server);
}

/* The signals wait until it is clear whose they are. */
static int start_worker(struct supervisor *s, const struct server *server)
{
	struct worker *worker = &s->workers[s->n];
	int ends[2], size = PENDING_BYTES;
	sigset_t all, before;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends))
		return complain("-p %d: cannot create a socket for the lines of this server: %s", server->pid,
				strerror(errno));
	setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &before);
	worker->server = *server;
	worker->server_fd = server->pid ? (int)syscall(SYS_pidfd_open, server->pid, 0) : -1;
	worker->pid = fork();
	if (!worker->pid) {
		close(ends[0]);
		_exit(be_worker(s, server, ends[1], &before) ? EXIT_FAILURE : EXIT_SUCCESS);
	}
	sigprocmask(SIG_SETMASK, &before, NULL);
	close(ends[1]);
	worker->lines = ends[0];
	if (worker->pid < 0) {
		close(ends[0]);
		return complain("-p %d: cannot start a process to observe this server: %s", server->pid, strerror(errno));
	}
	s->n++;
	return 0;
}

static const char *name_of(const struct worker *worker, char text[SELECTOR_TEXT])
{
	struct selector pid = { .kind = SELECT_PID, .pid = worker->server.pid };

	return selector_describe(worker->server.pid ? &pid : worker->server.by, text);
}

/* Nothing more comes from it. */
static void reap(struct supervisor *s, struct worker *worker)
{
	char text[SELECTOR_TEXT];
	int status = 0;

	close(worker->lines);
	worker->lines = -1;
	while (waitpid(worker->pid, &status, 0) < 0 && errno == EINTR)
		;
	worker->pid = 0;
	if (WIFSIGNALED(status))
		complain(
			"%s: the process that observed this server was killed by signal %d: the records it had not written are lost",
			name_of(worker, text), WTERMSIG(status));
	if (status)
		s->status = -1;
	/* A worker ends well when its server has left, and one that executed itself anew may come back under its pid. */
	if (!status && worker->server_fd >= 0) {
		close(worker->server_fd);
		worker->server_fd = -1;
	}
}

static void end_all(struct supervisor *s)
{
	size_t i;

	if (s->ending)
		return;
	s->ending = true;
	for (i = 0; i < s->n; i++)
		if (s->workers[i].pid)
			kill(s->workers[i].pid, SIGTERM);
}

static void stdout_failed(struct supervisor *s, int err)
{
	complain("stdout: %s", strerror(-err));
	s->sink.err = err; /* workers' lines are taken, so that they can end, and go nowhere */
	s->status = -1;
	end_all(s);
}

/* Some of what a worker has written; no more than its turn. */
static void take_lines(struct supervisor *s, struct worker *worker)
{
	char line[STREAM_LINE_MAX];
	int i;

	for (i = 0; i < LINES_PER_TURN; i++) {
		ssize_t len = recv(worker->lines, line, sizeof(line), MSG_DONTWAIT);

		if (len < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (len <= 0) {
			reap(s, worker);
			return;
		}
		if (!s->sink.err && sink_write(&s->sink, line, (size_t)len))
			stdout_failed(s, s->sink.err);
	}
}

/* Of a worker that has ended, its server is remembered while that lives. */
static bool is_done(const struct worker *worker)
{
	struct pollfd fd = { .fd = worker->server_fd, .events = POLLIN };

	return !worker->pid && (worker->server_fd < 0 || poll(&fd, 1, 0) != 0);
}

static void forget_done(struct supervisor *s)
{
	size_t i, kept = 0;

	for (i = 0; i < s->n; i++) {
		if (!is_done(&s->workers[i]))
			s->workers[kept++] = s->workers[i];
		else if (s->workers[i].server_fd >= 0)
			close(s->workers[i].server_fd);
	}
	s->n = kept;
}

static bool is_observed(const struct supervisor *s, pid_t pid)
{
	size_t i;

	for (i = 0; i < s->n; i++)
		if (s->workers[i].server.pid == pid)
			return true;
	return false;
}

static void look_for_more(struct supervisor *s)
{
	pid_t pids[SERVERS_MAX];
	size_t i, n;

	forget_done(s);
	n = discover_listening(selector_matches, s->all, pids, SERVERS_MAX);
	for (i = 0; i < n && i < SERVERS_MAX && s->n < SERVERS_MAX; i++) {
		struct server server = { pids[i], s->all };

		if (!is_observed(s, pids[i]) && start_worker(s, &server))
			s->status = -1;
	}
}

static bool any_runs(const struct supervisor *s)
{
	size_t i;

	for (i = 0; i < s->n; i++)
		if (s->workers[i].pid)
			return true;
	return false;
}

enum { WATCH_SIGNALS, WATCH_STDOUT, WATCH_WORKERS };

/* One wait, and what came of it. */
static void turn(struct supervisor *s, int timeout_ms)
{
	struct pollfd fds[WATCH_WORKERS + SERVERS_MAX];
	size_t i, n = s->n;

	/* What has told us once needn't be watched; poll passes over -1. */
	fds[WATCH_SIGNALS] = (struct pollfd){ .fd = s->ending ? -1 : signals_fd(), .events = POLLIN };
	fds[WATCH_STDOUT] = (struct pollfd){ .fd = s->sink.err ? -1 : s->sink.fd };
	for (i = 0; i < n; i++)
		fds[WATCH_WORKERS + i] = (struct pollfd){ .fd = s->workers[i].lines, .events = POLLIN };
	if (poll(fds, WATCH_WORKERS + n, timeout_ms) <= 0)
		return;
	if (fds[WATCH_STDOUT].revents & (POLLERR | POLLHUP | POLLNVAL))
		stdout_failed(s, -EPIPE);
	if (fds[WATCH_SIGNALS].revents)
		end_all(s);
	for (i = 0; i < n; i++)
		if (fds[WATCH_WORKERS + i].revents)
			take_lines(s, &s->workers[i]);
}

int supervise(const struct settings *settings, const struct servers *servers, const struct selector *all)
{
	static struct supervisor s;
	int64_t next_look = monotonic_ms() + LOOK_MS;
	size_t i;

	s.settings = settings;
	s.all = all;
	sink_init(&s.sink, STDOUT_FILENO);
	for (i = 0; i < servers->n; i++)
		if (start_worker(&s, &servers->server[i]))
			s.status = -1;
	while (any_runs(&s) || (s.all && !s.ending)) {
		int64_t wait = next_look - monotonic_ms();

		turn(&s, s.all ? (wait > 0 ? (int)wait : 0) : -1);
		if (!s.all || s.ending || monotonic_ms() < next_look)
			continue;
		look_for_more(&s);
		next_look = monotonic_ms() + LOOK_MS;
	}
	return s.status;
}
