/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The table of the servers' own plain commands that BPF looks names up in: see bpf/resp/known_name.h. */
#ifndef REPLYLOG_USER_SERVER_KNOWN_NAMES_H
#define REPLYLOG_USER_SERVER_KNOWN_NAMES_H

#include <linux/types.h>

#include "bpf/resp/known_name.h"

/*
 * Fills table with the names of user/server/command_table.h whose replies need no look, and gives the seed that goes
 * with it. 0, or -1 when no seed was found: with a few hundred names that does not happen.
 */
int known_names_fill(__u64 table[KNOWN_NAMES], __u64 *seed);

#endif
