/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What is known of one connection of the server, from its first read to its close.
 *
 * No lock: the server itself lets only one thread at a time read, write or close a connection (valkey 9.1
 * src/io_threads.c trySendReadToIOThreads, trySendWriteToIOThreads; redis 7.0 src/networking.c io_threads_op), and
 * what passes it from thread to thread orders our stores as well as its own.
 */
#ifndef REPLYLOG_BPF_CONN_CONNECTION_H
#define REPLYLOG_BPF_CONN_CONNECTION_H

#include "bpf/resp/command.h"
#include "bpf/env.h"
#include "bpf/abi/debug.h"
#include "bpf/abi/record.h"
#include "bpf/resp/parse_window.h"

/* One command read whose reply may still come. */
struct argv_entry {
	__u64 request_ns;
	__u32 request_bytes; /* REQUEST_HUGE or more: see struct huge_request */
	__u16 off;           /* where its head starts in the page's bytes */
	__u16 len : 15;
	__u16 pipelined : 1; /* others were outstanding when it was read */
};

#define REQUEST_HUGE (~0U)

/* The last command of a connection whose bytes don't fit in its entry. Only the last one's size is kept. */
struct huge_request {
	__u64 seq;
	__u64 bytes;
};

/* Commands first_seq .. first_seq + entries - 1 have their heads here. */
struct argv_page {
	__u64 first_seq;
	__u32 entries;
	__u32 used; /* bytes of heads, the unfinished command's included */
};

/*
 * A run of bytes (what one window gives) is appended only at used <= LIMIT and is at most RUN long: no wrap, no split.
 * A head is copied out in one or two parts of at most PART. Heads never lie behind LIMIT + RUN, but the verifier adds
 * the largest offset to the largest length: as much as PART must follow that is readable. In a block it is never used,
 * in a connection other fields lie there.
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
	__u8 bytes[INLINE_LIMIT + INLINE_RUN];
};

struct argv_block {
	struct argv_page page;
	struct argv_entry entry[BLOCK_ENTRIES];
	__u8 bytes[ARGV_BLOCK_BYTES - sizeof(struct argv_page) - BLOCK_ENTRIES * sizeof(struct argv_entry)];
};

_Static_assert(sizeof(struct argv_block) == ARGV_BLOCK_BYTES, "a block of the pool is what --argv-memory counts in");
_Static_assert(sizeof(((struct argv_block *)0)->bytes) >= BLOCK_LIMIT + BLOCK_RUN + BLOCK_PART, "heads have room");

/* Blocks one connection can hold: 2 MiB of heads, or more commands than the largest --max-pipeline. */
#define CONNECTION_BLOCKS 256

_Static_assert(PIPELINE_MAX <= CONNECTION_BLOCKS * BLOCK_ENTRIES, "--max-pipeline can be kept");

enum connection_mode {
	MODE_UNJOINED = 0, /* older than the attach, or lost, and not at a known boundary */
	MODE_ACCEPTED,     /* the server has just accepted it and has not read from it yet */
	MODE_FOLLOWED,     /* framed, replies are attributed */
	MODE_DRAINING,     /* no more commands are framed, but those read before still get their replies */
	MODE_EXCLUDED,     /* not a session of commands and replies (any more) */
	MODE_PASSED_OVER,  /* the bytes of a connection that is followed elsewhere */
};

enum request_state {
	REQUEST_BOUNDARY = 0, /* between two commands */
	REQUEST_ARGS,         /* args_left arguments to come */
	REQUEST_INLINE,       /* inside an inline command's line */
};

struct request_framing {
	__u64 skip; /* payload still to pass, CRLF included */
	__u32 keep; /* how much of skip the head keeps */
	__u32 args_left;
	__u32 arg;           /* index of the current argument */
	__u32 head_off;      /* where the unfinished command's head starts in its page */
	__u64 command_start; /* position in the connection's input */
	__u32 number;        /* of a SELECT: its argument; of a command that is not the server's own: see foreign.h */
	__u8 state;          /* enum request_state */
	__u8 carried;        /* bytes of a cut header that are in the carry */
	__u8 beyond_head;    /* the head is complete, what follows of this command is not kept */
	__u8 class;          /* enum command_class of the current command, or of what it did when it left */
	__u8 inline_words;   /* the line has something besides blanks */
	__u8 inline_blanks;  /* it has blanks besides CR */
	__u8 pad[6];
};

/* How far something that is written has come. */
struct piece {
	__u64 start;    /* where it starts in the connection's output */
	__u64 first_ns; /* when its first byte was accepted; 0 while that is the current write */
	__u32 writes;   /* finished write calls with bytes of it */
	__u32 pad;
};

/* A line ends at CR LF: an LF alone is part of it, as clients read it. */
enum line_state {
	LINE_NONE = 0,
	LINE_INSIDE,
	LINE_BEHIND_CR,
};

enum frame_kind {
	FRAME_REPLY = 0,
	FRAME_PUSH,         /* a push or a message: answers no command */
	FRAME_CONFIRMATION, /* one of those that a subscribing command is answered by */
};

struct reply_framing {
	__u64 owed;         /* elements still missing from the current frame; 0 between frames */
	__u64 skip;         /* payload still to pass, CRLF included */
	struct piece reply; /* the current reply, confirmations or push */
	__u8 carried;
	__u8 line;         /* enum line_state */
	__u8 frame;        /* enum frame_kind */
	__u8 type;         /* first byte of the current frame; only kept where it will be looked at */
	__u8 interrupts;   /* the current push came between the elements of a reply */
	__u8 exec_header;  /* the current header is that of the array that answers EXEC */
	__u8 unsubscribes; /* the current push says that the server has ended the subscription to a shard channel */
	__u8 may_confirm;  /* or it is the first confirmation of the current command: see server_sunsubscribe.h */
	__u8 foreign;      /* a module's command has run, or may have */
	__u8 scripted;     /* the current reply is a script's: an error in it may hold anything */
	__u8 outer_type;   /* of the reply that a push interrupts */
	__u8 pad[5];
	__u64 head; /* the first bytes of a reply that is looked at */
};

/* A command whose reply is looked at. */
struct tracked_command {
	__u32 seq;         /* the low bits of its number */
	__u32 number : 26; /* of a SELECT: the database; of the subscribing commands: the arguments; see foreign.h */
	__u32 class : 6;   /* enum command_class */
};

#define TRACKED_NUMBER_MAX ((1U << 26) - 1) /* and this one means: not known */

_Static_assert(COMMAND_OPAQUE < 64, "six bits");

/*
 * As many as there are commands that can be outstanding. Those of most connections lie in the connection, the others in
 * blocks of the pool that heads are kept in, too: number n of them in block n / BLOCK_TRACKED, of which a connection has no
 * more than TRACKED_BLOCKS, in tracked_block[n / BLOCK_TRACKED % TRACKED_BLOCKS].
 */
#define INLINE_TRACKED 32
#define BLOCK_TRACKED (ARGV_BLOCK_BYTES / sizeof(struct tracked_command))
#define TRACKED_BLOCKS 16
#define TRACKED_MAX ((TRACKED_BLOCKS - 1) * BLOCK_TRACKED) /* the first and the last block are in use only in part */

_Static_assert(sizeof(struct tracked_command) == 8, "a power of two of them fills a block");
_Static_assert(TRACKED_MAX >= PIPELINE_MAX, "each outstanding command may be one");

/* Between two replies: what the commands so far have made of the connection. In the order the server executed them. */
struct session {
	__u64 queued;       /* inside MULTI: commands answered by QUEUED */
	__u64 first_queued; /* inside MULTI: number of the command that follows it */
	__u64 exec_left;    /* inside EXEC's reply: inner replies still to come; 0: not inside */
	__u64 scripts; /* inside MULTI: which of the commands queued are scripts, the last bit for all from the 64th on */
	struct piece exec;  /* EXEC's reply as a whole */
	struct piece outer; /* the reply that a push interrupts */
	__u64 outer_owed;
	__u32 subscribed[SUBSCRIBED_KINDS];
	__u32 unconfirmed; /* confirmations that the current subscribing command still gets */
	__s32 db;          /* -1 unknown */
	__u8 multi;        /* inside a transaction */
	__u8 exec_logged;  /* an inner reply was large */
	__u8 confirming;   /* at least one confirmation of the current command has come */
	__u8 push_len;     /* bytes of push_head */
	__u8 resp;         /* 2: messages are arrays; 3: they are pushes; 0 unknown */
	__u8 doubtful;     /* what confirmed the last SUNSUBSCRIBE may have been unasked: its reply is to come */
	__u8 risky;        /* inside MULTI: something is queued that EXEC's reply may lack an element for, */
	__u8 pad;
};

/* Who is at the other end; does not change while the connection lives. */
struct conn_id {
	__u64 client_id; /* the server's own; 0 unknown */
	__u8 addr[16];   /* network byte order; IPv4 uses the first 4 */
	__u16 port;      /* host byte order */
	__u8 family;     /* enum client_family */
	__u8 pad;
	__u32 number;     /* of the connection, among those that are followed */
	__u32 generation; /* tells apart those that had the same number one after the other; from 1 on */
	__u32 pad2;
};

/* Which execution is whose, by dispatch_base: see execution.h. */
enum dispatch_known {
	DISPATCH_UNKNOWN = 0,
	DISPATCH_KNOWN,
	DISPATCH_BEFORE_ERROR, /* it was, up to the first error */
};

/* What every read and write touches comes first: a few cache lines. */
struct connection {
	__u64 read_seq;    /* commands read */
	__u64 reply_seq;   /* replies written; between the two are the outstanding ones */
	__u64 plain_until; /* replies below this one need no look at what they say */
	__u8 mode;         /* enum connection_mode */
	__u8 attribution;  /* enum reply_attribution */
	__u8 in_block;     /* the page being written is the last block, not the inline one */
	__u8 head_lost;    /* the head of the current command can't be kept */
	__u8 lost_reason;  /* enum argv_status of the last loss */
	__u8 subscriber;   /* subscribed to something, or about to be: arrays may be messages */
	__u8 from_start;   /* followed from its first byte on */
	__u8 counted;      /* the kernel's counters of the socket are compared with ours */
	__u8 burst;        /* several commands were outstanding since nothing was: see pairing.h */
	__u8 unverified;   /* records wait for a proof that replies and commands are in step, or there is a doubt */
	__u8 doubt;        /* enum doubt: since the last proof something came that may be answered never or twice */
	__u8 refuted;      /* user space: they are not in step; nobody else sets it */
	__u8 held;         /* records wait in user space */
	__u8 pad[3];
	__u64 burst_from; /* number of the first command since nothing was outstanding */
	__u64 read_bytes;
	__u64 written_bytes;
	__u64 sk;        /* address of the kernel's socket */
	__u32 read_base; /* what its counters were at our first byte, modulo 2^32 */
	__u32 write_base;
	__u32 blocks_from; /* blocks in use: [from, to), held in block[n % CONNECTION_BLOCKS] */
	__u32 blocks_to;
	struct request_framing request;
	struct reply_framing reply;
	struct argv_inline argv;
	struct carry request_carry;
	struct carry reply_carry;
	__u64 settled;     /* the output up to here is in the ledger: see ledger.bpf.h */
	__u64 key;         /* what the tap calls it by: see enum tap in connection_table.bpf.h */
	__u64 server_conn; /* address of the server's struct connection; 0 unknown */
	__u64 client_at;   /* and of its client when that was last looked for; 0 unknown */
	struct huge_request huge;
	struct conn_id id;
	struct session session;
	struct tracked_command next_tracked; /* the oldest one outstanding */
	struct tracked_command tracked[INLINE_TRACKED];
	__u32 tracked_from; /* turns outstanding: [from, to), held in tracked[n % INLINE_TRACKED] */
	__u32 tracked_to;
	__u32 tracked_paged;  /* while there are blocks for them: those from this one on are held there */
	__u16 tracked_blocks; /* for which there are, a bit each */
	__u16 tracked_block[TRACKED_BLOCKS];
	__u8 excluded_as; /* enum command_class: why it is leaving or left out */
	__u8 lost_as;     /* 1 + enum loss: why what is written to it can't be attributed, until it is joined; 0: no loss */
	__u8 dispatch_known; /* enum dispatch_known */
	__u8 pad2[3];
	__u32 dispatch_base;       /* command number n was execution number n + base, modulo 2^32 */
	__u32 dispatch_errors;     /* since that was found out */
	__u32 checks;              /* how often user space was told what becomes of the records that wait */
	__u8 push_head[PUSH_HEAD]; /* how the current push begins */
	__u16 block[CONNECTION_BLOCKS];
};

_Static_assert(sizeof(struct connection) - offsetof(struct connection, request_carry) >= INLINE_PART,
	       "what follows the inline page is long enough for head_copy()");
static __always_inline __u64 outstanding(const struct connection *conn)
{
	return conn->read_seq - conn->reply_seq;
}

#endif
