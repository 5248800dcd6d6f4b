/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Which form a reply can have: what changes a connection's state is believed only from a reply that can be nothing else.
 */
#ifndef REPLYLOG_BPF_CONN_REPLY_FORM_H
#define REPLYLOG_BPF_CONN_REPLY_FORM_H

#include "bpf/conn/connection.h"
#include "bpf/resp/foreign.h"

/* How replies begin: "+OK\r\n", "+QUEUED\r\n". */
#define OK_LINE WORD8('+', 'O', 'K', '\r', '\n', 0, 0, 0)
#define QUEUED_LINE WORD8('+', 'Q', 'U', 'E', 'U', 'E', 'D', '\r')
/* So much of HELLO's reply shows that it is one. */
#define HELLO_PEEK 13

/* Does a reply show all that may be looked at of it? A line does when it ends. */
static __always_inline bool attribution_has_enough(const __u8 *bytes, __u32 avail, __u8 class)
{
	__u32 i;

	if (*bytes != '+' && *bytes != '-')
		return class != COMMAND_HELLO || avail >= HELLO_PEEK;
	if (avail >= REFUSAL_PEEK)
		return true;
	for (i = 0; i < 4; i++)
		if (first_bytes(bytes_equal(env_load64(bytes + 8 * i), '\n'), avail > 8 * i ? avail - 8 * i : 0))
			return true;
	return false;
}

/* "%7\r\n$6\r\nserver" or, in RESP2, "*14\r\n...": the beginning of no other reply (helloCommand(), src/networking.c). */
static __always_inline bool is_hello(const __u8 *bytes)
{
	const __u64 server = WORD8('$', '6', '\r', '\n', 's', 'e', 'r', 'v');

	return (*bytes == '%' || *bytes == '*') && (env_load64(bytes + 4) == server || env_load64(bytes + 5) == server);
}

/* Can a command of this class be answered so, which is no error? */
static __always_inline bool reply_fits_class(__u8 class, const __u8 *bytes)
{
	__u64 head = env_load64(bytes);

	switch (class) {
	case COMMAND_MULTI:
	case COMMAND_DISCARD:
	case COMMAND_SELECT:
	case COMMAND_IDENTITY:
	case COMMAND_AUTH:
		return (head & 0xffffffffff) == OK_LINE;
	case COMMAND_RESET:
		return head == WORD8('+', 'R', 'E', 'S', 'E', 'T', '\r', '\n');
	case COMMAND_HELLO:
		return is_hello(bytes);
	case COMMAND_EXEC:
		return *bytes == '*' || *bytes == '_';
	}
	return !command_subscribes(class); /* those are confirmed */
}

/* The same of the current command, which may be queued in a transaction. QUIT never is. */
static __always_inline bool reply_fits(const struct connection *conn, __u8 class, const __u8 *bytes)
{
	__u64 head = env_load64(bytes);

	if (*bytes == '-' || *bytes == '!')
		return true;
	if (!conn->session.multi && (class == COMMAND_EXEC || class == COMMAND_DISCARD))
		return false;
	if (conn->session.multi && !command_ends_queueing(class))
		return head == QUEUED_LINE || (class == COMMAND_PLAIN && (head & 0xffffffffff) == OK_LINE);
	return reply_fits_class(class, bytes);
}

/*
 * Errors that raise a doubt whatever they answer. -REDIRECT, -MOVED and -ASK name a host, which may be anything
 * (cluster-announce-ip; clusterRedirectClient() in src/cluster.c). -UNBLOCKED answers a command that CLIENT PAUSE has
 * postponed, and which is executed and answered later all the same (clientCommand() in redis 7.0 src/networking.c).
 */
static __always_inline bool error_is_doubtful(const __u8 *bytes)
{
	__u64 head = env_load64(bytes);

	return head == WORD8('-', 'R', 'E', 'D', 'I', 'R', 'E', 'C') ||
	       head == WORD8('-', 'U', 'N', 'B', 'L', 'O', 'C', 'K') ||
	       first_bytes(head, 7) == WORD8('-', 'M', 'O', 'V', 'E', 'D', ' ', 0) ||
	       first_bytes(head, 5) == WORD8('-', 'A', 'S', 'K', ' ', 0, 0, 0);
}

#endif
