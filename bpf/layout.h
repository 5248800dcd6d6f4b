/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Where the server keeps what it knows of a client: offsets into its struct client and the structs behind it. They
 * come from debug information (user/layout_dwarf.c) or from a table by exact version (user/layout_table.h), never from a
 * guess, and each client must pass the live checks below before anything that is read over them is believed.
 *
 * BPF and user space both include this file: no implicit padding.
 */
#ifndef REPLYLOG_LAYOUT_H
#define REPLYLOG_LAYOUT_H

/* This version has no such field, or no such flag. */
#define LAYOUT_ABSENT 0xffff

/* size in bytes: the same field is an int in one version and a size_t or a byte in another. */
struct layout_field {
	__u16 offset;
	__u16 size;
};

/* A flag is a bit of one byte. */
struct layout_bit {
	__u16 offset;
	__u8 mask;
	__u8 pad;
};

/* valkey 9.1 src/server.h struct ClientFlags (the server's names), redis 7.0 src/server.h CLIENT_* (same meaning). */
enum client_flag {
	/* One of these set: no plain client, or one whose next reply does not answer its next command. */
	FLAG_PRIMARY,             /* the link to our primary (redis: CLIENT_MASTER) */
	FLAG_REPLICA,             /* a replica's link, a MONITOR (redis: CLIENT_SLAVE) */
	FLAG_MONITOR,
	FLAG_BLOCKED,             /* a command waits: BLPOP, WAIT, a module, CLIENT PAUSE */
	FLAG_UNBLOCKED,           /* was blocked; what it sent since waits to be parsed */
	FLAG_PENDING_COMMAND,     /* a parsed command waits to be executed */
	FLAG_PUBSUB,              /* gets messages, which are no replies; in RESP2 they look like replies */
	FLAG_REPLY_OFF,           /* CLIENT REPLY OFF and SKIP: commands that get no reply */
	FLAG_REPLY_SKIP_NEXT,
	FLAG_REPLY_SKIP,
	FLAG_LUA_DEBUG,           /* EVAL becomes a conversation of another kind */
	FLAG_CLOSE_ASAP,          /* what it sends is no longer parsed */
	FLAG_CLOSE_AFTER_REPLY,
	FLAG_CLOSE_AFTER_COMMAND,
	FLAG_REPL_RDB_CHANNEL,    /* a replica's second link (redis 8.0 on, valkey) */
	FLAG_ASM_MIGRATING,       /* slot migration (redis 8.4 on; valkey: slot_migration_job) */
	FLAG_ASM_IMPORTING,
	FLAGS_NOT_PLAIN,
	/* These don't bear on the boundary. */
	FLAG_MULTI = FLAGS_NOT_PLAIN, /* between MULTI and EXEC: each command gets its reply, "QUEUED" */
	FLAG_TRACKING,            /* client-side caching: RESP3 pushes between replies */
	CLIENT_FLAGS,
};

enum layout_source {
	LAYOUT_NONE = 0,   /* nothing is known, the rest means nothing */
	LAYOUT_TABLE,      /* this exact version, from the table */
	LAYOUT_DEBUG_INFO, /* this very binary, from its debug information */
};

struct client_layout {
	__u32 valid;       /* enum layout_source */
	__u32 client_size; /* sizeof(struct client) */
	/* Bits of the flag words, as little-endian words from flags.offset, that a plain client has clear: FLAGS_NOT_PLAIN. */
	__u64 not_plain[2];

	/* struct client: who it is */
	struct layout_field id;
	struct layout_field conn;
	struct layout_field resp;         /* 2 or 3 */
	struct layout_field db;           /* pointer to a serverDb (redisDb) */
	struct layout_field user;         /* pointer to a struct user, or NULL: may do anything */
	struct layout_field name;         /* robj, or NULL; as are lib_name and lib_ver (redis 7.2 on, valkey) */
	struct layout_field lib_name;
	struct layout_field lib_ver;

	/* struct client: what it has sent */
	struct layout_field querybuf;     /* sds; the bytes not yet parsed, and room to read into */
	struct layout_field qb_pos;       /* how much of it is parsed */
	struct layout_field reqtype;      /* 0 between commands */
	struct layout_field multibulklen; /* arguments of a command begun that are still to come */
	struct layout_field bulklen;
	struct layout_field argc;         /* of the command begun, waiting or being executed */
	struct layout_field argv;         /* robj ** */
	struct layout_field queued;       /* commands parsed ahead: cmd_queue.len (valkey 9.0 on), pending_cmds.len (redis 8.4 on) */

	/* struct client: what it gets */
	struct layout_field bufpos;         /* bytes in its buffer, written in part or not at all */
	struct layout_field reply;          /* list of what did not fit there */
	struct layout_field sentlen;        /* of the first of these, written already; not in valkey 9.0 on */
	struct layout_field deferred_reply; /* list or NULL, joined to reply when the command ends (valkey 8.1 on) */

	/* struct client: who works on it */
	struct layout_field io_read_state;  /* valkey 8.0 on: 0 idle, 1 with an IO thread, 2 done there */
	struct layout_field io_write_state;
	struct layout_field running_tid;    /* redis 8.0 on: 0 main thread, else the IO thread that has it */
	struct layout_field io_flags;
	struct layout_field slot_migration_job; /* valkey 9.0 on: not NULL, no plain client */
	struct layout_field flags;          /* the flag words, 8 or 16 bytes */

	/* structs behind these pointers */
	struct layout_field list_len;     /* of reply, deferred_reply */
	struct layout_field db_id;
	struct layout_field user_name;    /* sds */
	struct layout_field robj_ptr;     /* sds, unless robj_embedded is set: then the sds is at robj + robj_ptr.offset + 3 */

	struct layout_bit robj_embedded;  /* valkey 9.0 on */
	struct layout_bit flag[CLIENT_FLAGS];
};

_Static_assert(sizeof(struct client_layout) == 24 + 30 * 4 + 4 * (1 + CLIENT_FLAGS), "no implicit padding");

#endif
