/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Each read and write of a TCP connection against the kernel's own counters of its socket: a call that was not seen is
 * noticed.
 */
#ifndef REPLYLOG_BPF_ENGINE_BYTE_CHECK_BPF_H
#define REPLYLOG_BPF_ENGINE_BYTE_CHECK_BPF_H

#include "bpf/server/sock.bpf.h"

/*
 * From here on every read and write of a TCP socket is checked against the kernel's own counters, so that none is
 * missed unnoticed. len: bytes of the current read, which the kernel's counters include already and ours do not. Not
 * for TLS, whose plain text they don't count: its first read never has as many bytes as the socket had received.
 */
static __always_inline void connection_start_accounting(struct connection *conn, __u64 len)
{
	struct sock *sk = (struct sock *)conn->sk;

	conn->counted = is_tcp(sk);
	if (!conn->counted)
		return;
	conn->read_base = tcp_handed(sk) - tcp_fin(sk) - (__u32)(conn->read_bytes + len);
	conn->write_base = tcp_taken(sk) - (__u32)conn->written_bytes;
}

/* The kernel has counted more than these len bytes of a read: the input's end, or a byte of urgent data? */
static __noinline bool connection_has_no_more(struct connection *conn, __u64 len, __u32 more)
{
	struct sock *sk = (struct sock *)conn->sk;
	__u32 fin = tcp_fin(sk);

	if (more == fin)
		return true;
	if (more != fin + 1 || !tcp_passed_urgent(sk, len, fin))
		return false;
	conn->read_base++;
	return true;
}

/* Bytes that the kernel has handed to the server, and that we have not seen, these len bytes being seen. */
static __always_inline __u32 connection_unread(const struct connection *conn, __u64 len)
{
	return tcp_handed((struct sock *)conn->sk) - conn->read_base - (__u32)(conn->read_bytes + len);
}

/* Is what the kernel has handed to the server, these len bytes included, all that we have seen? */
static __always_inline bool connection_has_all_read(struct connection *conn, __u64 len)
{
	__u32 more;

	if (!conn->counted)
		return true;
	more = connection_unread(conn, len);
	return !more || connection_has_no_more(conn, len, more);
}

/* Is what the kernel has taken from the server, these len bytes included, all that we have seen? */
static __always_inline bool connection_has_all_written(const struct connection *conn, __u64 len)
{
	return !conn->counted || tcp_taken((struct sock *)conn->sk) == conn->write_base + (__u32)(conn->written_bytes + len);
}

#endif
