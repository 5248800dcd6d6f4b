/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The commands that servers have of their own, and what their replies can begin with: user/server/command_table.h. */
#ifndef REPLYLOG_USER_SERVER_COMMANDS_H
#define REPLYLOG_USER_SERVER_COMMANDS_H

#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>

/* resp2, resp3: the first bytes of replies, as bits that only commands.c knows; an error is always one. */
struct command_info {
	const char *name; /* lower case; a subcommand as "config|get" */
	__u16 resp2, resp3;
};

/* The command called name, of len bytes in any case. NULL: a module's, a renamed one, one that later servers have. */
const struct command_info *command_find(const char *name, size_t len);

/* All commands, one after the other, without subcommands: the first when previous is NULL, NULL after the last. */
const struct command_info *command_next(const struct command_info *previous);

/* Has it subcommands, as CONFIG has? */
bool command_has_subcommands(const struct command_info *command);

/* The subcommand called name, of len bytes in any case; NULL when it is not known. */
const struct command_info *command_find_subcommand(const struct command_info *command, const char *name, size_t len);

/* Can a reply to it begin with first_byte? In the protocol's version resp; 0 when that is not known, which is either. */
bool command_can_answer(const struct command_info *command, __u8 first_byte, unsigned int resp);

#endif
