/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The server's struct client behind its struct connection, with its id. Never guessed: it is read over a pointer that must
 * point back.
 */
#ifndef REPLYLOG_BPF_SERVER_CONN_CLIENT_BPF_H
#define REPLYLOG_BPF_SERVER_CONN_CLIENT_BPF_H

#include "bpf/maps.bpf.h"

/* What the server's struct connection tells about its client. */
struct conn_client {
	__u64 conn;
	__u64 at;            /* its address; 0: the connection is no client's */
	__u64 id;            /* 0 unknown */
	__u64 write_handler; /* not 0: output waits for the socket to become writable */
	__u64 read_handler;  /* the server's function that reads it */
};

/* The fields that matter lie in its first words in all versions: redis 6.0-8.6, valkey 8.0-9.1 src/connection.h. */
#define CONN_WORDS 8

/*
 * private_data is word 3 (redis 6.0-7.0) or 4 (redis 7.2 on, valkey); the write handler lies two words on, and then the
 * read handler.
 */
static __always_inline bool client_behind(__u64 conn, const __u64 *words, int private_data, struct conn_client *out)
{
	__u64 client[3]; /* id, then conn in word 1 (valkey, redis 6) or 2 (redis 7-8) */

	if (!words[private_data] || bpf_probe_read_user(client, sizeof(client), (void *)words[private_data]))
		return false;
	if (client[1] != conn && client[2] != conn)
		return false;
	out->at = words[private_data];
	out->id = client[0];
	out->write_handler = words[private_data + 2];
	out->read_handler = words[private_data + 3];
	return true;
}

static __always_inline bool connection_client(__u64 conn, struct conn_client *out)
{
	__u64 words[CONN_WORDS];

	out->conn = conn;
	out->at = out->id = out->write_handler = out->read_handler = 0;
	if (bpf_probe_read_user(words, sizeof(words), (void *)conn))
		return false;
	return client_behind(conn, words, 4, out) || client_behind(conn, words, 3, out);
}

#endif
