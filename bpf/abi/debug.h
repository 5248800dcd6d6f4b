/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * --debug: what BPF says when a connection changes its state, is lost, or comes in doubt, and why.
 *
 * A debug event holds no payload, because any byte of payload may be part of a password. Of what the framer stopped at it
 * holds a single byte, and user space prints that byte only if it is a character of the protocol (user/output/debug_line.c).
 */
#ifndef REPLYLOG_BPF_ABI_DEBUG_H
#define REPLYLOG_BPF_ABI_DEBUG_H

/* Bytes of the ring buffer of debug events. A full one drops events, which are counted. */
#define DEBUG_RING_BYTES (1 << 20)

/* The states of a connection: those of enum connection_mode, and one for a connection that replylog has no entry for. */
enum debug_state {
	DEBUG_UNJOINED = 0,
	DEBUG_ACCEPTED,
	DEBUG_FOLLOWED,
	DEBUG_DRAINING,
	DEBUG_EXCLUDED,
	DEBUG_PASSED_OVER,
	DEBUG_UNKNOWN,
	DEBUG_STATES,
};

/* Why. In parentheses: the loss (enum loss) that is counted. */
enum debug_why {
	/* A connection is found. */
	WHY_ACCEPTED = 0,      /* the server accepts it */
	WHY_OLDER,             /* its beginning was not seen */
	WHY_FIRST_READ,        /* its first read is seen, and everything after it will be */
	WHY_FIRST_READ_MISSED, /* a read before the first one that is seen was not seen (missed) */
	WHY_CLIENTS_FULL,      /* there is no entry left for it (clients_full) */
	WHY_TLS_BYTES,         /* its plain text is seen elsewhere */

	/* It is joined, or left out. */
	WHY_JOIN_PROVEN,
	WHY_JOIN_UNPROVEN, /* the layout of the server's structs is not known */
	WHY_MONITOR,
	WHY_REPLICATION,
	WHY_CLUSTER_LINK,
	WHY_OUTGOING, /* the server itself opened it */

	/* What was read of it ends the conversation. */
	WHY_DRAINING_COMMAND,
	WHY_ONE_WAY,            /* it only ever reads */
	WHY_TRACKED,            /* there is no memory for one more tracked command (turns) */
	WHY_REQUEST_REFUSED,    /* see enum debug_form (framing) */
	WHY_REQUEST_UNREADABLE, /* (unreadable) */
	WHY_DRAINED,            /* everything read before it left is answered */

	/* What was written to it does not fit. */
	WHY_REPLY_REFUSED,    /* see enum debug_form (framing) */
	WHY_REPLY_UNREADABLE, /* (unreadable) */
	WHY_REPLY_UNASKED,    /* no command is outstanding (out_of_step) */
	WHY_REPLY_MISFIT,     /* the command can't have such a reply (out_of_step) */
	WHY_REPLY_DOUBTFUL,   /* which command it answers can't be known (framing) */
	WHY_QUEUED_SUBSCRIBE, /* a subscribing command was queued in a transaction */

	/* Bytes passed unseen. */
	WHY_READ_MISSED,    /* (missed) */
	WHY_WRITE_MISSED,   /* (missed) */
	WHY_UNKNOWN_CALL,   /* by a system call that is not followed (framing) */
	WHY_THREAD_NO_ROOM, /* in a thread that found no scratch area (no_scratch) */

	/* Replies against commands. */
	WHY_COUNTS_DIFFER, /* the server has nothing outstanding, and we have (out_of_step) */
	WHY_REFUTED,       /* user space has found that out (out_of_step) */
	WHY_STATE_DIFFERS, /* the server's structs say something else of its transaction or its subscriptions */
	WHY_DOUBT_ENDS,    /* as many replies as commands, and what waits for a proof is ambiguous: see enum doubt */

	/* It ends. */
	WHY_CLOSED,
	WHY_KEY_REUSED, /* its close was not seen */
	WHY_PAUSE,      /* --max-overhead */
	WHYS,
};

/* What may be answered never, or twice: see bpf/conn/pairing.h. The latest is kept. */
enum doubt {
	DOUBT_NONE = 0,
	DOUBT_MODULE,       /* a command of a module's */
	DOUBT_AUTH,         /* AUTH or HELLO, which this server may leave unanswered */
	DOUBT_EXEC,         /* EXEC, whose reply may lack the element of such a command */
	DOUBT_SCRIPT_ERROR, /* a script's error, which may hold line ends */
	DOUBT_ERROR,        /* an error that names a host, or comes before the command is executed */
	DOUBT_BLANK_LINE,   /* a command behind a blank line, which this server may read as a typed line */
	DOUBT_UNTOLD,       /* that what waited was ambiguous could not be told: the ring buffer was full */
	DOUBTS,
};

/* Which form of bytes a framer refused: WHY_REQUEST_REFUSED and WHY_REPLY_REFUSED. */
enum debug_form {
	FORM_NONE = 0,
	FORM_REQUEST_ARGC,     /* what follows a '*' is no number of arguments */
	FORM_REQUEST_ARGUMENT, /* an argument does not begin with '$' */
	FORM_REQUEST_LENGTH,   /* what follows the '$' is no length */
	FORM_REQUEST_CONTROL,  /* a control character in a typed line */
	FORM_REQUEST_LONG,     /* a header is longer than any that is accepted */
	FORM_REPLY_HEADER,     /* no type, number or length that a server sends */
	FORM_REPLY_TYPE,       /* no type of RESP */
	FORM_REPLY_LONG,       /* a header is longer than any that is accepted */
	FORM_CONFIRMATION,     /* the count at the end of a subscription's confirmation is none */
	FORM_NESTED_PUSH,      /* a push inside a push or a confirmation */
	FORM_CONFIRMED_OTHER,  /* another message between the confirmations of one command */
	FORM_CONFIRMED_REPLY,  /* a reply between the confirmations of one command */
	FORM_RESP_UNKNOWN,     /* an array that may be a message, and the version of the protocol is not known */
	FORMS,
};

#define DEBUG_NOWHERE (~0ULL)

struct debug_event {
	__u64 ns;        /* CLOCK_MONOTONIC */
	__u64 client_id; /* the server's own; 0 unknown */
	__u64 read_bytes;
	__u64 written_bytes;
	__u64 read_seq;  /* commands read */
	__u64 reply_seq; /* replies written */
	__u64 position;  /* in the input or output, where a framer stopped; DEBUG_NOWHERE: none did */
	__u64 number;    /* of the bytes that were not seen; else 0 */
	__u64 skip;      /* the framer's: payload still to pass, */
	__u64 owed;      /* elements (requests: arguments) still to come */
	__u32 connection;
	__u32 generation;     /* 0: there is no entry for this connection */
	__u16 client_port;    /* host byte order */
	__u8 client_addr[16]; /* network byte order; IPv4 uses the first 4 */
	__u8 client_family;   /* enum client_family */
	__u8 why;             /* enum debug_why */
	__u8 from;            /* enum debug_state */
	__u8 to;
	__u8 form;     /* enum debug_form */
	__u8 has_seen; /* a framer stopped at a byte: */
	__u8 seen;
	__u8 exact; /* it is known which command each reply answers */
	__u8 doubt; /* enum doubt */
	__u8 pad[5];
};

_Static_assert(sizeof(struct debug_event) == 120, "debug_event is shared: no implicit padding");

#endif
