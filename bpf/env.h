/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What the engine needs from where it runs. The engine (window, framer, argv log, requests, replies) is the same code
 * in the kernel and in the unit tests; only these few words differ.
 */
#ifndef REPLYLOG_BPF_ENV_H
#define REPLYLOG_BPF_ENV_H

#ifdef __bpf__

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>

/* Copies n bytes of the server's memory. 0, or negative where the page is not resident. */
#define env_read_server(dst, n, addr) bpf_probe_read_user(dst, n, (const void *)(addr))
/* memcpy of a length known only at run time, from memory that is ours. */
#define env_copy(dst, n, src) bpf_probe_read_kernel(dst, n, src)
/* Calls step(i, ctx) until it returns 1, at most n times. */
#define env_loop(n, step, ctx) bpf_loop(n, step, ctx, 0)
#define env_now() bpf_ktime_get_ns()
/* Adds, exchanges, and gives what was there; all that was loaded and stored before stays before it, on any machine. */
#define env_add(p, n) __sync_fetch_and_add(p, n)
#define env_exchange(p, value) __sync_lock_test_and_set(p, value)
/* clang gives up the eight-byte load when it can't prove alignment; both architectures load unaligned. */
#define env_load64(p) (*(const __u64 *)(p))
#define env_store64(p, word) (*(__u64 *)(p) = (word))
/* Hides a value's history from the compiler, so that the bounds check right after it is the one the verifier sees. */
#define env_opaque(v) asm volatile("" : "+r"(v))
/*
 * Reads a number back from the map memory it was stored in. The verifier then knows nothing of it any more, and the
 * paths that led there become one: without that it follows each of them through all that comes after.
 */
#define env_reload(field) (*(volatile typeof(field) *)&(field))
#define env_noinline static __noinline
#define env_global __noinline

#else

#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

static inline __u64 env_load64(const void *p)
{
	__u64 word;

	memcpy(&word, p, sizeof(word));
	return word;
}

static inline void env_store64(void *p, __u64 word)
{
	memcpy(p, &word, sizeof(word));
}

static inline long env_copy(void *dst, __u32 n, const void *src)
{
	memcpy(dst, src, n);
	return 0;
}

/* user/session/verify.c reads another process. Nothing of a process' lies in the lowest page, nor in the kernel's half. */
#ifndef env_read_server
static inline long env_read_server(void *dst, __u32 n, __u64 addr)
{
	return addr < 4096 || addr >> 63 ? -1 : env_copy(dst, n, (const void *)(unsigned long)addr);
}
#endif

static inline long env_loop(__u32 n, long (*step)(__u32, void *), void *ctx)
{
	__u32 i;

	for (i = 0; i < n; i++)
		if (step(i, ctx))
			return i + 1;
	return i;
}

__u64 env_now(void);
#define env_add(p, n) __atomic_fetch_add(p, n, __ATOMIC_SEQ_CST)
#define env_exchange(p, value) __atomic_exchange_n(p, value, __ATOMIC_SEQ_CST)
#define env_opaque(v) ((void)(v))
#define env_reload(field) (field)
/* Not every test calls all of them; the compiler of the BPF programs tells of what nobody calls. */
#define env_noinline __attribute__((unused)) static
#define env_global env_noinline
#ifndef __always_inline
#define __always_inline inline __attribute__((always_inline))
#endif

#endif

/* BPF_MAX_LOOPS (kernel/bpf/bpf_iter.c, since 5.17) */
#define ENV_LOOP_MAX (1U << 23)

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "numbers are parsed a little-endian word at a time");

#endif
