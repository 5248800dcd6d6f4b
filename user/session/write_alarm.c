/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/session/write_alarm.h"

#include "user/clock.h"
#include "user/complain.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/time.h>

#define INTERVAL_US 10000

static void on_alarm(int signal)
{
}

/* Without SA_RESTART, and not blocked, whatever we were started with. */
int write_alarm_init(void)
{
	struct sigaction action = { .sa_handler = on_alarm };
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	if (sigaction(SIGALRM, &action, NULL) || sigprocmask(SIG_UNBLOCK, &set, NULL))
		return complain("cannot set up signal handling: %s", strerror(errno));
	return 0;
}

void write_alarm_from(uint64_t when_ns)
{
	uint64_t now = monotonic_ns(), us = when_ns > now ? (when_ns - now) / 1000 : 0;
	struct itimerval timer = { .it_interval.tv_usec = INTERVAL_US };

	us += 1; /* no time at all would stop it */
	timer.it_value.tv_sec = (time_t)(us / 1000000);
	timer.it_value.tv_usec = (suseconds_t)(us % 1000000);
	setitimer(ITIMER_REAL, &timer, NULL);
}

void write_alarm_stop(void)
{
	setitimer(ITIMER_REAL, &(struct itimerval){}, NULL);
}
