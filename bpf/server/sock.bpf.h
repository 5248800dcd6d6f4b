/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The kernel's socket behind a connection: its address, and its own counts of what was read and written. */
#ifndef REPLYLOG_BPF_SERVER_SOCK_BPF_H
#define REPLYLOG_BPF_SERVER_SOCK_BPF_H

#include "bpf/maps.bpf.h"
#include <bpf/bpf_core_read.h>

#define AF_UNIX 1
#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_TCP 6
#define TCP_ESTABLISHED 1

/* The socket behind the connection's fd, or NULL. */
static __always_inline struct sock *connection_sock(__u64 conn)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct fdtable *fdt;
	struct file **files, *file = NULL;
	struct socket *socket;
	__s32 fd;

	if (fd_offset < 0 || bpf_probe_read_user(&fd, sizeof(fd), (void *)(conn + fd_offset)) || fd < 0)
		return NULL;
	fdt = BPF_CORE_READ(task, files, fdt);
	if ((__u32)fd >= BPF_CORE_READ(fdt, max_fds))
		return NULL;
	files = BPF_CORE_READ(fdt, fd);
	if (bpf_probe_read_kernel(&file, sizeof(file), files + fd) || !file)
		return NULL;
	socket = BPF_CORE_READ(file, private_data);
	if (BPF_CORE_READ(socket, file) != file)
		return NULL;
	return BPF_CORE_READ(socket, sk);
}

static __always_inline void sock_address(struct sock *sk, struct conn_id *id)
{
	__u16 family = sk ? BPF_CORE_READ(sk, __sk_common.skc_family) : 0;

	id->family = FAMILY_UNKNOWN;
	id->port = 0;
	if (family == AF_UNIX) {
		id->family = FAMILY_UNIX;
		return;
	}
	if (family != AF_INET && family != AF_INET6)
		return;
	id->port = __builtin_bswap16(BPF_CORE_READ(sk, __sk_common.skc_dport));
	if (family == AF_INET) {
		__be32 addr = BPF_CORE_READ(sk, __sk_common.skc_daddr);

		id->family = FAMILY_INET;
		__builtin_memcpy(id->addr, &addr, sizeof(addr));
		return;
	}
	id->family = FAMILY_INET6;
	BPF_CORE_READ_INTO(&id->addr, sk, __sk_common.skc_v6_daddr.in6_u.u6_addr8);
}

static __always_inline bool is_tcp(struct sock *sk)
{
	return sk && BPF_CORE_READ(sk, sk_protocol) == IPPROTO_TCP;
}

/*
 * Did a read of this TCP socket that returned len bytes pass a byte of urgent data? It is not handed to the server, but
 * counts in copied_seq; what was urgent last may be what the read stopped at, when the one passed was given up for it
 * (tcp_recvmsg_locked() in net/ipv4/tcp.c, tcp_check_urg() in net/ipv4/tcp_input.c). fin: see tcp_fin().
 */
static __always_inline bool tcp_passed_urgent(struct sock *sk, __u64 len, __u32 fin)
{
	struct tcp_sock *tp = (struct tcp_sock *)sk;

	return BPF_CORE_READ(tp, copied_seq) - fin - BPF_CORE_READ(tp, urg_seq) <= len + 1;
}

/*
 * Was a read that returned len bytes the first one of this TCP socket? Then all that was received and is no longer
 * queued is what it returned. A FIN counts as one byte, in the queue as its last, and a read that empties the queue
 * may take it along (tcp_recvmsg_locked() in net/ipv4/tcp.c). The softirq that receives may run meanwhile:
 * tcp_rcv_nxt_update() (net/ipv4/tcp_input.c) adds to bytes_received just before it moves rcv_nxt, so a difference is
 * looked at twice more.
 */
static __always_inline bool first_read(struct sock *sk, __u64 len)
{
	struct tcp_sock *tp = (struct tcp_sock *)sk;
	__u32 queued, fin, handed;
	int i;

	if (!is_tcp(sk))
		return false;
	for (i = 0; i < 3; i++) {
		queued = BPF_CORE_READ(tp, rcv_nxt) - BPF_CORE_READ(tp, copied_seq);
		fin = !queued && BPF_CORE_READ(sk, __sk_common.skc_state) != TCP_ESTABLISHED;
		handed = BPF_CORE_READ(tp, bytes_received) - queued - fin;
		if (handed == len || (handed == len + 1 && tcp_passed_urgent(sk, len, fin)))
			return true;
	}
	return false;
}

/*
 * What the kernel has handed to the server of this TCP socket's input (copied_seq), and taken from it (write_seq),
 * modulo 2^32. Both are up to date when the call that moved them ends (tcp_recvmsg_locked(), tcp_sendmsg_locked() in
 * net/ipv4/tcp.c).
 */
static __always_inline __u32 tcp_handed(struct sock *sk)
{
	struct tcp_sock *tp = (struct tcp_sock *)sk;

	return BPF_CORE_READ(tp, copied_seq);
}

/* 1 when that includes the end of the input, which counts as a byte. */
static __always_inline __u32 tcp_fin(struct sock *sk)
{
	struct tcp_sock *tp = (struct tcp_sock *)sk;

	return BPF_CORE_READ(sk, __sk_common.skc_state) != TCP_ESTABLISHED &&
	       BPF_CORE_READ(tp, rcv_nxt) == BPF_CORE_READ(tp, copied_seq);
}

static __always_inline __u32 tcp_taken(struct sock *sk)
{
	struct tcp_sock *tp = (struct tcp_sock *)sk;

	return BPF_CORE_READ(tp, write_seq);
}

/* Has the server sent something on this TCP socket? Before a client's first read it never has. */
static __always_inline bool has_sent(struct sock *sk)
{
	return BPF_CORE_READ((struct tcp_sock *)sk, bytes_sent) != 0;
}

#endif
