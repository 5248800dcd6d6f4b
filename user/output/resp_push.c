/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/output/resp_push.h"

#include <stdint.h>
#include <string.h>

#include "user/output/resp_reader.h"

struct frame_reader {
	struct resp_reader at;
	uint64_t elements; /* of the frame, still to read */
	bool over;         /* nothing more can be read, */
	bool cut;          /* because the bytes end */
};

static bool stop(struct frame_reader *r, bool cut)
{
	r->over = true;
	r->cut = cut;
	return false;
}

static bool read_number(struct frame_reader *r, uint64_t *value)
{
	int err = resp_read_number(&r->at, value);

	return err ? stop(r, err == -EAGAIN) : true;
}

/* The next element, if it is a string: "$<len>\r\n<bytes>\r\n". */
static void read_string(struct frame_reader *r, struct argv_arg *arg)
{
	uint64_t len;

	if (r->over || !r->elements--) {
		r->over = true;
		return;
	}
	if (r->at.p == r->at.end || *r->at.p != '$') {
		stop(r, r->at.p == r->at.end);
		return;
	}
	r->at.p++;
	if (!read_number(r, &len))
		return;
	*arg = (struct argv_arg){ r->at.p, len < resp_left(&r->at) ? len : resp_left(&r->at), len };
	r->at.p += arg->len;
	if (resp_left(&r->at) < 2)
		stop(r, arg->len < len);
	else if (memcmp(r->at.p, "\r\n", 2))
		stop(r, false);
	else
		r->at.p += 2;
}

static bool is_one_of(const struct argv_arg *arg, const char *const *words)
{
	while (*words && !argv_arg_is(arg, *words))
		words++;
	return *words;
}

/* addReplyPubsubMessage() and its like in valkey 9.1.2 and redis 7.0.15 src/pubsub.c. */
static void read_channel(struct frame_reader *r, struct resp_push *push)
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
	struct frame_reader r = { .at = { .p = bytes, .end = (const char *)bytes + len } };

	memset(push, 0, sizeof(*push));
	if (!len || (*r.at.p != '>' && *r.at.p != '*'))
		return;
	r.at.p++;
	if (!read_number(&r, &r.elements))
		return;
	read_string(&r, &push->kind);
	if (push->kind.len < push->kind.true_len)
		push->kind.bytes = NULL;
	if (push->kind.bytes)
		read_channel(&r, push);
}
