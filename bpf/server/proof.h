/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Does the server's struct client prove that nothing is outstanding on its connection? layout.h explains the conditions
 * by their numbers. BPF asks at the return of a read, where the proof also says that a command begins there; user space
 * asks from outside, at any time (user/session/verify.c). The includer says how the server's memory
 * is read (env_read_server()).
 */
#ifndef REPLYLOG_BPF_SERVER_PROOF_H
#define REPLYLOG_BPF_SERVER_PROOF_H

#include "bpf/server/client.h"

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

/* valkey 8 src/server.h CLIENT_COMPLETED_IO: an IO thread has written, the main thread does not account for it yet. */
#define IO_WRITE_COMPLETED 2

static __always_inline bool client_write_is_completed(__u64 client)
{
	return client_layout.nwritten.offset != LAYOUT_ABSENT &&
	       client_field(client, &client_layout.io_write_state, 0) == IO_WRITE_COMPLETED;
}

/*
 * More nodes are not looked at. A write takes 64 KiB and what the last node has besides (NET_MAX_WRITES_PER_EVENT,
 * writevToClient()), a node is 16 KiB and more (PROTO_REPLY_CHUNK_BYTES): five, but where array headers split them.
 */
#define WRITTEN_NODES_MAX 64

struct written_nodes {
	__u64 node;    /* the next one of reply, NULL at its end */
	__u64 sentlen; /* what was written of it before */
	__u64 left;    /* of nwritten */
};

/* A struct listNode is prev, next, value, a struct clientReplyBlock size, used (src/adlist.h, src/server.h). */
static long written_nodes_step(__u32 i, void *data)
{
	struct written_nodes *nodes = data;
	__u64 next_value[2] = {}, used = 0;

	(void)i;
	if (!nodes->node || env_read_server(next_value, sizeof(next_value), nodes->node + 8) ||
	    env_read_server(&used, sizeof(used), next_value[1] + 8) || used < nodes->sentlen ||
	    used - nodes->sentlen > nodes->left)
		return 1;
	nodes->left -= used - nodes->sentlen;
	nodes->sentlen = 0;
	nodes->node = next_value[0];
	return 0;
}

/* Does the reply list hold just what is left of nwritten? A struct list begins with its head (src/adlist.h). */
static __always_inline bool client_nodes_written(__u64 client, __u64 sentlen, __u64 left)
{
	struct written_nodes nodes = { .sentlen = sentlen, .left = left };

	if (env_read_server(&nodes.node, sizeof(nodes.node), client_field(client, &client_layout.reply, 0)))
		return false;
	env_loop(WRITTEN_NODES_MAX, written_nodes_step, &nodes);
	return !nodes.node && !nodes.left;
}

/* Condition 6 in valkey 8: buf and reply hold nothing but what the last write has taken. */
env_noinline bool client_holds_only_written(__u64 client)
{
	__u64 nwritten = client_field(client, &client_layout.nwritten, 0);
	__u64 bufpos = client_field(client, &client_layout.bufpos, 0);
	__u64 sentlen = client_field(client, &client_layout.sentlen, 0);

	if (!nwritten || nwritten > 0x7fffffff)
		return false;
	/* sentlen is of buf when there is something in it, else of the first node. */
	if (bufpos) {
		if (bufpos < sentlen || bufpos - sentlen > nwritten)
			return false;
		nwritten -= bufpos - sentlen;
		sentlen = 0;
	}
	/* Again: the main thread may have accounted for it while user space was looking. */
	return client_nodes_written(client, sentlen, nwritten) && client_write_is_completed(client);
}

/* Condition 6: all that was answered is written. The list before bufpos, for the reason given there. */
static __always_inline bool client_has_written(__u64 client)
{
	if (client_list(client, &client_layout.deferred_reply))
		return false;
	if (client_write_is_completed(client) && client_holds_only_written(client))
		return true;
	return !client_list(client, &client_layout.reply) && !client_field(client, &client_layout.bufpos, 1);
}

/* At the return of a read to addr: everything that was read before is answered, and the answers are written. */
static __always_inline bool client_is_idle_at_read(__u64 client, __u64 conn, __u64 addr)
{
	return client_field(client, &client_layout.conn, 0) == conn && client_nothing_waits(client) &&
	       client_has_consumed(client, addr) && client_has_written(client);
}

#endif
