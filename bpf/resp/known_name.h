/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Which commands are the server's own, and need no look: a hash table without collisions. User space fills it, and looks
 * for a seed that leads to none (user/server/known_names.c); BPF looks up one name with one load.
 */
#ifndef REPLYLOG_BPF_RESP_KNOWN_NAME_H
#define REPLYLOG_BPF_RESP_KNOWN_NAME_H

#include "bpf/resp/resp.h"

#define KNOWN_NAMES_BITS 12
#define KNOWN_NAMES (1 << KNOWN_NAMES_BITS)

/* Lower-cases letters; what is not a letter can't become one of those compared with. */
#define LOWER(word) ((word) | BYTES(0x20))

/*
 * Of a name of len bytes; two words from name on are readable. Of a longer name its 16 first bytes count, and its
 * length: no two commands of a server's differ only behind that. Never 0, but by a chance of 1 to 2^64.
 */
static __always_inline __u64 known_name_key(const __u8 *name, __u64 len)
{
	__u64 head = LOWER(first_bytes(env_load64(name), len < 8 ? len : 8));
	__u64 tail = len > 8 ? LOWER(first_bytes(env_load64(name + 8), len < 16 ? len - 8 : 8)) : 0;

	return (head + len) * 0x9e3779b97f4a7c15ULL ^ (tail + 1) * 0xc2b2ae3d27d4eb4fULL;
}

/* Below KNOWN_NAMES. */
static __always_inline __u32 known_name_slot(__u64 key, __u64 seed)
{
	return (key * seed) >> (64 - KNOWN_NAMES_BITS);
}

#endif
