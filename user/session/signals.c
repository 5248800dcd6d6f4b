/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/session/signals.h"

#include "user/clock.h"
#include "user/complain.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/*
 * Signals that follow the first one this fast are the same one: timeout(1) signals its child and then its process
 * group, and a terminal and a supervisor may both pass on a Ctrl-C.
 */
#define SAME_SIGNAL_MS 200

static int pipe_fds[2] = { -1, -1 };
static volatile int64_t first; /* when it came, in ms; 0: it has not */
static bool patient;           /* further signals do nothing */

/*
 * A handler and not a signalfd: a write to a reader that has stopped reading can only be ended by a signal that is not
 * blocked.
 */
static void on_signal(int signal)
{
	int saved = errno;

	if (first && !patient && monotonic_ms() - first >= SAME_SIGNAL_MS)
		_exit(EXIT_FAILURE);
	if (!first) {
		first = monotonic_ms();
		if (write(pipe_fds[1], "", 1) < 0)
			_exit(EXIT_FAILURE);
	}
	errno = saved;
}

int signals_catch(void)
{
	struct sigaction action = { .sa_handler = on_signal };

	signal(SIGPIPE, SIG_IGN);
	if (pipe2(pipe_fds, O_CLOEXEC) || sigaction(SIGINT, &action, NULL) || sigaction(SIGTERM, &action, NULL))
		return complain("cannot set up signal handling: %s", strerror(errno));
	return 0;
}

int signals_catch_in_worker(void)
{
	close(pipe_fds[0]);
	close(pipe_fds[1]);
	first = 0;
	patient = true;
	return signals_catch();
}

int signals_fd(void)
{
	return pipe_fds[0];
}
