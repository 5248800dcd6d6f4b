/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What is known of one connection of the server, from its first read to its close.
 *
 * No lock: the server itself lets only one thread at a time read, write or close a connection (valkey 9.1
 * src/io_threads.c trySendReadToIOThreads, trySendWriteToIOThreads; redis 7.0 src/networking.c io_threads_op), and
 * what passes it from thread to thread orders our stores as well as its own.
 */
#ifndef REPLYLOG_CONNECTION_H
#define REPLYLOG_CONNECTION_H

#include "env.h"
#include "record.h"
#include "window.h"

/* One command read whose reply may still come. */
struct argv_entry {
	__u64 request_ns;
	__u32 request_bytes; /* saturated at 4 GiB - 1 */
	__u16 off;           /* where its head starts in the page's bytes */
	__u16 len : 15;
	__u16 pipelined : 1; /* others were outstanding when it was read */
};

/* Commands first_seq .. first_seq + entries - 1 have their heads here. */
struct argv_page {
	__u64 first_seq;
	__u32 entries;
	__u32 used; /* bytes of heads, the unfinished command's included */
};

/*
 * A run of bytes (what one window gives) is appended only at used <= LIMIT and is at most RUN long: no wrap, no split.
 * A head is copied out in one or two parts of at most PART. The bytes behind LIMIT + RUN are never used; they are there
 * because the verifier adds the largest offset to the largest length.
 *
 * The first page is part of the connection and serves all who don't pipeline deeply. The others come from a pool that
 * all connections share.
 */
#define INLINE_LIMIT 640
#define INLINE_RUN (640 + CARRY)
#define INLINE_PART ((INLINE_LIMIT + INLINE_RUN) / 2)
#define INLINE_ENTRIES 32

#define BLOCK_LIMIT ARGV_HEAD_MAX
#define BLOCK_RUN (WINDOW + CARRY)
#define BLOCK_PART (ARGV_HEAD_MAX / 2 + CARRY)
#define BLOCK_ENTRIES 120

struct argv_inline {
	struct argv_page page;
	struct argv_entry entry[INLINE_ENTRIES];
	__u8 bytes[INLINE_LIMIT + INLINE_RUN + INLINE_PART];
};

struct argv_block {
	struct argv_page page;
	struct argv_entry entry[BLOCK_ENTRIES];
	__u8 bytes[BLOCK_LIMIT + BLOCK_RUN + BLOCK_PART];
};

_Static_assert(sizeof(struct argv_block) <= ARGV_BLOCK_BYTES, "a block of the pool is what --argv-memory counts in");

/* Blocks one connection can hold: 2 MiB of heads, or more commands than the largest --max-pipeline. */
#define CONNECTION_BLOCKS 256

_Static_assert(CONNECTION_BLOCKS * BLOCK_ENTRIES >= PIPELINE_MAX, "--max-pipeline can be kept");

enum connection_mode {
	MODE_UNJOINED = 0, /* older than the attach and not at a known boundary */
	MODE_FOLLOWED,     /* framed, replies are attributed */
	MODE_LEAVING,      /* no more commands are framed, but those read before still get their replies */
	MODE_LEFT_OUT,     /* not a conversation of commands and replies (any more) */
};

enum request_state {
	REQUEST_BOUNDARY = 0, /* between two commands */
	REQUEST_ARGS,         /* args_left arguments to come */
	REQUEST_INLINE,       /* inside an inline command's line */
};

struct request_framing {
	__u64 skip;          /* payload still to pass, CRLF included */
	__u32 keep;          /* how much of skip the head keeps */
	__u32 args_left;
	__u32 arg;           /* index of the argument at hand */
	__u32 head_off;      /* where the unfinished command's head starts in its page */
	__u64 command_start; /* position in the connection's input */
	__u8 state;          /* enum request_state */
	__u8 carried;        /* bytes of a cut header that are in the carry */
	__u8 beyond_head;    /* the head is complete, what follows of this command is not kept */
	__u8 container;      /* enum command_class, when the subcommand decides; else COMMAND_PLAIN */
	__u8 inline_words;   /* the line has something besides blanks */
	__u8 pad[3];
};

struct reply_framing {
	__u64 owed;     /* elements that complete the reply at hand; 0 between replies */
	__u64 skip;     /* payload still to pass, CRLF included */
	__u64 start;    /* where the reply starts in the connection's output */
	__u64 first_ns; /* when its first byte was accepted; 0 while that is the write at hand */
	__u32 writes;   /* finished write calls with bytes of it */
	__u8 carried;
	__u8 line;      /* inside a line, up to its LF */
	__u8 push;      /* the reply at hand is a push frame */
	__u8 pad;
};

/* What every read and write touches comes first: a few cache lines. */
struct connection {
	__u64 read_seq;    /* commands read */
	__u64 reply_seq;   /* replies written; between the two are the outstanding ones */
	__u8 mode;         /* enum connection_mode */
	__u8 attribution;  /* enum reply_attribution */
	__u8 in_block;     /* the page being written is the last block, not the inline one */
	__u8 head_lost;    /* the head of the command at hand can't be kept */
	__u8 lost_reason;  /* enum argv_status of the last loss */
	__u8 pad[3];
	__u32 blocks_from; /* blocks in use: [from, to), held in block[n % CONNECTION_BLOCKS] */
	__u32 blocks_to;
	__u64 read_bytes;
	__u64 written_bytes;
	struct request_framing request;
	struct reply_framing reply;
	struct argv_inline argv;
	struct carry request_carry;
	struct carry reply_carry;
	__u64 server_conn; /* address of the server's struct connection */
	__u16 block[CONNECTION_BLOCKS];
};

static __always_inline __u64 outstanding(const struct connection *conn)
{
	return conn->read_seq - conn->reply_seq;
}

#endif
