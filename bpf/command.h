/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Commands after which a connection is no longer one reply per command. Known by name, so that what follows is left
 * out and counted, never guessed.
 */
#ifndef REPLYLOG_COMMAND_H
#define REPLYLOG_COMMAND_H

#include "env.h"

enum command_class {
	COMMAND_PLAIN = 0, /* one reply */
	COMMAND_LEAVES,    /* none, several, or an endless stream: pub/sub, MONITOR, replication */
	/* One reply, unless the subcommand is the one named: */
	COMMAND_CLIENT,    /* REPLY: OFF and SKIP suppress replies; which ones, only the server knows for sure */
	COMMAND_CLUSTER,   /* SYNCSLOTS: slot migration, a link of the servers' own (valkey 9.0 on) */
	COMMAND_SCRIPT,    /* DEBUG: the Lua debugger writes to the connection in between */
};

/* The names below have between these many letters. */
#define NAME_MIN 4
#define NAME_MAX 12

#define LETTER(c) (1U << ((c) & 31))
/* Lower-cases letters; what is not a letter can't become one of those compared with. */
#define LOWER(word) ((word) | BYTES(0x20))

#define WORD4(a, b, c, d) ((__u64)(a) | (__u64)(b) << 8 | (__u64)(c) << 16 | (__u64)(d) << 24)
#define WORD8(a, b, c, d, e, f, g, h) (WORD4(a, b, c, d) | WORD4(e, f, g, h) << 32)

/* A cheap first look, which most commands don't pass: may a name of this length and first letter be one of them? */
static __always_inline bool command_suspect(__u64 len, __u8 first)
{
	__u32 letters = 0;

	switch (len) {
	case 4:
		letters = LETTER('s');
		break;
	case 5:
		letters = LETTER('p');
		break;
	case 6:
		letters = LETTER('c') | LETTER('s');
		break;
	case 7:
		letters = LETTER('c') | LETTER('m');
		break;
	case 8:
		letters = LETTER('r');
		break;
	case 9:
		letters = LETTER('s');
		break;
	case 11:
		letters = LETTER('u');
		break;
	case 10:
	case 12:
		letters = LETTER('p') | LETTER('s');
		break;
	}
	return letters >> (first & 31) & 1;
}

/* Classes a name of len bytes; two words from name on are readable. */
static __always_inline enum command_class command_class(const __u8 *name, __u64 len)
{
	__u64 head = LOWER(env_load64(name)), tail = LOWER(env_load64(name + 8));
	__u64 subscrib = WORD8('s', 'u', 'b', 's', 'c', 'r', 'i', 'b');

	switch (len) {
	case 4:
		if ((head & 0xffffffff) == WORD4('s', 'y', 'n', 'c'))
			return COMMAND_LEAVES;
		break;
	case 5:
		if ((head & 0xffffffffff) == WORD8('p', 's', 'y', 'n', 'c', 0, 0, 0))
			return COMMAND_LEAVES;
		break;
	case 6:
		if ((head & 0xffffffffffff) == WORD8('c', 'l', 'i', 'e', 'n', 't', 0, 0))
			return COMMAND_CLIENT;
		if ((head & 0xffffffffffff) == WORD8('s', 'c', 'r', 'i', 'p', 't', 0, 0))
			return COMMAND_SCRIPT;
		break;
	case 7:
		if ((head & 0xffffffffffffff) == WORD8('c', 'l', 'u', 's', 't', 'e', 'r', 0))
			return COMMAND_CLUSTER;
		if ((head & 0xffffffffffffff) == WORD8('m', 'o', 'n', 'i', 't', 'o', 'r', 0))
			return COMMAND_LEAVES;
		break;
	case 8:
		if (head == WORD8('r', 'e', 'p', 'l', 'c', 'o', 'n', 'f'))
			return COMMAND_LEAVES;
		break;
	case 9:
		if (head == subscrib && (tail & 0xff) == 'e')
			return COMMAND_LEAVES;
		break;
	case 10: /* [ps]subscribe */
		if ((head >> 8 | tail << 56) == subscrib && (tail >> 8 & 0xff) == 'e')
			return COMMAND_LEAVES;
		break;
	case 11: /* unsubscribe */
		if ((head >> 16 | tail << 48) == subscrib && (tail >> 16 & 0xff) == 'e')
			return COMMAND_LEAVES;
		break;
	case 12: /* [ps]unsubscribe */
		if ((head >> 24 | tail << 40) == subscrib && (tail >> 24 & 0xff) == 'e')
			return COMMAND_LEAVES;
		break;
	}
	return COMMAND_PLAIN;
}

/* The length and the first letter of the subcommand that makes a command leave. */
static __always_inline __u64 subcommand_len(enum command_class class)
{
	return class == COMMAND_CLUSTER ? 9 : 5;
}

static __always_inline __u8 subcommand_letter(enum command_class class)
{
	return class == COMMAND_CLIENT ? 'r' : class == COMMAND_CLUSTER ? 's' : 'd';
}

/* Whether a subcommand of subcommand_len() bytes is the one; two words from name on are readable. */
static __always_inline bool subcommand_leaves(enum command_class class, const __u8 *name)
{
	__u64 head = LOWER(env_load64(name)), tail = LOWER(env_load64(name + 8));

	if (class == COMMAND_CLUSTER)
		return head == WORD8('s', 'y', 'n', 'c', 's', 'l', 'o', 't') && (tail & 0xff) == 's';
	if (class == COMMAND_CLIENT)
		return (head & 0xffffffffff) == WORD8('r', 'e', 'p', 'l', 'y', 0, 0, 0);
	return (head & 0xffffffffff) == WORD8('d', 'e', 'b', 'u', 'g', 0, 0, 0);
}

#endif
