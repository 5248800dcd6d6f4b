/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What a push or a RESP2 pub/sub array is, from its first bytes:
 *
 *   (* | >) 3 CRLF $7 CRLF message CRLF ...            also smessage, and with 4 elements pmessage
 *   (* | >) 3 CRLF $9 CRLF subscribe CRLF ...          the confirmation of a command, also [p|s][un]subscribe
 *
 * (addReplyPubsubMessage() and its like in redis 7.0 and valkey 9.1 src/pubsub.c.)
 */
#ifndef REPLYLOG_BPF_RESP_PUBSUB_H
#define REPLYLOG_BPF_RESP_PUBSUB_H

#include "bpf/resp/command.h"
#include "bpf/resp/parse_window.h"

enum pubsub_kind {
	PUBSUB_OTHER = 0,
	PUBSUB_MESSAGE,
	PUBSUB_SHORT,         /* too few bytes to tell */
	PUBSUB_CONFIRMATIONS, /* plus enum command_class: of that command */
};

/* The longest beginning: ">3\r\n$12\r\npunsubscribe". A frame that begins like one of them is never shorter. */
#define PUBSUB_PEEK 21

_Static_assert(PUBSUB_PEEK < CARRY, "a beginning that is cut can be carried over");

static __always_inline bool pubsub_is_message(__u64 head, __u64 len)
{
	switch (len) {
	case 7:
		return (head & 0xffffffffffffff) == WORD8('m', 'e', 's', 's', 'a', 'g', 'e', 0);
	case 8:
		return head == WORD8('p', 'm', 'e', 's', 's', 'a', 'g', 'e') ||
		       head == WORD8('s', 'm', 'e', 's', 's', 'a', 'g', 'e');
	}
	return false;
}

static __always_inline __u32 pubsub_name(const __u8 *name, __u64 len)
{
	__u64 head = env_load64(name), tail = env_load64(name + 8);
	__u32 confirms;

	if (pubsub_is_message(head, len))
		return PUBSUB_MESSAGE;
	confirms = len >= 9 ? command_subscription(head, tail, len) : COMMAND_PLAIN;
	return confirms ? PUBSUB_CONFIRMATIONS + confirms : PUBSUB_OTHER;
}

/* frame has avail bytes, and three words from its ninth on can be read. */
static __always_inline __u32 pubsub_peek(const __u8 *frame, __u32 avail)
{
	__u64 word = env_load64(frame), len = 0;
	bool counted = (word >> 8 & 0xff) == '3' || (word >> 8 & 0xff) == '4';
	int size;

	if (avail < 2)
		return PUBSUB_SHORT;
	if (!counted || (avail >= 5 && (word >> 16 & 0xffffff) != (CRLF | (__u32)'$' << 16)))
		return PUBSUB_OTHER;
	/* Three elements of any kind are longer than this. */
	if (avail < 9)
		return PUBSUB_SHORT;
	size = resp_short_number(frame + 4, &len);
	if (size <= 0 || len < 7 || len > NAME_MAX)
		return PUBSUB_OTHER;
	if (avail < 4 + size + len)
		return PUBSUB_SHORT;
	return pubsub_name(frame + 4 + (size & 7), len);
}

#endif
