/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Does the server's struct client prove that nothing is outstanding on its connection? layout.h explains the conditions
 * by their numbers. BPF asks at the return of a read, where the proof also says that a command begins there; user space
 * asks from outside, at any time (user/verify.c). The includer defines client_layout and says how the server's memory is
 * read.
 */
#ifndef REPLYLOG_PROOF_H
#define REPLYLOG_PROOF_H

#include "client.h"

/* How many a list that may be missing or NULL has; many when it can't be read. */
static __always_inline __u64 client_list(__u64 client, const volatile struct layout_field *field)
{
	__u64 list = client_field(client, field, 0);

	return list ? client_field(list, &client_layout.list_len, 1) : 0;
}

/* The bit of a flag in one of the two flag words; 0 when it lies in the other one, or this version has none. */
static __always_inline __u64 flag_in_word(enum client_flag flag, __u32 word)
{
	__u32 at = client_layout.flag[flag].offset - client_layout.flags.offset;

	return at / 8 == word ? (__u64)client_layout.flag[flag].mask << at % 8 * 8 : 0;
}

/*
 * Condition 5, but for what a subscriber is told besides: no command waits, and each gets one reply. Messages don't
 * matter to that: they are no replies, and what is written proves by condition 6 that none is outstanding.
 */
static __always_inline bool client_nothing_waits(__u64 client)
{
	__u64 words[2] = {};

	if (env_read_server(words, sizeof(words), client + client_layout.flags.offset))
		return false;
	if (words[0] & client_layout.not_plain[0] & ~flag_in_word(FLAG_PUBSUB, 0) ||
	    words[1] & client_layout.not_plain[1] & ~flag_in_word(FLAG_PUBSUB, 1))
		return false;
	return !client_field(client, &client_layout.slot_migration_job, 0);
}

/* Condition 5. In a transaction, what EXEC answers is not known. */
static __always_inline bool client_is_plain(__u64 client)
{
	return client_nothing_waits(client) && !client_flag(client, FLAG_PUBSUB) && !client_flag(client, FLAG_MULTI);
}

/* Conditions 3 and 4: no command is half parsed, and none is parsed and not executed. */
static __always_inline bool client_has_executed(__u64 client)
{
	return !client_field(client, &client_layout.reqtype, 1) && !client_field(client, &client_layout.argc, 1) &&
	       !client_field(client, &client_layout.queued, 0);
}

/* Conditions 2 to 4: all that was read before is executed, and the bytes at addr begin a command. */
static __always_inline bool client_has_consumed(__u64 client, __u64 addr)
{
	return client_field(client, &client_layout.querybuf, 0) == addr && client_has_executed(client);
}

/* Condition 6: all that was answered is written. The list before bufpos, for the reason given there. */
static __always_inline bool client_has_written(__u64 client)
{
	return !client_list(client, &client_layout.reply) && !client_list(client, &client_layout.deferred_reply) &&
	       !client_field(client, &client_layout.bufpos, 1);
}

/* At the return of a read to addr: everything that was read before is answered, and the answers are written. */
static __always_inline bool client_is_idle_at_read(__u64 client, __u64 conn, __u64 addr)
{
	return client_field(client, &client_layout.conn, 0) == conn && client_nothing_waits(client) &&
	       client_has_consumed(client, addr) && client_has_written(client);
}

#endif
