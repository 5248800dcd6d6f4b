/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/server/known_names.h"

#include <stdbool.h>
#include <string.h>

#include "bpf/resp/command.h"
#include "user/server/commands.h"

/* Seeds to try. With 300 names one in a few thousand leads to no collision. */
#define SEEDS_MAX 10000000

/* The longest name of a command, and room for the words that are loaded from it. */
#define NAME_ROOM 64

static bool insert(__u64 table[KNOWN_NAMES], const struct command_info *command, __u64 seed)
{
	__u8 name[NAME_ROOM] = {};
	size_t len = strnlen(command->name, NAME_ROOM - 16);
	__u64 key, *place;

	memcpy(name, command->name, len);
	if (command_class(name, len) != COMMAND_PLAIN)
		return true;
	key = known_name_key(name, len);
	place = &table[known_name_slot(key, seed)];
	if (*place)
		return false;
	*place = key;
	return true;
}

static bool fill(__u64 table[KNOWN_NAMES], __u64 seed)
{
	const struct command_info *command = NULL;

	memset(table, 0, KNOWN_NAMES * sizeof(table[0]));
	while ((command = command_next(command)))
		if (!insert(table, command, seed))
			return false;
	return true;
}

int known_names_fill(__u64 table[KNOWN_NAMES], __u64 *seed)
{
	for (*seed = 1; *seed < 2 * SEEDS_MAX; *seed += 2)
		if (fill(table, *seed * 0x9e3779b97f4a7c15ULL)) {
			*seed *= 0x9e3779b97f4a7c15ULL;
			return 0;
		}
	return -1;
}
