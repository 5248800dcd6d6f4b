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
	COMMAND_CLIENT,    /* CLIENT: one reply, unless the subcommand is REPLY */
	COMMAND_LEAVES,    /* none, several, or an endless stream: pub/sub, MONITOR, replication */
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
		letters = LETTER('c');
		break;
	case 7:
		letters = LETTER('m');
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
		break;
	case 7:
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

/* CLIENT REPLY OFF and SKIP suppress replies; which ones, only the server knows for sure. */
static __always_inline bool client_subcommand_leaves(const __u8 *name, __u64 len)
{
	return len == 5 && (LOWER(env_load64(name)) & 0xffffffffff) == WORD8('r', 'e', 'p', 'l', 'y', 0, 0, 0);
}

#endif
