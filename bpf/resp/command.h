/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Commands that are more than one reply to one command, known by name: those that change what later bytes on their
 * connection mean. All others are plain.
 */
#ifndef REPLYLOG_BPF_RESP_COMMAND_H
#define REPLYLOG_BPF_RESP_COMMAND_H

#include "bpf/resp/known_name.h"
#include "bpf/resp/resp.h"

enum command_class {
	COMMAND_PLAIN = 0, /* one reply */

	/* Containers: the subcommand decides. */
	COMMAND_CLIENT,
	COMMAND_CLUSTER,
	COMMAND_SCRIPT,

	/* Their reply is looked at: it says what becomes of the connection. See tracked_command.h. */
	COMMAND_MULTI,
	COMMAND_EXEC,
	COMMAND_DISCARD,
	COMMAND_RESET,
	COMMAND_SELECT,
	COMMAND_IDENTITY, /* CLIENT SETNAME, CLIENT SETINFO: who the client says it is, */
	COMMAND_AUTH,     /* and these two */
	COMMAND_HELLO,
	COMMAND_FOREIGN,   /* none of the server's own: a module's, which may do anything, or nobody's. See foreign.h */
	COMMAND_SCRIPTING, /* EVAL, FCALL, FUNCTION, SCRIPT: their errors may hold anything. See pairing.h */
	COMMAND_SUBSCRIBE, /* these six are answered by one confirmation per channel; see subscription_kind() */
	COMMAND_PSUBSCRIBE,
	COMMAND_SSUBSCRIBE,
	COMMAND_UNSUBSCRIBE,
	COMMAND_PUNSUBSCRIBE,
	COMMAND_SUNSUBSCRIBE,

	/* The connection is no session of commands and replies any more, or we can't follow it. */
	COMMAND_MONITOR,
	COMMAND_REPLICATION, /* SYNC, PSYNC, REPLCONF, CLUSTER SYNCSLOTS (valkey 9.0 on): links of the servers' own */
	COMMAND_REPLY_MODE,  /* CLIENT REPLY: OFF and SKIP suppress replies; which ones, only the server knows for sure */
	COMMAND_DEBUGGER,    /* SCRIPT DEBUG: the Lua debugger writes to the connection in between */
	COMMAND_OPAQUE,      /* an inline command that may be any of these */
};

static __always_inline bool command_is_container(__u8 class)
{
	return class >= COMMAND_CLIENT && class <= COMMAND_SCRIPT;
}

/* Does it say who the client is? */
static __always_inline bool command_identifies(__u8 class)
{
	return class >= COMMAND_IDENTITY && class <= COMMAND_HELLO;
}

/* Is its reply looked at? */
static __always_inline bool command_is_tracked(__u8 class)
{
	return class >= COMMAND_MULTI && class <= COMMAND_SUNSUBSCRIBE;
}

static __always_inline bool command_subscribes(__u8 class)
{
	return class >= COMMAND_SUBSCRIBE && class <= COMMAND_SUNSUBSCRIBE;
}

/* Whether a command takes effect at once inside a transaction (processCommand() in redis 7.0 src/server.c). */
static __always_inline bool command_ends_queueing(__u8 class)
{
	return class == COMMAND_MULTI || class == COMMAND_EXEC || class == COMMAND_DISCARD || class == COMMAND_RESET;
}

/* Kinds of what a client subscribes to. */
enum { SUBSCRIBED_CHANNELS, SUBSCRIBED_PATTERNS, SUBSCRIBED_SHARDS, SUBSCRIBED_KINDS };

static __always_inline __u32 subscription_kind(__u8 class)
{
	switch (class) {
	case COMMAND_SUBSCRIBE:
	case COMMAND_UNSUBSCRIBE:
		return SUBSCRIBED_CHANNELS;
	case COMMAND_PSUBSCRIBE:
	case COMMAND_PUNSUBSCRIBE:
		return SUBSCRIBED_PATTERNS;
	}
	return SUBSCRIBED_SHARDS;
}

static __always_inline bool command_drains(__u8 class)
{
	return class >= COMMAND_MONITOR;
}

/* The names below have at most this many letters. */
#define NAME_MAX 12

#define WORD4(a, b, c, d) ((__u64)(a) | (__u64)(b) << 8 | (__u64)(c) << 16 | (__u64)(d) << 24)
#define WORD8(a, b, c, d, e, f, g, h) (WORD4(a, b, c, d) | WORD4(e, f, g, h) << 32)

static __always_inline __u8 command_class_4(__u64 head)
{
	switch (head & 0xffffffff) {
	case WORD4('s', 'y', 'n', 'c'):
		return COMMAND_REPLICATION;
	case WORD4('e', 'x', 'e', 'c'):
		return COMMAND_EXEC;
	case WORD4('a', 'u', 't', 'h'):
		return COMMAND_AUTH;
	case WORD4('e', 'v', 'a', 'l'):
		return COMMAND_SCRIPTING;
	}
	return COMMAND_PLAIN;
}

static __always_inline __u8 command_class_5(__u64 head)
{
	switch (head & 0xffffffffff) {
	case WORD8('p', 's', 'y', 'n', 'c', 0, 0, 0):
		return COMMAND_REPLICATION;
	case WORD8('m', 'u', 'l', 't', 'i', 0, 0, 0):
		return COMMAND_MULTI;
	case WORD8('r', 'e', 's', 'e', 't', 0, 0, 0):
		return COMMAND_RESET;
	case WORD8('h', 'e', 'l', 'l', 'o', 0, 0, 0):
		return COMMAND_HELLO;
	case WORD8('f', 'c', 'a', 'l', 'l', 0, 0, 0):
		return COMMAND_SCRIPTING;
	}
	return COMMAND_PLAIN;
}

static __always_inline __u8 command_class_6(__u64 head)
{
	switch (head & 0xffffffffffff) {
	case WORD8('c', 'l', 'i', 'e', 'n', 't', 0, 0):
		return COMMAND_CLIENT;
	case WORD8('s', 'c', 'r', 'i', 'p', 't', 0, 0):
		return COMMAND_SCRIPT;
	case WORD8('s', 'e', 'l', 'e', 'c', 't', 0, 0):
		return COMMAND_SELECT;
	}
	return COMMAND_PLAIN;
}

static __always_inline __u8 command_class_7(__u64 head)
{
	switch (head & 0xffffffffffffff) {
	case WORD8('c', 'l', 'u', 's', 't', 'e', 'r', 0):
		return COMMAND_CLUSTER;
	case WORD8('m', 'o', 'n', 'i', 't', 'o', 'r', 0):
		return COMMAND_MONITOR;
	case WORD8('d', 'i', 's', 'c', 'a', 'r', 'd', 0):
		return COMMAND_DISCARD;
	case WORD8('e', 'v', 'a', 'l', 's', 'h', 'a', 0):
	case WORD8('e', 'v', 'a', 'l', 0x7f, 'r', 'o', 0): /* "_" in lower case, as LOWER() makes it */
		return COMMAND_SCRIPTING;
	}
	return COMMAND_PLAIN;
}

static __always_inline __u8 command_class_8(__u64 head)
{
	switch (head) {
	case WORD8('r', 'e', 'p', 'l', 'c', 'o', 'n', 'f'):
		return COMMAND_REPLICATION;
	case WORD8('f', 'u', 'n', 'c', 't', 'i', 'o', 'n'):
	case WORD8('f', 'c', 'a', 'l', 'l', 0x7f, 'r', 'o'):
		return COMMAND_SCRIPTING;
	}
	return COMMAND_PLAIN;
}

static __always_inline bool is_evalsha_ro(__u64 head, __u64 tail)
{
	return head == WORD8('e', 'v', 'a', 'l', 's', 'h', 'a', 0x7f) && (tail & 0xffff) == ('r' | 'o' << 8);
}

/*
 * [P|S][UN]SUBSCRIBE. The nine letters of "subscribe" are the last ones; head and tail are the name's two words.
 * Replies confirm with the same names, so pubsub.h uses it, too.
 */
static __always_inline __u8 command_subscription(__u64 head, __u64 tail, __u64 len)
{
	__u64 subscrib = WORD8('s', 'u', 'b', 's', 'c', 'r', 'i', 'b');

	switch (len) {
	case 9:
		return head == subscrib && (tail & 0xff) == 'e' ? COMMAND_SUBSCRIBE : COMMAND_PLAIN;
	case 10:
		if ((head >> 8 | tail << 56) != subscrib || (tail >> 8 & 0xff) != 'e')
			return COMMAND_PLAIN;
		return (head & 0xff) == 'p' ? COMMAND_PSUBSCRIBE : (head & 0xff) == 's' ? COMMAND_SSUBSCRIBE : COMMAND_PLAIN;
	case 11:
		if ((head >> 16 | tail << 48) != subscrib || (tail >> 16 & 0xff) != 'e')
			return COMMAND_PLAIN;
		return (head & 0xffff) == ('u' | 'n' << 8) ? COMMAND_UNSUBSCRIBE : COMMAND_PLAIN;
	case 12:
		if ((head >> 24 | tail << 40) != subscrib || (tail >> 24 & 0xff) != 'e' ||
		    (head >> 8 & 0xffff) != ('u' | 'n' << 8))
			return COMMAND_PLAIN;
		return (head & 0xff) == 'p'   ? COMMAND_PUNSUBSCRIBE
		       : (head & 0xff) == 's' ? COMMAND_SUNSUBSCRIBE
					      : COMMAND_PLAIN;
	}
	return COMMAND_PLAIN;
}

/* Classes a name of len bytes; two words from name on are readable. */
static __always_inline __u8 command_class(const __u8 *name, __u64 len)
{
	__u64 head = LOWER(env_load64(name)), tail = LOWER(env_load64(name + 8));

	switch (len) {
	case 4:
		return command_class_4(head);
	case 5:
		return command_class_5(head);
	case 6:
		return command_class_6(head);
	case 7:
		return command_class_7(head);
	case 8:
		return command_class_8(head);
	case 10:
		if (is_evalsha_ro(head, tail))
			return COMMAND_SCRIPTING;
	}
	return command_subscription(head, tail, len);
}

/* Classes a container by the name of its subcommand, of len bytes; two words from name on are readable. */
static __always_inline __u8 subcommand_class(__u8 container, const __u8 *name, __u64 len)
{
	__u64 head = LOWER(env_load64(name)), tail = LOWER(env_load64(name + 8));

	if (container == COMMAND_SCRIPT)
		return len == 5 && (head & 0xffffffffff) == WORD8('d', 'e', 'b', 'u', 'g', 0, 0, 0) ? COMMAND_DEBUGGER
												    : COMMAND_SCRIPTING;
	if (len == 9 && container == COMMAND_CLUSTER)
		return head == WORD8('s', 'y', 'n', 'c', 's', 'l', 'o', 't') && (tail & 0xff) == 's' ? COMMAND_REPLICATION
												     : COMMAND_PLAIN;
	if (len == 7 && container == COMMAND_CLIENT) {
		head &= 0xffffffffffffff;
		return head == WORD8('s', 'e', 't', 'n', 'a', 'm', 'e', 0) ||
				       head == WORD8('s', 'e', 't', 'i', 'n', 'f', 'o', 0)
			       ? COMMAND_IDENTITY
			       : COMMAND_PLAIN;
	}
	return len == 5 && container == COMMAND_CLIENT && (head & 0xffffffffff) == WORD8('r', 'e', 'p', 'l', 'y', 0, 0, 0)
		       ? COMMAND_REPLY_MODE
		       : COMMAND_PLAIN;
}

/* The first letter of the subcommand that makes a container leave. */
static __always_inline __u8 subcommand_letter(__u8 container)
{
	return container == COMMAND_CLIENT ? 'r' : container == COMMAND_CLUSTER ? 's' : 'd';
}

#endif
