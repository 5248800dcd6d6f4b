/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/session/reply_fits.h"

#include "user/server/commands.h"

/* The argument as a whole: what was cut off may be any name. */
static bool is_whole(const struct argv_arg *arg)
{
	return arg->len >= arg->true_len;
}

static const struct command_info *find_whole(const struct argv *a)
{
	const struct command_info *command;

	if (!a->n || !is_whole(&a->arg[0]))
		return NULL;
	command = command_find(a->arg[0].bytes, a->arg[0].len);
	if (!command || a->n < 2 || !command_has_subcommands(command))
		return command;
	return is_whole(&a->arg[1]) ? command_find_subcommand(command, a->arg[1].bytes, a->arg[1].len) : NULL;
}

bool reply_fits_command(const struct argv *a, __u8 first_byte, unsigned int resp)
{
	const struct command_info *command = find_whole(a);

	return !command || command_can_answer(command, first_byte, resp);
}
