/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* --max-overhead: windows in which the server is observed, and pauses in which no probe is there. */
#ifndef REPLYLOG_USER_SESSION_DUTY_CYCLE_H
#define REPLYLOG_USER_SESSION_DUTY_CYCLE_H

#include "user/session/run.h"

/*
 * Observes until it is over, from the first window on, whose probes are attached: run->links, of which any number may
 * be attached at the end. Without a limit there is one window. Returns why it stopped; STOP_ERROR: run->error says
 * more, or when that is 0, stderr has.
 */
enum stop_reason duty_cycle_observe(struct run *run);

#endif
