/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef REPLYLOG_USER_CODE_DEBUGINFOD_H
#define REPLYLOG_USER_CODE_DEBUGINFOD_H

/*
 * Asks the debuginfod servers in DEBUGINFOD_URLS for the debug information of the file with that build id, in
 * hexadecimal. A file descriptor that is the caller's to close, or a negative errno: -ENOENT when no server is configured
 * or none has it, -ENOSYS when libdebuginfod is not on this machine, -ETIME and others as libdebuginfod has them.
 *
 * Takes the network's time, at most DEBUGINFOD_MAXTIME seconds in all and DEBUGINFOD_TIMEOUT seconds without progress;
 * unless they are set, the ones below. What was downloaded is kept in libdebuginfod's cache (debuginfod_find_debuginfo(3)).
 */
int debuginfod_open(const char *build_id);

#define DEBUGINFOD_MAXTIME_S "60"
#define DEBUGINFOD_TIMEOUT_S "10"

#endif
