/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What the engine calls and does not define: its surroundings. In the kernel maps.bpf.h and engine/emit.bpf.h define it,
 * over BPF maps and the ring buffer; in the unit tests and the fuzzers tests/unit/engine_host.h does, over arrays.
 */
#ifndef REPLYLOG_BPF_PORT_H
#define REPLYLOG_BPF_PORT_H

#include "bpf/env.h"
#include "bpf/abi/layout.h"

struct argv_block;
struct connection;
struct dispatch_log;
struct reply_end;
struct work;

#ifdef __bpf__
#define port_hook static
#else
/* Not static: what includes this may call only some, and define no more than those (user/session/verify.c). */
#define port_hook
#endif

/*
 * Where this server's struct client keeps its fields (valid is LAYOUT_NONE when that is not known), and how much of it
 * --argv-from dispatch reads: see layout_span() in user/code/layouts.h.
 */
#ifdef __bpf__
extern const volatile struct client_layout client_layout;
extern const volatile __u32 client_span;
#else
__attribute__((unused)) static struct client_layout client_layout;
__attribute__((unused)) static __u32 client_span;
#endif

/* The pool of blocks: block_take() fails when all are in use (--argv-memory). */
port_hook struct argv_block *block_at(__u32 index);
port_hook int block_take(__u32 *index);
port_hook void block_give(__u32 index);

/* --max-pipeline, commands */
port_hook __u64 pipeline_limit(void);

/* --threshold, bytes */
port_hook __u64 reply_threshold(void);

/* --dispatch: is call() probed; the log of a connection's executions, or NULL; counts a reply whose execution is refuted. */
port_hook bool dispatch_probed(void);
port_hook struct dispatch_log *dispatch_log_at(__u32 number);
port_hook void dispatch_disagrees(void);

/* Is this the key of a command that a server has of its own? See resp/known_name.h. */
port_hook bool name_is_known(__u64 key);

/* A module's command has run: it may have given any client another name (RM_SetClientNameById()). */
port_hook void module_has_run(void);

/* Can the server end a subscription to a shard channel by itself? Only in cluster mode. */
port_hook bool server_has_slots(void);

/*
 * Does this server leave a failing AUTH or HELLO unanswered while earlier replies are still to be written?
 * (addAuthErrReply() in redis 8.0, 8.6 src/acl.c and valkey 8.0, 8.1; fixed in valkey 9.0, #2106.)
 */
port_hook bool auth_may_be_silent(void);

/*
 * Does this server take a command behind a line of blanks for typed lines, whatever it is? (processInputBuffer() in valkey
 * 8.0, 8.1 src/networking.c goes on without forgetting the request's type: resetClient() is called for a line that is
 * empty, and once a command was executed.)
 */
port_hook bool blank_lines_may_confuse(void);

/* Sends the record of a reply at or over the threshold to user space. */
port_hook void reply_emit(struct connection *conn, struct work *work, const struct reply_end *end);

/* The current command has succeeded, or failed (event: enum record_event), and its argv says who the client is. */
port_hook void identity_emit(struct connection *conn, struct work *work, __u32 event);

/* What the client said of itself before no longer holds for certain. */
port_hook void identity_lost(struct connection *conn, struct work *work);

/* --debug. A constant to the verifier: what depends on it is removed when it is false. */
port_hook bool debugging(void);

/* Sends an event: what the connection changes to from the mode it has, and why (enum debug_why). what: see debug_pack(). */
port_hook void debug_send(struct connection *conn, __u32 why, __u32 what, __u64 position, __u64 number);

#endif
