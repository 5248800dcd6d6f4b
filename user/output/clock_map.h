/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef REPLYLOG_USER_OUTPUT_CLOCK_MAP_H
#define REPLYLOG_USER_OUTPUT_CLOCK_MAP_H

#include <stdint.h>

/* From CLOCK_MONOTONIC, the time of the records, to the wall clock. */
struct clock_map {
	int64_t offset_ns; /* CLOCK_REALTIME - CLOCK_MONOTONIC */
};

/*
 * Measure the offset, anew when the wall clock may have been set: as long as it was not, *m stays the same. 0 or -errno
 * (then *m is as before). *m starts as all zero.
 */
int clock_map_refresh(struct clock_map *m);

/* "2025-01-31T23:59:59.123456789Z" */
#define TIMESTAMP_LEN 30

/* The wall clock's time of a record: RFC 3339 in UTC, not NUL-terminated. */
void clock_map_timestamp(const struct clock_map *m, uint64_t monotonic_ns, char out[static TIMESTAMP_LEN]);

#endif
