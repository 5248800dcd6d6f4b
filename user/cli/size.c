/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/cli/size.h"

#include <errno.h>
#include <stddef.h>
#include <strings.h>

/*
 * memtoull in valkey 9.1.2 src/util.c, which also takes "" and "kb" for 0 and lets the product wrap: we
 * don't.
 */
static const struct {
	const char *name;
	uint64_t bytes;
} units[] = {
	{ "", 1 },           { "b", 1 },
	{ "k", 1000 },       { "kb", 1024 },
	{ "m", 1000000 },    { "mb", 1024 * 1024 },
	{ "g", 1000000000 }, { "gb", 1024 * 1024 * 1024 },
};

static uint64_t unit_parse(const char *s)
{
	for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
		if (!strcasecmp(s, units[i].name))
			return units[i].bytes;
	return 0;
}

int size_parse(const char *s, uint64_t *bytes)
{
	uint64_t value = 0, unit;
	const char *p = s;
	int err = 0;

	for (; *p >= '0' && *p <= '9'; p++)
		if (__builtin_mul_overflow(value, 10, &value) || __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value))
			err = -ERANGE;
	unit = unit_parse(p);
	if (p == s || !unit)
		return -EINVAL;
	if (err || __builtin_mul_overflow(value, unit, &value))
		return -ERANGE;
	*bytes = value;
	return 0;
}
