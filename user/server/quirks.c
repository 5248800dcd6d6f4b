/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/server/quirks.h"

#include <stdio.h>
#include <string.h>

enum server_kind { SERVER_OTHER, SERVER_REDIS, SERVER_VALKEY };

/* The version's number is MAJOR * 100 + MINOR. */
static enum server_kind parse(const char *version, unsigned int *number)
{
	char name[16];
	unsigned int major, minor;

	if (sscanf(version, "%15s %u.%u", name, &major, &minor) != 3)
		return SERVER_OTHER;
	*number = major * 100 + minor;
	return !strcmp(name, "valkey") ? SERVER_VALKEY : !strcmp(name, "redis") ? SERVER_REDIS : SERVER_OTHER;
}

bool quirk_auth_is_silent(const char *version)
{
	unsigned int number;

	switch (parse(version, &number)) {
	case SERVER_VALKEY:
		return number < 900;
	case SERVER_REDIS: /* redis 6.0.16 and 7.0.15 have no addAuthErrReply() in src/acl.c */
		return number > 700;
	default:
		return true;
	}
}

bool quirk_blank_lines_confuse(const char *version)
{
	unsigned int number;

	switch (parse(version, &number)) {
	case SERVER_VALKEY:
		return number >= 800 && number < 901;
	case SERVER_REDIS:
		return false;
	default:
		return true;
	}
}

bool quirk_hello_in_parts(const char *version)
{
	unsigned int number;

	return parse(version, &number) == SERVER_OTHER || number < 800;
}
