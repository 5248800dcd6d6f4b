/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/output/resp_push.h"

#include <stdint.h>
#include <string.h>

/* As in argv.c: 19 digits hold the largest length. */
#define DIGITS_MAX 19

struct reader {
	const char *p, *end;
	uint64_t elements; /* of the frame, still to read */
	bool over;         /* nothing more can be read, */
	bool cut;          /* because the bytes end */
};

static size_t left(const struct reader *r)
{
	return (size_t)(r->end - r->p);
}

static bool stop(struct reader *r, bool cut)
{
	r->over = true;
	r->cut = cut;
	return false;
}

/* "<digits>\r\n" */
static bool read_number(struct reader *r, uint64_t *value)
{
	const char *digits = r->p;

	for (*value = 0; r->p < r->end && *r->p >= '0' && *r->p <= '9'; r->p++) {
		if (r->p - digits == DIGITS_MAX)
			return stop(r, false);
		*value = *value * 10 + (uint64_t)(*r->p - '0');
	}
	if (r->p == r->end || (*r->p == '\r' && left(r) == 1))
		return stop(r, true);
	if (r->p == digits || r->p[0] != '\r' || r->p[1] != '\n')
		return stop(r, false);
	r->p += 2;
	return true;
}

/* The next element, if it is a string: "$<len>\r\n<bytes>\r\n". */
static void read_string(struct reader *r, struct argv_arg *arg)
{
	uint64_t len;

	if (r->over || !r->elements--) {
		r->over = true;
		return;
	}
	if (r->p == r->end || *r->p != '$') {
		stop(r, r->p == r->end);
		return;
	}
	r->p++;
	if (!read_number(r, &len))
		return;
	*arg = (struct argv_arg){ r->p, len < left(r) ? len : left(r), len };
	r->p += arg->len;
	if (left(r) < 2)
		stop(r, arg->len < len);
	else if (memcmp(r->p, "\r\n", 2))
		stop(r, false);
	else
		r->p += 2;
}

static bool is_one_of(const struct argv_arg *arg, const char *const *words)
{
	while (*words && !argv_arg_is(arg, *words))
		words++;
	return *words;
}

/* addReplyPubsubMessage() and its like in valkey 9.1.2 and redis 7.0.15 src/pubsub.c. */
static void read_channel(struct reader *r, struct resp_push *push)
{
	static const char *const of_channels[] = {
		"message", "smessage", "subscribe", "unsubscribe", "ssubscribe", "sunsubscribe", NULL,
	};
	static const char *const of_patterns[] = { "psubscribe", "punsubscribe", NULL };

	if (argv_arg_is(&push->kind, "pmessage")) {
		read_string(r, &push->pattern);
		read_string(r, &push->channel);
	} else if (is_one_of(&push->kind, of_channels)) {
		read_string(r, &push->channel);
	} else if (is_one_of(&push->kind, of_patterns)) {
		read_string(r, &push->pattern);
	}
	push->truncated = r->cut;
}

void resp_push_decode(struct resp_push *push, const void *bytes, size_t len)
{
	struct reader r = { .p = bytes, .end = (const char *)bytes + len };

	memset(push, 0, sizeof(*push));
	if (!len || (*r.p != '>' && *r.p != '*'))
		return;
	r.p++;
	if (!read_number(&r, &r.elements))
		return;
	read_string(&r, &push->kind);
	if (push->kind.len < push->kind.true_len)
		push->kind.bytes = NULL;
	if (push->kind.bytes)
		read_channel(&r, push);
}
