/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Reads what a client or a server has written, as far as a record has it. */
#ifndef REPLYLOG_USER_OUTPUT_RESP_READER_H
#define REPLYLOG_USER_OUTPUT_RESP_READER_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>

/* The server reads counts and lengths into a long long (string2ll): 19 digits hold the largest. */
#define RESP_DIGITS_MAX 19

struct resp_reader {
	const char *p, *end;
};

static inline size_t resp_left(const struct resp_reader *r)
{
	return (size_t)(r->end - r->p);
}

/* "<digits>\r\n". 0; -EAGAIN when the bytes end before that does, -EBADMSG when it is something else. */
static inline int resp_read_number(struct resp_reader *r, uint64_t *value)
{
	const char *digits = r->p;

	for (*value = 0; r->p < r->end && *r->p >= '0' && *r->p <= '9'; r->p++) {
		if (r->p - digits == RESP_DIGITS_MAX)
			return -EBADMSG;
		*value = *value * 10 + (uint64_t)(*r->p - '0');
	}
	if (r->p == r->end || (*r->p == '\r' && resp_left(r) == 1))
		return -EAGAIN;
	if (r->p == digits || r->p[0] != '\r' || r->p[1] != '\n')
		return -EBADMSG;
	r->p += 2;
	return 0;
}

#endif
