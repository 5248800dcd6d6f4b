/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A server that stops serving a slot ends the subscriptions to its shard channels, and says so in the words that also
 * confirm SUNSUBSCRIBE (removeChannelsInSlot() in redis 7.0 src/cluster.c and valkey 9.1 src/cluster_legacy.c). No
 * other subscription ends unasked: who may not listen any more is disconnected.
 *
 * The command names its first channel in its first confirmation, so another channel tells that nobody asked. The same
 * one leaves it open.
 */
#ifndef REPLYLOG_BPF_CONN_SERVER_SUNSUBSCRIBE_H
#define REPLYLOG_BPF_CONN_SERVER_SUNSUBSCRIBE_H

#include "bpf/conn/argv_log.h"
#include "bpf/conn/tracked_command.h"

/* ">3\r\n$12\r\nsunsubscribe\r\n", and what precedes the channel in the request, behind its "*<argc>\r\n". */
#define CONFIRMED_CHANNEL 23
#define NAMED_CHANNEL 19

/* What is kept of a push, from the channel on. */
#define CHANNEL_WORDS ((PUSH_HEAD - CONFIRMED_CHANNEL) / 8)

/* Of a "$<len>\r\n<channel>" the first n bytes. A head has another type byte where it shortens an argument. */
static __always_inline bool channels_differ(const __u8 *confirmed, const __u8 *named, __u32 n)
{
	__u64 differ = 0, word;
	__u32 i;

	for (i = 0; i < CHANNEL_WORDS; i++) {
		word = env_load64(confirmed + 8 * i) ^ env_load64(named + 8 * i);
		differ |= first_bytes(i ? word : word & ~0xffULL, n > 8 * i ? n - 8 * i : 0);
	}
	return differ;
}

/* Does a head of len bytes name another channel first than the current push does? False when that can't be told. */
static __always_inline bool head_names_another(const struct connection *conn, const __u8 *head, __u32 len)
{
	const __u8 *confirmed = conn->push_head + CONFIRMED_CHANNEL;
	__u32 kept = conn->session.push_len, n = ~0U;
	__u64 number, channel = 0;
	__u32 argc = resp_short_number(head, &number) & 7, size = resp_short_number(confirmed, &channel);

	if (*head != '*' || !argc || len < argc + NAMED_CHANNEL || kept < CONFIRMED_CHANNEL)
		return false;
	if (size)
		n = size + channel;
	if (n > kept - CONFIRMED_CHANNEL)
		n = kept - CONFIRMED_CHANNEL;
	if (n > len - argc - NAMED_CHANNEL)
		n = len - argc - NAMED_CHANNEL;
	return channels_differ(confirmed, head + argc + NAMED_CHANNEL, n);
}

/* Is the current push, a sunsubscribe, surely not the first confirmation of the current SUNSUBSCRIBE? */
env_noinline bool unasked_surely(struct connection *conn)
{
	struct tracked_command *tracked = tracked_current(conn);
	struct argv_found found = {};
	__u64 off;

	if (!tracked)
		return true;
	if (!tracked->number)
		return false;
	argv_find(conn, conn->reply_seq, &found);
	if (found.status != ARGV_KEPT)
		return false;
	off = found.entry.off;
	env_opaque(off);
	if (found.block)
		return off <= BLOCK_LIMIT + BLOCK_RUN && head_names_another(conn, found.block->bytes + off, found.entry.len);
	return off <= INLINE_LIMIT + INLINE_RUN && head_names_another(conn, conn->argv.bytes + off, found.entry.len);
}

#endif
