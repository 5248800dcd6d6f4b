/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Where the server keeps what it knows of a client: offsets into its struct client and the structs behind it. They come
 * from debug information (user/code/layout_dwarf.c) or from a table by exact version (user/code/layout_table.h), not
 * from a guess, and each client must pass the live checks below before anything that is read over them is believed.
 *
 * BPF and user space both include this file: no implicit padding.
 */
#ifndef REPLYLOG_BPF_ABI_LAYOUT_H
#define REPLYLOG_BPF_ABI_LAYOUT_H

/*
 * THE PROOF that an old connection can be joined.
 *
 * Tested at the return of the connection layer's read, before the server looks at the bytes just read (the sds
 * length of querybuf is still what it was), by the thread that reads, with addr the address that was read to:
 *
 *   1. conn.private_data -> client, client.conn == conn         it is a client, and the offsets are this server's
 *   2. client.querybuf == addr                                  nothing received earlier is still unparsed
 *   3. client.reqtype == 0                                      no command is half parsed
 *   4. client.argc == 0, and client.queued == 0 if present      no parsed command is unexecuted
 *   5. (flag words & not_plain) == 0, slot_migration_job NULL   no command waits; one reply per command
 *   6. client.bufpos == 0, client.reply->len == 0,              each reply byte so far was accepted by write()
 *      deferred_reply NULL or its len == 0, if present
 *      valkey 8, io_write_state == 2: or what is in buf and reply is as much as nwritten, deferred_reply as above
 *
 * imply: these bytes begin a command, every earlier command is executed, and what the server writes from here on
 * answers the commands from here on, in order (RESP3 pushes apart, which say what they are). Versions read: redis
 * 6.0.16, 7.0.15, 8.0.2, 8.0.6, 8.6.3 and valkey 8.0.1, 8.1.1, 9.1.2; functions are in src/networking.c unless
 * another file is named.
 *
 * 2. All versions read to querybuf + sdslen(querybuf) (readQueryFromClient(); valkey readToQueryBuf()), so equal
 *    means that the length was 0. A big argument (32 KiB and more) is also read to an empty querybuf, and so is what
 *    follows a "*3\r\n" that was all there was: 3. finds these. The buffer that a thread's clients share (valkey
 *    thread_shared_qb, redis 8 thread_reusable_qb) becomes client.querybuf before the read, and is private or empty
 *    again when the thread turns to another client (resetSharedQueryBuf(), resetReusableQueryBuf()). What a client
 *    sent while it was blocked, or (redis 6.0) paused, stays in querybuf: 2. fails until it is parsed.
 * 3. reqtype is set before the first byte of a command is parsed, and 0 again when it is executed (redis 6.0-7.0,
 *    valkey 8: resetClient()) or completely parsed (redis 8.6 resetClientQbufState(), valkey 9.1
 *    parseInlineBuffer(), parseMultibulkBuffer()). multibulklen and bulklen have a meaning only in between.
 * 4. argc counts from the first parsed argument to freeClientArgv() in resetClient(), after execution. Parsed, not
 *    executed: by an IO thread for the main thread (CLIENT_PENDING_COMMAND; valkey processIOThreadsReadDone(),
 *    processClientIOReadsDone(), also for a protected client, that has only argc), by CLIENT PAUSE
 *    (blockPostponeClient()), by a command that runs again when unblocked (redis 7.2 on, valkey). Parsed ahead:
 *    valkey 9.1 parseMultibulkBuffer() fills cmd_queue, whose len is 0 when it is used up (consumeCommandQueue())
 *    and counts a last, half parsed one; redis 8.6 processInputBuffer() fills pending_cmds, whose len counts an
 *    incomplete one and the one being executed.
 * 5. Redis 6.0 resets a client blocked in BLPOP or WAIT (commandProcessed()): argc is 0, only the flag tells. A
 *    reply that comes when unblocked is added in the call that clears the flag. CLIENT REPLY: prepareClientToWrite()
 *    drops replies by reply_off and reply_skip; resetClient() makes reply_skip of reply_skip_next. After a protocol
 *    error, close_after_reply. MULTI is no obstacle: each command gets its reply. A module that replies from its own
 *    thread has blocked the client.
 * 6. clientHasPendingReplies() is bufpos || listLength(reply). Both shrink only by what write() took, and a block or
 *    buffer goes when all of it is written: redis writeToClient(), valkey _postWriteToClient(). So a half written
 *    reply, and one that copy avoidance keeps by reference (it stands in buf or reply with its header), keep the
 *    test false. sentlen and io_last_written add nothing. deferred_reply (valkey 8.1 on) is joined to reply in
 *    resetClient(), unless blocked.
 *    In valkey 8 that shrinking waits while a read is with an IO thread, and for a fast client there is always one.
 *    Then io_write_state is 2 (CLIENT_COMPLETED_IO): ioThreadWriteToClient() has set nwritten, then the state, and
 *    nobody sets either again before processClientIOWriteDone() sets the state to 0 and lets _postWriteToClient() take
 *    nwritten bytes off buf and reply, from sentlen on. trySendWriteToIOThreads() makes the next job only after that,
 *    and the main thread neither writes nor reads in between: all want state 0 (writeToClient(),
 *    readQueryFromClient()). Until then nothing is taken off buf or reply, and sentlen stays; the main thread may only
 *    add. So they hold nwritten bytes, which write() has taken, and what is not written: as much as nwritten means that
 *    there is none of that. An error leaves -1, or what was taken before it; a job that did not write all (64 KiB at a
 *    time, a full socket) leaves the rest in them.
 *
 * Threads. redis 6.0, 7.0: threads read or write while the main thread does nothing else than the same for other
 * clients (handleClientsWithPendingReadsUsingThreads(), ...WritesUsingThreads()). redis 8: a client belongs to one
 * thread at a time; without CLIENT_IO_READ_ENABLED readQueryFromClient() returns before it reads, and src/iothread.c
 * enqueuePendingClientsToMainThread() takes it away before the main thread gets the client. Clients that others
 * write to (pub/sub, MONITOR, tracking) stay with the main thread (isClientMustHandledByMainThread()). valkey: an IO
 * thread reads while the main thread goes on, but that executes nothing for this client until the read is done, and
 * leaves no blocked client's read to IO threads (src/io_threads.c trySendReadToIOThreads()). It may do two things to
 * it. It may add pushes: these are whole, and are written after the read, by the same thread (8.0, 8.1) or when the
 * read is done (9.1 trySendWriteToIOThreads(), writeToClient()). And it may account for a write that another IO
 * thread has finished (9.1 processClientIOWriteDone(); 8.0 and 8.1 wait for the read): bufpos and reply become empty
 * after that write has returned, so whichever state of each is seen is true.
 *
 * valkey 8: a thread that reads sees io_write_state 2 of a write of its own, or of one that the main thread has seen
 * finished before it asked for the read (cur_tid); the fence before the state, and the queue of jobs, bring nwritten
 * along. As long as it reads nobody accounts (processIOThreadsReadDone() and processIOThreadsWriteDone() pass over the
 * client), so bufpos, sentlen and the nodes of reply stay, but for a push that may be added just now: it is no reply,
 * and when it is seen it is too much for the proof. From outside (user/session/verify.c) the account may come in
 * between: the state, looked at again, tells. For it to be 2 once more another write must have been made, which BPF has
 * counted.
 */

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
	FLAG_PRIMARY, /* the link to our primary (redis: CLIENT_MASTER) */
	FLAG_REPLICA, /* a replica's link, a MONITOR (redis: CLIENT_SLAVE) */
	FLAG_MONITOR,
	FLAG_BLOCKED,         /* a command waits: BLPOP, WAIT, a module, CLIENT PAUSE */
	FLAG_UNBLOCKED,       /* was blocked; what it sent since waits to be parsed */
	FLAG_PENDING_COMMAND, /* a parsed command waits to be executed */
	FLAG_PUBSUB,          /* gets messages, which are no replies; in RESP2 they look like replies */
	FLAG_REPLY_OFF,       /* CLIENT REPLY OFF and SKIP: commands that get no reply */
	FLAG_REPLY_SKIP_NEXT,
	FLAG_REPLY_SKIP,
	FLAG_LUA_DEBUG,  /* EVAL becomes a conversation of another kind */
	FLAG_CLOSE_ASAP, /* what it sends is no longer parsed */
	FLAG_CLOSE_AFTER_REPLY,
	FLAG_CLOSE_AFTER_COMMAND,
	FLAG_REPL_RDB_CHANNEL, /* a replica's second link (redis 8.0 on, valkey) */
	FLAG_ASM_MIGRATING,    /* slot migration (redis 8.4 on; valkey: slot_migration_job) */
	FLAG_ASM_IMPORTING,
	FLAGS_NOT_PLAIN,
	/* These don't bear on the boundary. */
	FLAG_MULTI = FLAGS_NOT_PLAIN, /* between MULTI and EXEC: each command gets its reply, "QUEUED" */
	FLAG_TRACKING,                /* client-side caching: RESP3 pushes between replies */
	FLAG_EXECUTING, /* call() has begun its command, which is not over (redis 7.2 on, valkey): see execution.h */
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
	/* The bits of all flags before FLAGS_NOT_PLAIN, in the one or two words at flags.offset. */
	__u64 not_plain[2];

	/* struct client: who it is */
	struct layout_field id;
	struct layout_field conn;
	struct layout_field resp; /* 2 or 3 */
	struct layout_field db;   /* pointer to a serverDb (redisDb) */
	struct layout_field user; /* pointer to a struct user, or NULL: may do anything */
	struct layout_field name; /* robj, or NULL; as are lib_name and lib_ver (redis 7.2 on, valkey) */
	struct layout_field lib_name;
	struct layout_field lib_ver;

	/* struct client: what it has sent */
	struct layout_field querybuf;     /* sds; the bytes not yet parsed, and room to read into */
	struct layout_field qb_pos;       /* how much of it is parsed */
	struct layout_field reqtype;      /* 0 between commands */
	struct layout_field multibulklen; /* arguments of a command begun that are still to come */
	struct layout_field bulklen;
	struct layout_field argc;   /* of the command begun, waiting or being executed */
	struct layout_field argv;   /* robj ** */
	struct layout_field queued; /* commands parsed ahead: cmd_queue.len, redis pending_cmds.len */

	/* struct client: what it gets */
	struct layout_field bufpos;         /* bytes in its buffer, written in part or not at all */
	struct layout_field reply;          /* list of what did not fit there */
	struct layout_field sentlen;        /* of the first of these, written already; not in valkey 9.0 on */
	struct layout_field deferred_reply; /* list or NULL, joined to reply when the command ends (valkey 8.1 on) */

	/* struct client: who works on it */
	struct layout_field io_read_state; /* valkey 8.0 on: 0 idle, 1 with an IO thread, 2 done there */
	struct layout_field io_write_state;
	struct layout_field nwritten;    /* valkey 8 only: bytes that the last write has taken; below 0, an error */
	struct layout_field running_tid; /* redis 8.0 on: 0 main thread, else the IO thread that has it */
	struct layout_field io_flags;
	struct layout_field slot_migration_job; /* valkey 9.0 on: not NULL, no plain client */
	struct layout_field flags;              /* the flag words, 8 or 16 bytes */

	/* structs behind these pointers */
	struct layout_field list_len; /* of reply, deferred_reply */
	struct layout_field db_id;
	struct layout_field user_name; /* sds */
	struct layout_field robj_ptr;  /* sds */

	/*
	 * Of a robj (valkey 9.0 on, src/object.c objectGetVal()). Embedded: there is no robj_ptr, the sds itself is in
	 * its place: 3 bytes of header, then its bytes. Before it are 8 bytes of an expiry when that bit is set, needed
	 * or not, and a key of any length when that one is, which no argument and no name has.
	 */
	struct layout_bit robj_embedded;
	struct layout_bit robj_expiry;
	struct layout_bit robj_key;

	struct layout_bit flag[CLIENT_FLAGS];
};

/*
 * So much of struct client is read at once, at most: in no version in the table a field that is read for each command
 * lies behind it. Where one does it is read by itself.
 */
#define CLIENT_SPAN_MAX 1024

_Static_assert(sizeof(struct client_layout) == 24 + 31 * 4 + 4 * (3 + CLIENT_FLAGS), "no implicit padding");

#endif
