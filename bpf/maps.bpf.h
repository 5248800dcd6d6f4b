/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * All memory that BPF and user space share, and all that the programs have. Everything is allocated when it is loaded:
 * no probe ever waits for memory or fails for lack of it without saying so.
 */
#ifndef REPLYLOG_BPF_MAPS_BPF_H
#define REPLYLOG_BPF_MAPS_BPF_H

#include "bpf/env.h"
#include "bpf/abi/debug.h"
#include "bpf/abi/shared.h"
#include "bpf/conn/argv_log.h"
#include "bpf/conn/execution.h"
#include "bpf/port.h"
#include "bpf/tap/io_call.h"
#include "bpf/thread_stack.bpf.h"

/* Set before loading: where the server keeps what it knows of a client; valid is 0 when that is not known. */
const volatile struct client_layout client_layout;
const volatile __u32 client_span; /* --argv-from dispatch: see layout_span() in user/code/layouts.h */

/* Set before loading. */
const volatile __u32 target_tgid;     /* the server, as the initial pid namespace numbers it */
const volatile __u64 threshold;       /* --threshold, bytes */
const volatile __u64 max_pipeline;    /* --max-pipeline, commands */
const volatile bool debug;            /* --debug */
const volatile bool probe_dispatch;   /* --dispatch */
const volatile bool argv_at_dispatch; /* --argv-from dispatch, which implies it */
const volatile __u64 plain_read;      /* the server's connSocketRead(), which connections without TLS are read with */
const volatile __u64 cluster_read;   /* the server's clusterReadHandler(), which reads links of the cluster bus; 0 unknown */
const volatile bool not_in_cluster;  /* the server runs without cluster mode, for sure */
const volatile __s32 fd_offset = -1; /* of fd in the server's struct connection; -1 unknown */
const volatile bool auth_is_silent;  /* see auth_may_be_silent() in port.h, */
const volatile bool blank_lines_confuse; /* and blank_lines_may_confuse() */
const volatile __u64 known_names_seed;
const volatile __u64 known_names[KNOWN_NAMES]; /* plain commands of the server's own; 0: none there */

/* Seen by user space while the programs run. */
struct engine_state engine;

/*
 * Connections, their numbers by what the tap calls them by, and the numbers that are free.
 * max_entries of each: --max-clients.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE); /* user/session/verify.c looks at them */
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct connection);
} connections SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u64);
	__type(value, __u32);
} connection_numbers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_STACK);
	__uint(max_entries, 1);
	__type(value, __u32);
} free_connections SEC(".maps");

/* The pool of argv blocks and the indices of those that are free. max_entries: --argv-memory. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct argv_block);
} blocks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_STACK);
	__uint(max_entries, 1);
	__type(value, __u32);
} free_blocks SEC(".maps");

/* max_entries: --ring-size. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} ring SEC(".maps");

/* For waking user space only: at most a page of empty records, one a wake-up, so it is never full when it is needed. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4096);
} doorbell SEC(".maps");

/* --debug: what struct debug_event is sent over. Without it the map is not created. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, DEBUG_RING_BYTES);
} debug_ring SEC(".maps");

/* The number a connection had when this thread last looked it up. Believed only when the connection itself agrees. */
struct recent {
	__u64 key;
	__u32 number;
	__u32 pad;
};

#define RECENT 128

/*
 * Per thread and not per CPU: since Linux 6.0 these programs are preemptible, and another one may run on the same CPU
 * before this one is done.
 */
struct scratch {
	struct work work;
	struct io_call call;
	struct recent recent[RECENT];
	struct {
		struct reply_record reply;
		__u8 head[2 * BLOCK_PART + SNAPSHOT_WORDS_MAX]; /* what follows it */
	} out;
	struct snapshots_compare compare;
};

/* A thread's place in this and the next map is found by its tid: see tap_slot(). */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, THREADS_MAX);
	__type(key, __u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, THREADS_MAX);
	__type(key, __u32);
	__type(value, struct thread_stats);
} thread_stats SEC(".maps");

/* --dispatch: the logs of connections, by their numbers, and these by the server's struct connection. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct dispatch_log);
} dispatch_logs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, __u64);
	__type(value, __u32);
} dispatch_numbers SEC(".maps");

/* --argv-from dispatch: the heads of connections, by their numbers; and where each thread puts one together. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct snapshot_ring);
} dispatch_heads SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct snapshot_work);
} head_works SEC(".maps");

port_hook bool auth_may_be_silent(void)
{
	return auth_is_silent;
}

port_hook bool blank_lines_may_confuse(void)
{
	return blank_lines_confuse;
}

port_hook bool name_is_known(__u64 key)
{
	return known_names[known_name_slot(key, known_names_seed)] == key;
}

port_hook void module_has_run(void)
{
	engine.modules_ran = 1;
}

port_hook bool debugging(void)
{
	return debug;
}

port_hook bool dispatch_probed(void)
{
	return probe_dispatch;
}

port_hook bool server_has_slots(void)
{
	return !not_in_cluster;
}

port_hook struct dispatch_log *dispatch_log_at(__u32 number)
{
	return bpf_map_lookup_elem(&dispatch_logs, &number);
}

port_hook struct argv_block *block_at(__u32 index)
{
	return bpf_map_lookup_elem(&blocks, &index);
}

port_hook int block_take(__u32 *index)
{
	return bpf_map_pop_elem(&free_blocks, index);
}

port_hook void block_give(__u32 index)
{
	bpf_map_push_elem(&free_blocks, &index, BPF_ANY);
}

port_hook __u64 pipeline_limit(void)
{
	return max_pipeline;
}

static __always_inline void count_loss(enum loss loss)
{
	__sync_fetch_and_add(&engine.losses[loss], 1);
}

static __always_inline void counter_add(enum counter counter, __u64 n)
{
	__sync_fetch_and_add(&engine.counters[counter], n);
}

port_hook void dispatch_disagrees(void)
{
	counter_add(COUNTER_DISPATCH_DISAGREES, 1);
}

/* What was not attributed because of a loss that is counted. */
static __always_inline void count_lost(__u32 loss, __u64 replies, __u64 bytes)
{
	env_opaque(loss);
	if (loss >= LOSS_KINDS)
		return;
	__sync_fetch_and_add(&engine.lost_replies[loss], replies);
	__sync_fetch_and_add(&engine.lost_bytes[loss], bytes);
	counter_add(COUNTER_UNATTRIBUTED_BYTES, bytes);
}

/*
 * For keep_thread_stack(). Programs of different types or attach types can't share one (bpf_prog_map_compatible() in
 * kernel/bpf/core.c).
 */
struct no_programs io_own_stack SEC(".maps"), once_own_stack SEC(".maps"), socket_own_stack SEC(".maps");

#endif
