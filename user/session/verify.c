/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/session/verify.h"

#include "user/debug.h"
#include "user/output/debug_line.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>

/* bpf/server/proof.h reads another process here. */
static long read_server(void *to, size_t len, __u64 addr);
#define env_read_server(to, len, addr) read_server(to, len, addr)

static pid_t server;
static struct mapped dispatches;

#include "bpf/conn/connection.h"
#include "bpf/conn/dispatch_log.h"
#include "bpf/conn/pairing.h"
#include "bpf/server/proof.h"

port_hook struct dispatch_log *dispatch_log_at(__u32 number)
{
	return dispatches.entries && number < dispatches.count
		       ? (struct dispatch_log *)(dispatches.entries + number * dispatches.stride)
		       : NULL;
}

static long read_server(void *to, size_t len, __u64 addr)
{
	struct iovec here = { .iov_base = to, .iov_len = len };
	struct iovec there = { .iov_base = (void *)(unsigned long)addr, .iov_len = len };

	return process_vm_readv(server, &here, 1, &there, 1, 0) == (ssize_t)len ? 0 : -1;
}

/* Entries of an array map lie eight bytes aligned one behind the other (array_map_alloc(), kernel/bpf/arraymap.c). */
static int mapped_open(struct mapped *map, int fd, size_t size, __u32 count)
{
	void *memory;

	map->count = count;
	map->stride = (size + 7) & ~(size_t)7;
	memory = mmap(NULL, map->stride * count, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (memory == MAP_FAILED)
		return -errno;
	map->entries = memory;
	return 0;
}

static void mapped_close(struct mapped *map)
{
	if (map->entries)
		munmap(map->entries, map->stride * map->count);
	memset(map, 0, sizeof(*map));
}

int verifier_open(struct verifier *v, const struct verifier_setup *setup)
{
	int err;

	memset(v, 0, sizeof(*v));
	memset(&dispatches, 0, sizeof(dispatches));
	client_layout = *setup->layout;
	server = setup->server;
	v->state = setup->state;
	err = mapped_open(&v->connections, setup->connections_fd, sizeof(struct connection), setup->connections);
	if (err || setup->dispatches_fd < 0)
		return err;
	return mapped_open(&dispatches, setup->dispatches_fd, sizeof(struct dispatch_log), setup->connections);
}

void verifier_close(struct verifier *v)
{
	mapped_close(&v->connections);
	mapped_close(&dispatches);
}

static struct connection *connection_at(const struct verifier *v, __u32 number, __u32 generation)
{
	struct connection *conn;

	if (!v->connections.entries || number >= v->connections.count)
		return NULL;
	conn = (struct connection *)(v->connections.entries + number * v->connections.stride);
	return __atomic_load_n(&conn->id.generation, __ATOMIC_ACQUIRE) == generation ? conn : NULL;
}

/* What moves when anything is read from or written to a connection. */
struct progress {
	__u64 key, read_bytes, written_bytes, read_seq, reply_seq, server_conn, client_id;
	__u32 generation, checks;
	bool followed, adds_up, executions;
	__u8 doubt; /* enum doubt */
};

static void progress_read(const struct connection *conn, struct progress *p)
{
	const volatile struct connection *live = conn;

	memset(p, 0, sizeof(*p));
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	p->key = live->key;
	p->generation = live->id.generation;
	p->read_bytes = live->read_bytes;
	p->written_bytes = live->written_bytes;
	p->read_seq = live->read_seq;
	p->reply_seq = live->reply_seq;
	p->server_conn = live->server_conn;
	p->client_id = live->id.client_id;
	p->checks = live->checks;
	p->followed = live->mode == MODE_FOLLOWED && live->request.state == REQUEST_BOUNDARY && !live->request.carried;
	p->adds_up = pairing_adds_up(conn);
	p->doubt = live->doubt;
	p->executions = dispatch_in_step(conn);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* The struct client behind a connection; 0 when it does not point back, or is another one by its id. */
static __u64 client_of(const struct progress *p)
{
	__u64 words[2] = {};

	/* private_data: see client_behind() in bpf/server/conn_client.bpf.h */
	if (!p->server_conn || read_server(words, sizeof(words), p->server_conn + 3 * sizeof(__u64)))
		return 0;
	for (int i = 1; i >= 0; i--)
		if (words[i] && client_field(words[i], &client_layout.conn, 0) == p->server_conn &&
		    (!p->client_id || client_field(words[i], &client_layout.id, 0) == p->client_id))
			return words[i];
	return 0;
}

/* What of the request buffer is there is parsed. */
static bool client_has_parsed(__u64 client)
{
	__u64 sds = client_field(client, &client_layout.querybuf, 0);
	struct server_string querybuf;

	if (!sds)
		return true;
	return !sds_string(sds, &querybuf) && querybuf.len == client_field(client, &client_layout.qb_pos, 0);
}

static bool client_is_idle(__u64 client)
{
	return client_nothing_waits(client) && client_has_parsed(client) && client_has_executed(client) &&
	       client_has_written(client);
}

/* The counters stand still also when nothing is observed any more. */
static bool is_observed(const struct verifier *v)
{
	return v->state->ready && !v->state->executed;
}

enum verify_verdict verify_connection(const struct verifier *v, const struct reply_record *rec, bool *executions)
{
	const struct connection *conn = connection_at(v, rec->connection, rec->generation);
	struct progress before, after;
	__u64 client;

	if (!conn || !client_layout.valid)
		return VERIFY_NOT_YET;
	progress_read(conn, &before);
	if (!before.key || !before.followed || before.checks != rec->checks)
		return VERIFY_NOT_YET;
	client = client_of(&before);
	if (!client || !client_is_idle(client) || !client_is_idle(client))
		return VERIFY_NOT_YET;
	progress_read(conn, &after);
	/* NOLINTNEXTLINE(bugprone-suspicious-memory-comparison): progress_read() clears the padding, too */
	if (memcmp(&before, &after, sizeof(before)) || !is_observed(v))
		return VERIFY_NOT_YET;
	if (!before.adds_up) {
		debug_say(
			"connection %u.%u: the server's struct client shows nothing outstanding; BPF counts %llu commands read, "
			"%llu replies written",
			rec->connection, rec->generation, before.read_seq, before.reply_seq);
		return VERIFY_OUT_OF_STEP;
	}
	*executions = before.executions;
	if (before.doubt)
		debug_say("connection %u.%u: doubt: %s", rec->connection, rec->generation, debug_doubt(before.doubt));
	return before.doubt ? VERIFY_DOUBT : VERIFY_IN_STEP;
}

void verify_refute(const struct verifier *v, __u32 number, __u32 generation)
{
	struct connection *conn = connection_at(v, number, generation);

	if (conn)
		__atomic_store_n(&conn->refuted, 1, __ATOMIC_RELEASE);
}
