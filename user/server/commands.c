/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/server/commands.h"

#include <string.h>

/* First bytes of replies. */
enum {
	STATUS = 1 << 0,      /* + */
	INTEGER = 1 << 1,     /* : */
	BULK = 1 << 2,        /* $, a null string of RESP2 included */
	ARRAY = 1 << 3,       /* *, a null array of RESP2 included */
	MAP = 1 << 4,         /* % */
	SET = 1 << 5,         /* ~ */
	DOUBLE = 1 << 6,      /* , */
	BOOLEAN = 1 << 7,     /* # */
	BIG_NUMBER = 1 << 8,  /* ( */
	VERBATIM = 1 << 9,    /* = */
	NUL = 1 << 10,        /* _ */
	PUSH = 1 << 11,       /* > */
	BLOB_ERROR = 1 << 12, /* ! */
	ATTRIBUTE = 1 << 13,  /* | */
	ERROR = 1 << 14,      /* - */
	ANY = (1 << 15) - 1,
};

static const struct command_info commands[] = {
#include "user/server/command_table.h"
};

#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

/* "cluster|count-failure-reports" and the like, and more than any. */
#define NAME_ROOM 64

static unsigned int bit_of(__u8 first_byte)
{
	static const char types[] = "+:$*%~,#(=_>!|-";
	const char *type = first_byte ? strchr(types, first_byte) : NULL;

	return type ? 1U << (type - types) : 0;
}

/* Where in the table the first name is that does not sort before key, of len bytes. */
static size_t lower_bound(const char *key, size_t len)
{
	size_t low = 0, high = COMMANDS, middle;

	while (low < high) {
		middle = (low + high) / 2;
		if (strncmp(commands[middle].name, key, len) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static bool begins_with(size_t i, const char *key, size_t len)
{
	return i < COMMANDS && !strncmp(commands[i].name, key, len);
}

static const struct command_info *find(const char *key, size_t len)
{
	size_t i = lower_bound(key, len);

	return begins_with(i, key, len) && !commands[i].name[len] ? &commands[i] : NULL;
}

/* Appends a word in lower case to key. False for what is in no name: it is too long, or has bytes that no name has. */
static bool append(char key[static NAME_ROOM], size_t *at, const char *word, size_t len)
{
	if (!len || len > NAME_ROOM - *at)
		return false;
	for (size_t i = 0; i < len; i++) {
		char c = word[i];

		if (c <= ' ' || c == '|')
			return false;
		key[(*at)++] = c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c;
	}
	return true;
}

const struct command_info *command_find(const char *name, size_t len)
{
	char key[NAME_ROOM];
	size_t at = 0;

	return append(key, &at, name, len) ? find(key, at) : NULL;
}

static bool is_subcommand(const struct command_info *command)
{
	return strchr(command->name, '|');
}

const struct command_info *command_next(const struct command_info *previous)
{
	const struct command_info *next = previous ? previous + 1 : commands;

	while (next < commands + COMMANDS && is_subcommand(next))
		next++;
	return next < commands + COMMANDS ? next : NULL;
}

bool command_has_subcommands(const struct command_info *command)
{
	char key[NAME_ROOM];
	size_t at = strlen(command->name);

	memcpy(key, command->name, at);
	key[at++] = '|';
	return begins_with(lower_bound(key, at), key, at);
}

const struct command_info *command_find_subcommand(const struct command_info *command, const char *name, size_t len)
{
	char key[NAME_ROOM];
	size_t at = strlen(command->name);

	memcpy(key, command->name, at);
	key[at++] = '|';
	return append(key, &at, name, len) ? find(key, at) : NULL;
}

bool command_can_answer(const struct command_info *command, __u8 first_byte, unsigned int resp)
{
	unsigned int fits = (resp != 3 ? command->resp2 : 0) | (resp != 2 ? command->resp3 : 0) | ERROR;

	return fits & bit_of(first_byte);
}
