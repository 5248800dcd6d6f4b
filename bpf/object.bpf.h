/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* The server's string objects, over offsets that layout.h explains. */
#ifndef REPLYLOG_OBJECT_BPF_H
#define REPLYLOG_OBJECT_BPF_H

#include "join.bpf.h"

/* The type, bits and pointer of an object. */
#define OBJECT_HEAD 16
/* An sds of up to 255 bytes has this much before its bytes: length, room, type (sdshdr8 in src/sds.h). */
#define SDS_SHORT_HEADER 3

static __always_inline bool object_bit(const __u8 *head, const volatile struct layout_bit *bit)
{
	__u32 at = bit->offset;

	return at < OBJECT_HEAD && head[at] & bit->mask;
}

/* Address of the sds of a string object, 0 when it can't be told. */
static __always_inline __u64 object_sds(__u64 object)
{
	__u64 words[OBJECT_HEAD / 8] = {};
	const __u8 *head = (const __u8 *)words;

	if (client_layout.robj_ptr.offset != 8 || bpf_probe_read_user(words, sizeof(words), (void *)object))
		return 0;
	if (!object_bit(head, &client_layout.robj_embedded))
		return words[1];
	if (object_bit(head, &client_layout.robj_key))
		return 0;
	return object + 8 + (object_bit(head, &client_layout.robj_expiry) ? 8 : 0) + SDS_SHORT_HEADER;
}

/* The i-th argument of the command that a client has at hand: its object, 0 when it can't be told. */
static __always_inline __u64 client_argument(__u64 client, __u32 i)
{
	__u64 argv = client_field(client, &client_layout.argv, 0), object = 0;

	if (!argv || argv == ~0ULL || bpf_probe_read_user(&object, sizeof(object), (void *)(argv + 8 * i)))
		return 0;
	return object;
}

#endif
