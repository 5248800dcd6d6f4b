/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A call of the server's connection layer that a thread is in, and the calls that it makes itself.
 */
#ifndef REPLYLOG_BPF_TAP_IO_CALL_H
#define REPLYLOG_BPF_TAP_IO_CALL_H

#include "bpf/abi/shared.h"
#include "bpf/resp/parse_window.h"

struct io_call {
	__u32 op;     /* enum io_op; 0: none */
	__u32 handed; /* calls that it has made itself: see io_call_hands_over() */
	__u64 conn;   /* its arguments */
	__u64 addr;
	__u64 len;
	__u64 sp; /* where its return address is; matches the return to the entry */
};

/* Is this write what comes next in the iovec of a writev? */
static __always_inline bool io_call_is_next_buffer(const struct io_call *outer, __u64 addr, __u64 len)
{
	struct server_iovec iov = {};
	__u32 n = outer->handed;

	return n < (__u32)outer->len && !env_read_server(&iov, sizeof(iov), outer->addr + n * sizeof(iov)) &&
	       iov.base == addr && iov.len == len;
}

/*
 * Is this call part of the one that the thread is in? connTLSWritev hands its buffers to connTLSWrite, one by one or copied
 * together, or jumps to it (src/tls.c in all versions): the outer call says which bytes left, and counts. Should the
 * outer one's return never come, the next write is not what its iovec holds, and tells that bytes were missed, as any
 * other call of the thread does. Only a copy is not in the iovec, and it is the first.
 */
static __always_inline bool io_call_hands_over(struct io_call *outer, enum io_op op, __u64 conn, __u64 addr, __u64 len,
					       __u64 sp)
{
	if (outer->op != IO_WRITEV || op != IO_WRITE || outer->conn != conn || sp > outer->sp)
		return false;
	if (outer->handed && !io_call_is_next_buffer(outer, addr, len))
		return false;
	outer->handed++;
	return true;
}

#endif
