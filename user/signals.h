/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef REPLYLOG_SIGNALS_H
#define REPLYLOG_SIGNALS_H

/*
 * From here on the first SIGINT or SIGTERM asks for an orderly end: signals_fd() becomes readable and stays so. A
 * second one ends the process at once; the kernel then takes the probes away. SIGPIPE is ignored. 0, or -1 with the reason on
 * stderr.
 */
int signals_catch(void);

int signals_fd(void);

#endif
