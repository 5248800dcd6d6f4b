/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Commands that are none of the server's own. A module's command may answer never, twice, or with another number of
 * elements than it says, and may change who the client is and which database it uses. Nobody's command is refused, in
 * words that name it: such a refusal proves that no module's command has run.
 *
 *   -ERR unknown command 'NAME', with args beginning with: ...     redis 7.0 on, valkey (processCommandAndResetClient(),
 *   -ERR unknown command `NAME`, with args beginning with: ...     redis 6.0              src/server.c)
 */
#ifndef REPLYLOG_BPF_RESP_FOREIGN_H
#define REPLYLOG_BPF_RESP_FOREIGN_H

#include "bpf/port.h"
#include "bpf/resp/command.h"
#include "bpf/resp/known_name.h"

static __always_inline bool command_is_known(const __u8 *name, __u64 len)
{
	return name_is_known(known_name_key(name, len));
}

/* 24 bits of how a name begins: what a tracked command keeps of it. */
static __always_inline __u32 foreign_mark(__u64 head)
{
	return (head * 0x9e3779b97f4a7c15ULL) >> 40;
}

static __always_inline __u32 foreign_mark_of(const __u8 *name, __u64 len)
{
	return foreign_mark(first_bytes(env_load64(name), len < 8 ? len : 8));
}

#define REFUSAL_NAME 22 /* where the name begins in the refusal */
#define REFUSAL_PEEK (REFUSAL_NAME + 8)

/* Does a reply that begins like this refuse the command of that mark as nobody's? REFUSAL_PEEK bytes are there. */
static __always_inline bool foreign_is_refused(const __u8 *reply, __u32 mark)
{
	__u64 name = env_load64(reply + REFUSAL_NAME), quote = bytes_equal(name, reply[REFUSAL_NAME - 1]);

	if (env_load64(reply) != WORD8('-', 'E', 'R', 'R', ' ', 'u', 'n', 'k') ||
	    env_load64(reply + 8) != WORD8('n', 'o', 'w', 'n', ' ', 'c', 'o', 'm') ||
	    (env_load64(reply + 14) & 0xffffffffffffff) != WORD8('o', 'm', 'm', 'a', 'n', 'd', ' ', 0))
		return false;
	if (reply[REFUSAL_NAME - 1] != '\'' && reply[REFUSAL_NAME - 1] != '`')
		return false;
	return foreign_mark(quote ? name & bytes_below(quote) : name) == mark;
}

#endif
