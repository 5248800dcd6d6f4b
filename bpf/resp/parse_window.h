/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The server's bytes, a window at a time. A read or write hands us pieces (one buffer, or an iovec); they are copied
 * into a window, where headers are parsed in place. Payload is skipped by arithmetic and mostly never copied. A header
 * that is cut by the end of a window, a piece or a whole read or write is carried over in front of the next bytes:
 *
 *   window:   [ carried, right-aligned ][ bytes of this piece .......... ][ slack for word loads ]
 *             0                         CARRY                            CARRY + WINDOW
 */
#ifndef REPLYLOG_BPF_RESP_PARSE_WINDOW_H
#define REPLYLOG_BPF_RESP_PARSE_WINDOW_H

#include "bpf/env.h"
#include "bpf/resp/resp.h"

#define CARRY 32
#define WINDOW 2048
#define WINDOW_END (CARRY + WINDOW)
/* Word loads may reach past the end; and the verifier can't relate an offset to a length: it wants room for both. */
#define WINDOW_SLACK (WINDOW_END + 64)

/* iovec entries fetched at once: IOV_MAX (1024) of them are too many for the scratch area. */
#define IOV_BATCH 64
#ifndef IOV_MAX
#define IOV_MAX 1024
#endif

struct server_iovec {
	__u64 base;
	__u64 len;
};

/* The last CARRY bytes before the cut; the first CARRY - len of them mean nothing. */
struct carry {
	__u64 words[CARRY / 8];
};

/* Where we are in one read or write. */
struct cursor {
	__u64 addr;     /* server address of the current piece's next byte that is neither in the window nor skipped */
	__u64 left;     /* bytes of the current piece from addr on */
	__u64 rest;     /* bytes of this read or write after the current piece */
	__u64 iov_addr; /* server address of the next iovec that is not in work->iov; 0 when there is no iovec */
	__u32 iov_left; /* iovecs from iov_addr on */
	__u32 iov_next; /* next one in work->iov */
	__u32 iov_have; /* how many are in work->iov */
	__u32 pos;      /* next byte to parse, and the end of what the window holds */
	__u32 end;
	__u32 pad;
};

/*
 * What something that was short and whole (an argument, a reply, an element) began with, and its size: another one that
 * begins alike has the same size, whatever the rest of it is. Most do, and to compare costs less than to parse: nothing
 * that comes after has to wait for what is compared.
 */
struct header_cache {
	__u64 header;
	__u64 mask;    /* the bytes of the header that are compared */
	__u32 size;    /* 0: nothing is known */
	__u32 payload; /* where the payload begins */
};

/* Arguments of a command that are looked at in one step: see request_whole(). */
#define WHOLE_ARGS 4

/* A verdict that says which form was refused, at no cost: it is another constant that is stored. */
#define VERDICT_OF_FORM(verdict, form) ((verdict) | (form) << 8)
#define VERDICT_KIND(verdict) ((verdict)&0xff)
#define VERDICT_FORM(verdict) ((verdict) >> 8 & 0xff)

/*
 * Framing of one read or write, in the thread's scratch area. Not on the stack: the verifier follows every value there
 * through every path of a loop, and gives up; what lies in a map it takes as unknown, once.
 */
struct work {
	__u8 bytes[WINDOW_END + WINDOW_SLACK];
	struct server_iovec iov[IOV_BATCH];
	struct cursor cur;
	__u64 now;     /* CLOCK_MONOTONIC ns; 0 until somebody asks */
	__u32 verdict; /* enum request_verdict or reply_verdict, with VERDICT_OF_FORM() */
	__u32 run;     /* requests: the window's bytes run..pos belong to heads and are not appended yet */
	__u32 at;      /* how far a short cut has looked, and what it has just seen: see env_reload() */
	__u32 size;
	__u64 number;
	__u64 plain_name; /* the last name of a plain command that was looked up, when it has under 8 bytes: they, and how many */
	struct header_cache reply_headers;
	struct header_cache arg_headers[WHOLE_ARGS]; /* the n-th argument of one command is like that of the last one */
};

/* Results of the parts of a step. */
enum {
	STEP_ON = 0,    /* go on */
	STEP_STOP = 1,  /* the input is used up, or there is a verdict */
	STEP_AGAIN = 2, /* look again at where we are */
};

/* What a loop's steps are given. */
struct frame {
	struct connection *conn;
	struct work *work;
};

/* Learns from the first header bytes at start, behind which come payload bytes and what ends them. header 0: nothing. */
static __always_inline void header_cache_learn(struct header_cache *cache, const __u8 *start, __u32 header, __u32 payload)
{
	cache->mask = header ? ~0ULL >> (64 - 8 * header) : 0;
	cache->header = env_load64(start) & cache->mask;
	cache->size = header ? header + payload : 0;
	cache->payload = header;
}

/* Whether what starts here is known by how it begins. */
static __always_inline bool header_cache_knows(const struct header_cache *cache, const __u8 *start)
{
	return cache->size && (env_load64(start) & cache->mask) == cache->header;
}

/* Bytes of this read or write that are not parsed yet. */
static __always_inline __u64 cursor_unparsed(const struct cursor *cur)
{
	return cur->rest + cur->left + (cur->end - cur->pos);
}

static __always_inline void carry_save(struct carry *carry, const struct work *work, __u32 end)
{
	__u32 from = end - CARRY, i;

	env_opaque(from);
	if (from > WINDOW)
		return;
	for (i = 0; i < CARRY / 8; i++)
		carry->words[i] = env_load64(work->bytes + from + 8 * i);
}

static __always_inline void carry_restore(const struct carry *carry, struct work *work)
{
	__u32 i;

	for (i = 0; i < CARRY / 8; i++)
		((__u64 *)work->bytes)[i] = carry->words[i];
}

/* Starts on one buffer, with carried bytes (0 to CARRY) already in front of the window. */
static __always_inline void cursor_on_buffer(struct cursor *cur, __u64 addr, __u64 len, __u32 carried)
{
	cur->addr = addr;
	cur->left = len;
	cur->rest = 0;
	cur->iov_addr = 0;
	cur->iov_left = cur->iov_next = cur->iov_have = 0;
	cur->pos = CARRY - carried;
	cur->end = CARRY;
}

/* Starts on the first len bytes of an iovec array. */
static __always_inline void cursor_on_iovec(struct cursor *cur, __u64 iov_addr, __u32 iovcnt, __u64 len, __u32 carried)
{
	cursor_on_buffer(cur, 0, 0, carried);
	cur->rest = len;
	cur->iov_addr = iov_addr;
	cur->iov_left = iovcnt;
}

static __always_inline int cursor_fetch_iovecs(struct work *work)
{
	struct cursor *cur = &work->cur;
	__u32 n = cur->iov_left < IOV_BATCH ? cur->iov_left : IOV_BATCH;

	env_opaque(n);
	if (!n || n > IOV_BATCH)
		return -1;
	if (env_read_server(work->iov, n * sizeof(work->iov[0]), cur->iov_addr))
		return -1;
	cur->iov_addr += n * sizeof(work->iov[0]);
	cur->iov_left -= n;
	cur->iov_next = 0;
	cur->iov_have = n;
	return 0;
}

/* Moves on to the next piece; rest > 0. 0, or -1 where the iovec can't be read or ends too early. */
static __always_inline int cursor_next_piece(struct work *work)
{
	struct cursor *cur = &work->cur;
	__u32 i;

	if (cur->iov_next >= cur->iov_have && cursor_fetch_iovecs(work))
		return -1;
	i = cur->iov_next;
	env_opaque(i);
	if (i >= IOV_BATCH)
		return -1;
	cur->addr = work->iov[i].base;
	cur->left = work->iov[i].len < cur->rest ? work->iov[i].len : cur->rest;
	cur->rest -= cur->left;
	cur->iov_next = i + 1;
	return 0;
}

/*
 * Makes more bytes visible at pos; left > 0. What lies between pos and end (under CARRY bytes) is moved in front.
 * 0, or -1 where the server's memory can't be read.
 */
static __always_inline int window_refill(struct work *work)
{
	struct cursor *cur = &work->cur;
	__u32 carried = cur->end - cur->pos;
	__u32 n = cur->left < WINDOW ? cur->left : WINDOW;

	env_opaque(n);
	if (!n || n > WINDOW)
		return -1;
	if (carried && cur->end != CARRY)
		carry_save((struct carry *)work->bytes, work, cur->end);
	if (env_read_server(work->bytes + CARRY, n, cur->addr))
		return -1;
	cur->addr += n;
	cur->left -= n;
	cur->pos = CARRY - carried;
	cur->end = CARRY + n;
	return 0;
}

/*
 * Skips n bytes of payload, first in the window, then in the piece without reading it. Returns how many of them lie
 * beyond the piece's end.
 */
static __always_inline __u64 cursor_skip(struct cursor *cur, __u64 n)
{
	__u32 in_window = cur->end - cur->pos;

	if (n < in_window) {
		cur->pos += n;
		return 0;
	}
	n -= in_window;
	cur->pos = cur->end = CARRY;
	if (n <= cur->left) {
		cur->addr += n;
		cur->left -= n;
		return 0;
	}
	n -= cur->left;
	cur->left = 0;
	return n;
}

#endif
