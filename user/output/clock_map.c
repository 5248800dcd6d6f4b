/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/output/clock_map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NS_PER_S 1000000000

static int64_t now_ns(clockid_t clock)
{
	struct timespec t;

	if (clock_gettime(clock, &t))
		return -1;
	return (int64_t)t.tv_sec * NS_PER_S + t.tv_nsec;
}

/*
 * The two clocks are slewed alike, so their offset only changes when the wall clock is set. What is less than this is
 * the error of measuring, and following it would make timestamps go back by nanoseconds.
 */
#define CLOCK_STEP_NS 100000

/*
 * The wall clock is read between two reads of the other; the closest of a few such pairs is the one least
 * interrupted.
 */
int clock_map_refresh(struct clock_map *m)
{
	int64_t before, wall, after, best = INT64_MAX, offset = m->offset_ns;

	for (int i = 0; i < 5; i++) {
		before = now_ns(CLOCK_MONOTONIC);
		wall = now_ns(CLOCK_REALTIME);
		after = now_ns(CLOCK_MONOTONIC);
		if (before < 0 || wall < 0 || after < 0)
			return -errno;
		if (after - before >= best)
			continue;
		best = after - before;
		offset = wall - (before + best / 2);
	}
	if (llabs(offset - m->offset_ns) > CLOCK_STEP_NS)
		m->offset_ns = offset;
	return 0;
}

static void put_digits(char *out, uint32_t value, int digits)
{
	while (digits--) {
		out[digits] = (char)('0' + value % 10);
		value /= 10;
	}
}

/* Any 64-bit count of nanoseconds has a year of four digits. */
void clock_map_timestamp(const struct clock_map *m, uint64_t monotonic_ns, char out[static TIMESTAMP_LEN])
{
	uint64_t ns = monotonic_ns + (uint64_t)m->offset_ns;
	time_t seconds = (time_t)(ns / NS_PER_S);
	struct tm t;

	gmtime_r(&seconds, &t);
	memcpy(out, "0000-00-00T00:00:00.000000000Z", TIMESTAMP_LEN);
	put_digits(out, (uint32_t)t.tm_year + 1900, 4);
	put_digits(out + 5, (uint32_t)t.tm_mon + 1, 2);
	put_digits(out + 8, (uint32_t)t.tm_mday, 2);
	put_digits(out + 11, (uint32_t)t.tm_hour, 2);
	put_digits(out + 14, (uint32_t)t.tm_min, 2);
	put_digits(out + 17, (uint32_t)t.tm_sec, 2);
	put_digits(out + 20, (uint32_t)(ns % NS_PER_S), 9);
}
