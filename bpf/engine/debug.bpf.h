/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * --debug: events on their way to user space. They have a ring buffer of their own, so that a flood of them never costs a
 * record. Without --debug that map is not even created: a program that can reach it does not load.
 */
#ifndef REPLYLOG_BPF_ENGINE_DEBUG_BPF_H
#define REPLYLOG_BPF_ENGINE_DEBUG_BPF_H

#include "bpf/maps.bpf.h"
#include "bpf/conn/debug.h"
#include "bpf/engine/emit.bpf.h"
#include "bpf/server/sock.bpf.h"

static __always_inline struct debug_event *debug_reserve(void)
{
	struct debug_event *event = bpf_ringbuf_reserve(&debug_ring, sizeof(*event), 0);

	if (!event)
		__sync_fetch_and_add(&engine.debug_lost, 1);
	return event;
}

/* A global function: the verifier looks at it once, and not once more for every caller. */
env_global int debug_event_send(struct connection *conn, __u32 why, __u32 what, __u64 position, __u64 number)
{
	struct debug_event *event;

	if (!debug || !conn)
		return 0;
	event = debug_reserve();
	if (!event)
		return 0;
	debug_fill(event, conn, why, what, position, number);
	bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
	wake_consumer();
	return 0;
}

port_hook void debug_send(struct connection *conn, __u32 why, __u32 what, __u64 position, __u64 number)
{
	debug_event_send(conn, why, what, position, number);
}

/* There is no entry for this connection. */
static __noinline void debug_stranger_send(struct sock *sk)
{
	struct debug_event *event = debug_reserve();
	struct conn_id id = {};

	if (!event)
		return;
	sock_address(sk, &id);
	__builtin_memset(event, 0, sizeof(*event));
	event->ns = env_now();
	debug_fill_client(event, &id);
	event->position = DEBUG_NOWHERE;
	event->why = WHY_CLIENTS_FULL;
	event->from = event->to = DEBUG_UNKNOWN;
	bpf_ringbuf_submit(event, BPF_RB_NO_WAKEUP);
	wake_consumer();
}

static __always_inline void debug_clients_full(struct sock *sk)
{
	if (debug)
		debug_stranger_send(sk);
}

#endif
