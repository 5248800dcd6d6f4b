/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef REPLYLOG_USER_SESSION_SIGNALS_H
#define REPLYLOG_USER_SESSION_SIGNALS_H

/*
 * From here on the first SIGINT or SIGTERM asks for an orderly end: signals_fd() becomes readable and stays so. A
 * second one ends the process at once; the kernel then takes the probes away. SIGPIPE is ignored. 0, or -1 with the
 * reason on stderr.
 */
int signals_catch(void);

/*
 * The same in a child forked for one of several servers, with a descriptor of its own. Here further signals do
 * nothing: the child may get each one twice, from its parent and as member of a group, and what ends it at once is
 * its parent's end.
 */
int signals_catch_in_worker(void);

int signals_fd(void);

#endif
