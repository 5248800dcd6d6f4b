/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The commands that servers have of their own, and what their replies can begin with: user/server/command_table.h. */
#ifndef REPLYLOG_USER_SERVER_COMMANDS_H
#define REPLYLOG_USER_SERVER_COMMANDS_H

#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>

#include "user/output/argv.h"

/* resp2, resp3: the first bytes of replies, as bits that only commands.c knows; an error is always one. */
struct command_info {
	const char *name; /* lower case; a subcommand as "config|get" */
	__u16 resp2, resp3;
};

/* The command called name, of len bytes in any case. NULL: a module's, a renamed one, one that later servers have. */
const struct command_info *command_find(const char *name, size_t len);

/* All commands, one after the other, without subcommands: the first when previous is NULL, NULL after the last. */
const struct command_info *command_next(const struct command_info *previous);

/*
 * Can a reply to a that begins with first_byte be one? In the protocol's version resp; 0 when it is not known, which is
 * either. True for commands that are not known. Inside a transaction a command is answered with +QUEUED: that is the
 * caller's to know, and so is CLIENT REPLY.
 */
bool command_reply_fits(const struct argv *a, __u8 first_byte, unsigned int resp);

#endif
