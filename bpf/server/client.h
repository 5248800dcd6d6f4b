/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The server's struct client, and the strings behind it, over offsets that layout.h explains. Whatever is read may
 * change while it is read, or be no such thing: it is checked before anybody believes it.
 */
#ifndef REPLYLOG_BPF_SERVER_CLIENT_H
#define REPLYLOG_BPF_SERVER_CLIENT_H

#include "bpf/port.h"

/* A field is the first of the eight bytes from its offset on. */
static __always_inline __u64 field_value(const volatile struct layout_field *field, __u64 word)
{
	return field->size == 1 ? (__u8)word : field->size == 2 ? (__u16)word : field->size == 4 ? (__u32)word : word;
}

/* The value of a field; missing says what a field means that this version doesn't have. */
static __always_inline __u64 client_field(__u64 client, const volatile struct layout_field *field, __u64 missing)
{
	__u64 value = 0;

	if (field->offset == LAYOUT_ABSENT)
		return missing;
	if (env_read_server(&value, sizeof(value), client + field->offset))
		return ~0ULL;
	return field_value(field, value);
}

static __always_inline bool client_flag(__u64 client, enum client_flag flag)
{
	__u8 mask = client_layout.flag[flag].mask, byte = 0;
	__u16 offset = client_layout.flag[flag].offset;

	if (offset == LAYOUT_ABSENT)
		return false;
	return !env_read_server(&byte, sizeof(byte), client + offset) && byte & mask;
}

/* A string of the server's: where its bytes are, and how many. */
struct server_string {
	__u64 addr;
	__u64 len;
};

/* The header before an sds' bytes: its type in the low bits of the last byte (src/sds.h, in all versions). */
#define SDS_TYPE(flags) ((flags)&7)
#define SDS_TYPE_5 0
#define SDS_TYPE_8 1
#define SDS_TYPE_64 4

/* Types 16, 32 and 64: length and room, of 2, 4 or 8 bytes each, before the byte that says so. */
static __always_inline int sds_long(__u64 sds, __u32 type, struct server_string *out)
{
	__u64 words[2] = {}, size, mask;

	if (type > SDS_TYPE_64)
		return -1;
	size = 1ULL << (type - SDS_TYPE_8);
	mask = type == SDS_TYPE_64 ? ~0ULL : (1ULL << 8 * size) - 1;
	if (env_read_server(&words[0], sizeof(words[0]), sds - 1 - 2 * size) ||
	    env_read_server(&words[1], sizeof(words[1]), sds - 1 - size))
		return -1;
	out->len = words[0] & mask;
	return out->len <= (words[1] & mask) ? 0 : -1;
}

/* 0, or -1 when there is no sds whose header is in order. */
static __always_inline int sds_string(__u64 sds, struct server_string *out)
{
	__u8 head[3] = {}; /* of types 5 and 8: length, room, type */
	__u32 type;

	out->addr = sds;
	/* Type 5 has one byte only, and what is before it may not be there. */
	if (env_read_server(head, sizeof(head), sds - sizeof(head)) &&
	    (env_read_server(&head[2], 1, sds - 1) || SDS_TYPE(head[2]) != SDS_TYPE_5))
		return -1;
	type = SDS_TYPE(head[2]);
	if (type == SDS_TYPE_5) {
		out->len = head[2] >> 3;
		return 0;
	}
	if (type != SDS_TYPE_8)
		return sds_long(sds, type, out);
	out->len = head[0];
	return head[0] <= head[1] ? 0 : -1;
}

/* The type, bits and pointer of an object. */
#define OBJECT_HEAD 16
/* An sds of up to 255 bytes has this much before its bytes: length, room, type. */
#define SDS_SHORT_HEADER 3
/*
 * An object's first byte, in all versions: its type (OBJ_STRING is 0) in the low half, its encoding in the other
 * (struct redisObject in src/server.h; user/code/layout_dwarf.c checks that). Of the strings, OBJ_ENCODING_RAW and _EMBSTR
 * are sds. What is encoded as a number the parser has not made: it is not as the client sent it.
 */
#define OBJECT_RAW 0x00
#define OBJECT_EMBSTR 0x80

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

	if (client_layout.robj_ptr.offset != 8 || env_read_server(words, sizeof(words), object))
		return 0;
	if (head[0] != OBJECT_RAW && head[0] != OBJECT_EMBSTR)
		return 0;
	if (!object_bit(head, &client_layout.robj_embedded))
		return words[1];
	if (object_bit(head, &client_layout.robj_key))
		return 0;
	return object + 8 + (object_bit(head, &client_layout.robj_expiry) ? 8 : 0) + SDS_SHORT_HEADER;
}

static __always_inline int object_string(__u64 object, struct server_string *out)
{
	__u64 sds = object ? object_sds(object) : 0;

	return sds ? sds_string(sds, out) : -1;
}

/* private_data is word 3 (redis 6.0-7.0) or 4 (redis 7.2 on, valkey) of struct connection (src/connection.h). */
static __always_inline bool connection_points_at(__u64 conn, __u64 client)
{
	__u64 words[2] = {};

	return !env_read_server(words, sizeof(words), conn + 3 * sizeof(__u64)) &&
	       (words[0] == client || words[1] == client);
}

#endif
