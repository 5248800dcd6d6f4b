/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A program with a struct client, as Redis 7.0 (-DREDIS) or Valkey 9.1 lay it out (-DVALKEY_8: with Valkey 8's account
 * of writes), that writes its layout to stdout. test_layout.c compares this, the compiler's view, with the debug
 * information.
 */
#include <linux/types.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "bpf/abi/layout.h"

typedef char *sds;
typedef struct list {
	void *head, *tail;
	unsigned long len;
} list;
typedef struct user {
	sds name;
} user;

#ifdef REDIS

typedef struct redisDb {
	void *keys, *expires;
	int id;
} redisDb;
typedef struct redisObject {
	unsigned type : 4, encoding : 4, lru : 24;
	int refcount;
	void *ptr;
} robj;

typedef struct client {
	unsigned long id, flags;
	void *conn;
	int resp;
	redisDb *db;
	robj *name;
	sds querybuf;
	size_t qb_pos;
	int argc;
	robj **argv;
	user *user;
	int reqtype, multibulklen;
	long bulklen;
	list *reply;
	size_t sentlen;
	int bufpos;
	char *buf;
} client;

#else

typedef struct serverDb {
	void *keys;
	int id;
} serverDb;
typedef struct serverObject {
	unsigned type : 4, encoding : 4, lru : 24, hasexpire : 1, hasembkey : 1, hasembval : 1, refcount : 29;
	void *val_ptr;
} robj;

/* The last of the named bits lie in a second word. */
struct ClientFlags {
	unsigned long primary : 1, replica : 1, monitor : 1, multi : 1, blocked : 1, dirty_cas : 1;
	unsigned long close_after_reply : 1, unblocked : 1, close_asap : 1, filler : 52, pubsub : 1;
	unsigned long pending_command : 1, tracking : 1, reply_off : 1, reply_skip_next : 1, reply_skip : 1;
	unsigned long executing_command : 1;
	unsigned long lua_debug : 1, close_after_command : 1, repl_rdb_channel : 1;
};

typedef struct client {
	unsigned long id;
	void *conn;
	sds querybuf;
	size_t qb_pos;
	robj **argv;
	int argc, reqtype, multibulklen;
	long bulklen;
	struct {
		unsigned short off, len, cap;
		void *cmds;
	} cmd_queue;
	serverDb *db;
	list *reply;
#ifdef VALKEY_8
	size_t sentlen;
#else
	struct {
		char *buf;
		size_t bufpos, data_len;
	} io_last_written;
#endif
	size_t bufpos;
	union {
		struct {
			unsigned long raw_flag1, raw_flag2;
		};
		struct ClientFlags flag;
	};
	void *slot_migration_job;
	volatile unsigned char io_read_state, io_write_state;
	unsigned char resp;
	int nwritten;
	const user *user;
	robj *name, *lib_name, *lib_ver;
	list *deferred_reply;
} client;

#endif

client example; /* so that the debug information has the struct */

/* The bit that is set in these bytes, counted from their offset. */
static struct layout_bit the_bit(const void *bytes, size_t size, size_t offset)
{
	struct layout_bit bit = { LAYOUT_ABSENT, 0, 0 };
	const unsigned char *byte = bytes;
	size_t i;

	for (i = 0; i < size; i++)
		if (byte[i])
			bit = (struct layout_bit){ offset + i, byte[i], 0 };
	return bit;
}

#define FIELD(field, type, member)                                  \
	layout.field = (struct layout_field)                        \
	{                                                           \
		offsetof(type, member), sizeof(((type *)0)->member) \
	}
#define BIT(field, type, member, object, at)                         \
	do {                                                         \
		type object;                                         \
		memset(&object, 0, sizeof(object));                  \
		member = 1;                                          \
		layout.field = the_bit(&object, sizeof(object), at); \
	} while (0)

#ifdef REDIS
#define FLAG(name, bit)                                            \
	layout.flag[name] = (struct layout_bit)                    \
	{                                                          \
		offsetof(client, flags) + bit / 8, 1 << bit % 8, 0 \
	}
#define VALKEY_FLAG(name, member)
#else
#define FLAG(name, bit)
#define VALKEY_FLAG(name, member) BIT(flag[name], struct ClientFlags, flags.member, flags, offsetof(client, flag))
#endif

int main(void)
{
	struct client_layout layout;
	int i;

	memset(&layout, 0xff, sizeof(layout));
	for (struct layout_field *field = &layout.id; field <= &layout.robj_ptr; field++)
		field->size = 0;
	for (i = 0; i < CLIENT_FLAGS; i++)
		layout.flag[i] = (struct layout_bit){ LAYOUT_ABSENT, 0, 0 };
	layout.robj_embedded = layout.robj_expiry = layout.robj_key = layout.flag[0];
	layout.valid = LAYOUT_DEBUG_INFO;
	layout.client_size = sizeof(client);
	FIELD(id, client, id);
	FIELD(conn, client, conn);
	FIELD(resp, client, resp);
	FIELD(db, client, db);
	FIELD(user, client, user);
	FIELD(name, client, name);
	FIELD(querybuf, client, querybuf);
	FIELD(qb_pos, client, qb_pos);
	FIELD(reqtype, client, reqtype);
	FIELD(multibulklen, client, multibulklen);
	FIELD(bulklen, client, bulklen);
	FIELD(argc, client, argc);
	FIELD(argv, client, argv);
	FIELD(bufpos, client, bufpos);
	FIELD(reply, client, reply);
	FIELD(list_len, list, len);
	FIELD(user_name, user, name);
#ifdef REDIS
	FIELD(sentlen, client, sentlen);
	FIELD(flags, client, flags);
	FIELD(db_id, redisDb, id);
	FIELD(robj_ptr, robj, ptr);
	layout.not_plain[0] = 0x68010043c404d7; /* as in the table, from the macros of redis 6.0 to 8.6 */
	layout.not_plain[1] = 0;
#else
	FIELD(lib_name, client, lib_name);
	FIELD(lib_ver, client, lib_ver);
	FIELD(queued, client, cmd_queue.len);
#ifdef VALKEY_8
	FIELD(sentlen, client, sentlen);
	FIELD(nwritten, client, nwritten);
#else
	FIELD(sentlen, client, io_last_written.data_len);
#endif
	FIELD(deferred_reply, client, deferred_reply);
	FIELD(io_read_state, client, io_read_state);
	FIELD(io_write_state, client, io_write_state);
	FIELD(slot_migration_job, client, slot_migration_job);
	FIELD(flags, client, flag);
	FIELD(db_id, serverDb, id);
	FIELD(robj_ptr, robj, val_ptr);
	BIT(robj_embedded, robj, object.hasembval, object, 0);
	BIT(robj_expiry, robj, object.hasexpire, object, 0);
	BIT(robj_key, robj, object.hasembkey, object, 0);
	memset(layout.not_plain, 0, sizeof(layout.not_plain));
	memset(&example.flag, 0xff, sizeof(example.flag));
	example.flag.multi = example.flag.dirty_cas = example.flag.filler = example.flag.tracking = 0;
	example.flag.executing_command = 0;
	layout.not_plain[0] = example.raw_flag1;
	layout.not_plain[1] = example.raw_flag2 & 0x7f; /* seven named bits */
#endif
	FLAG(FLAG_PRIMARY, 1);
	FLAG(FLAG_REPLICA, 0);
	FLAG(FLAG_MONITOR, 2);
	FLAG(FLAG_BLOCKED, 4);
	FLAG(FLAG_UNBLOCKED, 7);
	FLAG(FLAG_PENDING_COMMAND, 30);
	FLAG(FLAG_PUBSUB, 18);
	FLAG(FLAG_REPLY_OFF, 22);
	FLAG(FLAG_REPLY_SKIP_NEXT, 23);
	FLAG(FLAG_REPLY_SKIP, 24);
	FLAG(FLAG_LUA_DEBUG, 25);
	FLAG(FLAG_CLOSE_ASAP, 10);
	FLAG(FLAG_CLOSE_AFTER_REPLY, 6);
	FLAG(FLAG_CLOSE_AFTER_COMMAND, 40);
	FLAG(FLAG_REPL_RDB_CHANNEL, 51);
	FLAG(FLAG_ASM_MIGRATING, 53);
	FLAG(FLAG_ASM_IMPORTING, 54);
	FLAG(FLAG_MULTI, 3);
	FLAG(FLAG_TRACKING, 31);
#ifdef REDIS_7_2
	FLAG(FLAG_EXECUTING, 29);
#endif
	VALKEY_FLAG(FLAG_PRIMARY, primary);
	VALKEY_FLAG(FLAG_REPLICA, replica);
	VALKEY_FLAG(FLAG_MONITOR, monitor);
	VALKEY_FLAG(FLAG_BLOCKED, blocked);
	VALKEY_FLAG(FLAG_UNBLOCKED, unblocked);
	VALKEY_FLAG(FLAG_PENDING_COMMAND, pending_command);
	VALKEY_FLAG(FLAG_PUBSUB, pubsub);
	VALKEY_FLAG(FLAG_REPLY_OFF, reply_off);
	VALKEY_FLAG(FLAG_REPLY_SKIP_NEXT, reply_skip_next);
	VALKEY_FLAG(FLAG_REPLY_SKIP, reply_skip);
	VALKEY_FLAG(FLAG_LUA_DEBUG, lua_debug);
	VALKEY_FLAG(FLAG_CLOSE_ASAP, close_asap);
	VALKEY_FLAG(FLAG_CLOSE_AFTER_REPLY, close_after_reply);
	VALKEY_FLAG(FLAG_CLOSE_AFTER_COMMAND, close_after_command);
	VALKEY_FLAG(FLAG_REPL_RDB_CHANNEL, repl_rdb_channel);
	VALKEY_FLAG(FLAG_MULTI, multi);
	VALKEY_FLAG(FLAG_TRACKING, tracking);
	VALKEY_FLAG(FLAG_EXECUTING, executing_command);
	return fwrite(&layout, sizeof(layout), 1, stdout) != 1;
}
