/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Plain or TLS: word 0 of struct connection points at the functions of its type (struct ConnectionType in redis 6.0-8.6,
 * valkey 8.0-9.1 src/connection.h), one of which reads. Where it is in there differs from version to version.
 */
#ifndef REPLYLOG_BPF_SERVER_CONN_TYPE_BPF_H
#define REPLYLOG_BPF_SERVER_CONN_TYPE_BPF_H

#include "bpf/maps.bpf.h"

/* More functions than any version's type has. */
#define CONN_TYPE_WORDS 48

struct conn_type_search {
	__u64 type;
	bool plain;
};

static long conn_type_step(__u32 i, void *data)
{
	struct conn_type_search *search = data;
	__u64 function = 0;

	if (bpf_probe_read_user(&function, sizeof(function), (void *)(search->type + i * sizeof(function))))
		return 1;
	search->plain = function == plain_read;
	return search->plain;
}

static __always_inline bool conn_is_plain(__u64 server_conn)
{
	struct conn_type_search search = {};

	if (!bpf_probe_read_user(&search.type, sizeof(search.type), (void *)server_conn))
		env_loop(CONN_TYPE_WORDS, conn_type_step, &search);
	return search.plain;
}

#endif
