/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What BPF and user space say to each other: the record of one large reply, and the words in it.
 *
 * Times are CLOCK_MONOTONIC nanoseconds (bpf_ktime_get_ns). Sizes are bytes on the wire of the RESP protocol.
 * Both sides include this file, so every struct is laid out without implicit padding and asserted below.
 */
#ifndef REPLYLOG_BPF_ABI_RECORD_H
#define REPLYLOG_BPF_ABI_RECORD_H

#ifndef __bpf__
#include <linux/types.h>
#endif

/* As the server's COMMANDLOG/SLOWLOG keeps argv (valkey 9.1 src/commandlog.h, redis 7.0 src/slowlog.h). */
#define ARGV_MAX_ARGS 32
#define ARGV_MAX_ARG_BYTES 128

/*
 * Room for the kept head of one command, see enum argv_status. At most ARGV_MAX_ARGS arguments, of which those over
 * ARGV_MAX_ARG_BYTES are kept whole only while the head is under ARGV_RAW_BUDGET:
 * 2048 + 32 * (128 payload + 2 CRLF + 19 header) + 19 "*argc" < 8192.
 */
#define ARGV_RAW_BUDGET 2048
#define ARGV_HEAD_MAX 8192
/* An inline command's line (the server takes up to 64 KiB) is kept up to here, or up to the word that passes it. */
#define ARGV_LINE_MAX (ARGV_HEAD_MAX - 16)

/* Upper limits of --max-pipeline (commands) and --argv-memory (blocks, whose numbers have 16 bits). */
#define PIPELINE_MAX 16384
#define ARGV_BLOCKS_MAX 65536
#define ARGV_BLOCK_BYTES 16384

/* Of a push, so many of its first bytes are kept: what it is, and its channel. */
#define PUSH_HEAD 128

enum record_event {
	EVENT_REPLY = 0,
	EVENT_IDENTITY,      /* the command that follows says who the client is, and has succeeded */
	EVENT_IDENTITY_LOST, /* what such commands said before may not hold any more */
	EVENT_IDENTITY_FAILED, /* the HELLO that follows was answered with an error; options before that may have taken effect */
	EVENT_CHECKED,         /* the pairing of replies with commands was checked: see enum reply_check */
};

/*
 * Whether a record's pairing is certain. A pending record waits in user space until EVENT_CHECKED says with its
 * attribution what becomes of all of its connection that wait, or until user space has checked by itself.
 */
enum reply_check {
	CHECK_CERTAIN = 0, /* its command was the only one outstanding, on a connection without doubt */
	CHECK_PENDING,
};

enum reply_kind {
	KIND_SIMPLE = 0,    /* nothing else was outstanding on the connection from request to reply */
	KIND_PIPELINED = 1, /* other commands of the same client were outstanding at the same time */
	KIND_PUSH = 2,      /* a push, or a message of RESP2: the reply to no command */
	KIND_MULTI = 3,     /* the reply to a command that was queued in a transaction, or to EXEC as a whole */
};

enum reply_attribution {
	ATTRIBUTION_EXACT = 0,
	/* Which command the reply answers is not proven: joined in mid-conversation, or see server_sunsubscribe.h. */
	ATTRIBUTION_AMBIGUOUS = 1,
};

enum reply_state {
	STATE_COMPLETE = 0,
	STATE_ABORTED = 1, /* the connection closed inside the reply */
};

enum argv_status {
	ARGV_KEPT = 0,    /* the head bytes that follow the record are the command's */
	ARGV_LOST_DEPTH,  /* pipelined deeper than --max-pipeline */
	ARGV_LOST_MEMORY, /* the pages shared by all clients (--argv-memory) were all in use */
	ARGV_PUSH,        /* the bytes that follow are how the push begins */
	ARGV_STATUSES,
};

/* Where the head that follows a record, or was lost, is from: the request's bytes, or the server's structs. */
enum argv_from {
	ARGV_FROM_ONLY = 0, /* the request's bytes: nothing else was asked for (--argv-from request) */
	ARGV_FROM_REQUEST,  /* although the server's structs were asked for: they were not known, or overwritten */
	ARGV_FROM_DISPATCH,
	ARGV_SOURCES,
};

/* What is known of a client from the server's structs, besides numbers. */
enum client_word { WORD_USER, WORD_NAME, WORD_LIB_NAME, WORD_LIB_VER, CLIENT_WORDS };

enum client_family {
	FAMILY_UNKNOWN = 0,
	FAMILY_INET = 1,
	FAMILY_INET6 = 2,
	FAMILY_UNIX = 3,
};

/*
 * One large reply. Followed in the ring buffer by argv_len bytes, the command's head: the request as it was on the
 * wire with long arguments shortened. It is either
 *
 *   - a multibulk: "*<argc>\r\n", then for each of the first ARGV_MAX_ARGS arguments either "$<len>\r\n<bytes>\r\n"
 *     (whole) or "!<len>\r\n<first ARGV_MAX_ARG_BYTES bytes>" (shortened: no CRLF follows), then nothing more; or
 *   - an inline command: its line up to the LF, or (argv_cut) its first ARGV_LINE_MAX bytes and some.
 *
 * With ARGV_FROM_DISPATCH the words that word[] has the lengths of follow, and then exec_argv_len bytes: the head of what
 * was executed, which is always a multibulk, where that of the request is lost or is an inline command. Where both are
 * multibulks they say the same, and the request's is all there is.
 *
 * What is known of the execution stands on its number (execution.h), and a later look may refute that: then it is taken
 * away by record_forget_execution(), and the request's own words remain.
 */
struct reply_record {
	__u64 request_ns;        /* when the last byte of the command was read; 0 unknown */
	__u64 first_byte_ns;     /* when the kernel accepted the reply's first byte */
	__u64 last_byte_ns;      /* when it accepted the last one (aborted: when the connection was closed) */
	__u64 request_bytes;     /* 0 unknown */
	__u64 reply_bytes;       /* aborted: what had left by then */
	__u64 bytes_expected;    /* aborted: at least this many there would have been; else 0 */
	__u64 client_id;         /* the server's own client id; 0 unknown */
	__u64 exec_ns;           /* how long the command was executed; 0 unknown, and then the next three are 0 */
	__u64 inner_ns;          /* of that, in the commands that it executed itself: a script's */
	__u64 exec_name;         /* how the name of what was executed begins, as it is in memory; 0 unknown */
	__u32 connection;        /* number of the connection, and */
	__u32 generation;        /* which one of those that had it: from 1 on */
	__u32 inner;             /* how many commands it executed itself */
	__u32 writes;            /* write calls that carried bytes of this reply */
	__u32 argv_len;          /* bytes of head after this struct */
	__s32 db;                /* that the client had selected, by what it said; -1 unknown */
	__u32 exec_argv_len;     /* ARGV_FROM_DISPATCH: bytes of the head of what was executed; else 0 */
	__s32 exec_db;           /* ARGV_FROM_DISPATCH: the database it was executed in; else 0 */
	__u16 client_port;       /* host byte order */
	__u8 client_addr[16];    /* network byte order; IPv4 uses the first 4 */
	__u8 client_family;      /* enum client_family */
	__u8 from_start;         /* the connection was followed from its first byte on */
	__u8 event;              /* enum record_event */
	__u8 kind;               /* enum reply_kind */
	__u8 attribution;        /* enum reply_attribution */
	__u8 state;              /* enum reply_state */
	__u8 argv_status;        /* enum argv_status */
	__u8 argv_cut;           /* an inline line was longer than what was kept */
	__u8 argv_from;          /* enum argv_from */
	__u8 resp;               /* ARGV_FROM_DISPATCH: version of the protocol; else 0 */
	__u8 word[CLIENT_WORDS]; /* ARGV_FROM_DISPATCH: how long each is, at most ARGV_MAX_ARG_BYTES; 0: none */
	__u8 check;              /* enum reply_check */
	__u8 reply_type;         /* the reply's first byte; 0 unknown */
	__u8 out_of_step;        /* EVENT_CHECKED: it is counted as LOSS_OUT_OF_STEP */
	__u8 executions;         /* EVENT_CHECKED: what was said of executions is proven, too: see dispatch_in_step() */
	__u32 checks;            /* how many EVENT_CHECKED there were of this connection before */
};

_Static_assert(sizeof(struct reply_record) == 152, "reply_record is shared: no implicit padding");

/* Everything that can be lost, by name. Counted in BPF, reported on the stream as dropped events. */
enum loss {
	LOSS_RING_FULL,    /* records: the ring buffer had no room */
	LOSS_CLIENTS_FULL, /* reads: on connections beyond --max-clients, which are not followed */
	LOSS_FRAMING,      /* connections: bytes that are no RESP, or of which it can't be known what they answer */
	LOSS_UNREADABLE,   /* reads and writes: the server's buffer could not be read */
	LOSS_NO_SCRATCH,   /* I/O calls: not seen whole; what they were about is given up */
	LOSS_MISSED,       /* connections: the kernel counts bytes that were not seen */
	LOSS_TURNS,        /* connections: more transactions and the like outstanding than can be kept in mind */
	LOSS_UNFINISHED,   /* replies: large and partly written when replylog was stopped */
	LOSS_OUT_OF_STEP,  /* connections: the server answered another number of commands than it was sent */
	LOSS_KINDS,
};

/* What is worth knowing without being a loss. Reported in the stop record. */
enum counter {
	COUNTER_JOINED,             /* connections older than the attach, or lost, that were joined */
	COUNTER_UNJOINED,           /* connections that could not be joined so far */
	COUNTER_MONITORS,           /* connections left out because they are no clients (any more): MONITOR, */
	COUNTER_REPLICATION,        /* replicas, the primary, slot migration, */
	COUNTER_CLUSTER_LINKS,      /* the cluster bus, */
	COUNTER_OUTGOING,           /* others that the server itself opened; */
	COUNTER_SILENCED,           /* or because of CLIENT REPLY, */
	COUNTER_OTHERS,             /* SCRIPT DEBUG, or an inline command that may be any of these */
	COUNTER_UNANSWERED,         /* commands outstanding when their connection closed, or at the end */
	COUNTER_REPLY_BYTES,        /* all bytes that the server wrote to its clients; each is one of the next three: */
	COUNTER_ATTRIBUTED_BYTES,   /* of a reply or push that was framed, and not lost on its way to user space, */
	COUNTER_UNATTRIBUTED_BYTES, /* lost, or on a connection that is not joined (yet), */
	COUNTER_EXCLUDED_BYTES,     /* no replies: on a connection that is left out, or leaving */
	COUNTER_DISPATCH_UNREAD,    /* commands dispatched whose structs could not be read, or made no sense */
	COUNTER_DISPATCH_DISAGREES, /* replies that refute the numbering of executions: argv or the count is another one */
	COUNTERS,
};

#endif
