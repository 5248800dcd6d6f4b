/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * --argv-from dispatch: what the server's structs say of a command at the entry of call(), before anything of it is
 * executed: its argv, in the form that record.h describes, and who its client is. Argv is as it was sent: the server
 * rewrites it only while it executes (rewriteClientCommandVector(), tryObjectEncoding() in redis 6.0-8.6 and valkey
 * 8.0-9.1), module filters apart (moduleCallCommandFilters(), before call()).
 *
 * All or nothing: where a struct is not as it must be, nothing is kept, and the argv out of the request's bytes serves.
 */
#ifndef REPLYLOG_BPF_DISPATCH_ARGV_SNAPSHOT_H
#define REPLYLOG_BPF_DISPATCH_ARGV_SNAPSHOT_H

#include "bpf/server/client.h"
#include "bpf/abi/record.h"

/*
 * What is kept begins with this; then the head's argv_len bytes, then the words. Shared by nobody: see struct
 * snapshot_ring.
 */
struct argv_snapshot {
	__s32 db; /* that the client has selected; -1 unknown */
	__u16 argv_len;
	__u8 resp; /* version of the protocol; 0 unknown */
	__u8 pad;
	__u8 word[CLIENT_WORDS]; /* how long each is; 0: none, or not known */
	__u32 pad2;
};

_Static_assert(sizeof(struct argv_snapshot) == 16, "no implicit padding");

/* "!<12 digits>\r\n" and what is kept of an argument; "*<argc>\r\n". An argument of 13 digits of bytes is refused. */
#define HEAD_DIGITS 12
#define HEAD_NUMBER (1 + HEAD_DIGITS + 2)
#define SNAPSHOT_MAX 5376

/* The words take as much as this of it at most. */
#define SNAPSHOT_WORDS_MAX (CLIENT_WORDS * ARGV_MAX_ARG_BYTES)

_Static_assert(sizeof(struct argv_snapshot) + HEAD_NUMBER + ARGV_MAX_ARGS * (HEAD_NUMBER + ARGV_MAX_ARG_BYTES + 2) +
			       SNAPSHOT_WORDS_MAX <=
		       SNAPSHOT_MAX,
	       "every head has room");

/* Where a thread puts one together. What is added last may reach past SNAPSHOT_MAX before that is known. */
struct snapshot_work {
	__u8 client[CLIENT_SPAN_MAX]; /* the beginning of the struct client, client_span bytes */
	__u64 object[ARGV_MAX_ARGS];  /* the command's arguments */
	__u64 name;                   /* how argv[0] begins; what is behind its end is 0 */
	__u32 used;
	__u32 failed;
	union {
		struct argv_snapshot head;
		__u8 bytes[SNAPSHOT_MAX + ARGV_MAX_ARG_BYTES];
	};
};

/* client_field(), out of what is read already. */
static __always_inline __u64 snapshot_field(const struct snapshot_work *work, __u64 client,
					    const volatile struct layout_field *field, __u64 missing)
{
	__u64 value;

	if (field->offset + sizeof(value) > client_span)
		return client_field(client, field, missing);
	value = env_load64(work->client + field->offset);
	return field_value(field, value);
}

/*
 * Adds the first n bytes at addr. This and the next two are functions of their own, with registers enough for what they
 * check: of a number that the compiler keeps on the stack, the verifier of Linux 6.1 forgets the bounds.
 */
env_noinline int snapshot_add(struct snapshot_work *work, __u64 addr, __u64 n)
{
	__u64 used = env_reload(work->used);

	env_opaque(n);
	env_opaque(used);
	if (used > SNAPSHOT_MAX || n > ARGV_MAX_ARG_BYTES || (n && env_read_server(work->bytes + used, n, addr)))
		return -1;
	work->used = used + n;
	return 0;
}

/* Adds n bytes of two words, at most 16. */
env_noinline int snapshot_add_words(struct snapshot_work *work, __u64 low, __u64 high, __u32 n)
{
	__u64 used = env_reload(work->used);

	env_opaque(used);
	if (used > SNAPSHOT_MAX)
		return -1;
	env_store64(work->bytes + used, low);
	env_store64(work->bytes + used + 8, high);
	work->used = used + n;
	return 0;
}

/* Adds "<tag><number>\r\n". Made from its end: each character moves the two words up. */
static __always_inline int snapshot_add_number(struct snapshot_work *work, __u8 tag, __u64 number)
{
	__u64 low = '\r' | '\n' << 8, high = 0;
	__u32 i;

	for (i = 0; i < HEAD_DIGITS; i++) {
		high = high << 8 | low >> 56;
		low = low << 8 | ('0' + number % 10);
		number /= 10;
		if (!number)
			break;
	}
	if (number)
		return -1;
	return snapshot_add_words(work, low << 8 | tag, high << 8 | low >> 56, i + 1 + 3);
}

env_noinline void snapshot_note_name(struct snapshot_work *work, const struct server_string *name, __u64 at)
{
	env_opaque(at);
	if (at > SNAPSHOT_MAX)
		return;
	work->name = env_load64(work->bytes + at);
	if (name->len < sizeof(work->name))
		work->name &= (1ULL << 8 * name->len) - 1;
}

static __always_inline int snapshot_add_argument(struct snapshot_work *work, __u64 object, bool is_name)
{
	struct server_string string;
	bool whole;
	__u64 at;

	if (object_string(object, &string))
		return -1;
	whole = string.len <= ARGV_MAX_ARG_BYTES;
	if (snapshot_add_number(work, whole ? '$' : '!', string.len))
		return -1;
	at = env_reload(work->used);
	if (snapshot_add(work, string.addr, whole ? string.len : ARGV_MAX_ARG_BYTES))
		return -1;
	if (is_name)
		snapshot_note_name(work, &string, at);
	return whole ? snapshot_add_words(work, '\r' | '\n' << 8, 0, 2) : 0;
}

/* What the loop's steps are given. */
struct head_frame {
	struct snapshot_work *work;
	__u64 argc;
};

static long snapshot_argument_step(__u32 step, void *data)
{
	struct head_frame *frame = data;
	__u64 i = step;

	if (i >= frame->argc)
		return 1;
	env_opaque(i);
	if (i >= ARGV_MAX_ARGS)
		return 1;
	frame->work->failed = !!snapshot_add_argument(frame->work, frame->work->object[i], !i);
	return env_reload(frame->work->failed) & 1;
}

static __always_inline int snapshot_add_argv(struct snapshot_work *work, __u64 client)
{
	__u64 argv = snapshot_field(work, client, &client_layout.argv, 0);
	__u64 argc = snapshot_field(work, client, &client_layout.argc, 0);
	struct head_frame frame = { .work = work, .argc = argc };
	__u64 kept = argc < ARGV_MAX_ARGS ? argc : ARGV_MAX_ARGS;

	/* An int: redis 6.0 src/server.h to valkey 9.1. */
	if (!argc || argc > 0x7fffffff || snapshot_add_number(work, '*', argc))
		return -1;
	env_opaque(kept);
	if (kept > ARGV_MAX_ARGS || env_read_server(work->object, kept * sizeof(work->object[0]), argv))
		return -1;
	work->failed = 0;
	env_loop(ARGV_MAX_ARGS, snapshot_argument_step, &frame);
	return env_reload(work->failed) ? -1 : 0;
}

/* One that would have to be cut is not known, as in user/output/client_identity.c. */
static __always_inline int snapshot_add_word(struct snapshot_work *work, enum client_word word,
					     const struct server_string *string)
{
	if (string->len > ARGV_MAX_ARG_BYTES)
		return 0;
	if (snapshot_add(work, string->addr, string->len))
		return -1;
	work->head.word[word] = string->len;
	return 0;
}

static __always_inline int snapshot_add_object(struct snapshot_work *work, enum client_word word, __u64 client,
					       const volatile struct layout_field *field)
{
	__u64 object = snapshot_field(work, client, field, 0);
	struct server_string string;

	if (!object)
		return 0;
	return object_string(object, &string) ? -1 : snapshot_add_word(work, word, &string);
}

/* A client without a user may do anything: a module's, or the server's own. */
static __always_inline int snapshot_add_user(struct snapshot_work *work, __u64 client)
{
	__u64 user = snapshot_field(work, client, &client_layout.user, 0);
	struct server_string string;

	if (!user)
		return 0;
	return sds_string(client_field(user, &client_layout.user_name, 0), &string)
		       ? -1
		       : snapshot_add_word(work, WORD_USER, &string);
}

/* Reads what can fail where the struct is not what it should be: then nothing else is believed either. */
static __always_inline int snapshot_add_client(struct snapshot_work *work, __u64 client)
{
	__u64 db = snapshot_field(work, client, &client_layout.db, 0), id = client_field(db, &client_layout.db_id, 0);
	__u64 resp = snapshot_field(work, client, &client_layout.resp, 0);

	if (id > 0x7fffffff || (resp != 2 && resp != 3))
		return -1;
	work->head.db = id;
	work->head.resp = resp;
	return snapshot_add_user(work, client) || snapshot_add_object(work, WORD_NAME, client, &client_layout.name) ||
			       snapshot_add_object(work, WORD_LIB_NAME, client, &client_layout.lib_name) ||
			       snapshot_add_object(work, WORD_LIB_VER, client, &client_layout.lib_ver)
		       ? -1
		       : 0;
}

/*
 * Puts together what is kept of the command that the client of that connection is about to execute. Its length, or 0
 * when the structs don't prove themselves: the client's connection must point back, argc and every header make sense.
 */
env_noinline __u32 snapshot_take(struct snapshot_work *work, __u64 client, __u64 conn)
{
	if (!connection_points_at(conn, client) || env_read_server(work->client, client_span, client))
		return 0;
	__builtin_memset(&work->head, 0, sizeof(work->head));
	work->used = sizeof(work->head);
	if (snapshot_add_argv(work, client))
		return 0;
	work->head.argv_len = env_reload(work->used) - sizeof(work->head);
	if (snapshot_add_client(work, client))
		return 0;
	return env_reload(work->used) <= SNAPSHOT_MAX ? work->used : 0;
}

#endif
