/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/output/debug_line.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* Where a line stands in a connection's bytes. */
enum direction { NEITHER, REQUEST, REPLY };

static const struct {
	const char *text;
	enum direction direction;
} whys[WHYS] = {
	[WHY_ACCEPTED] = { "the server accepts the connection", NEITHER },
	[WHY_OLDER] = { "replylog did not see the connection begin", NEITHER },
	[WHY_FIRST_READ] = { "the server reads from it for the first time, and replylog sees all of it from here on",
			     REQUEST },
	[WHY_FIRST_READ_MISSED] = { "replylog did not see the first read (loss: missed)", REQUEST },
	[WHY_CLIENTS_FULL] = { "--max-clients connections are followed already (loss: clients_full)", NEITHER },
	[WHY_TLS_BYTES] = { "these bytes are TLS, and their plain text is followed elsewhere", NEITHER },
	[WHY_JOIN_PROVEN] = { "the server's structs prove that a command begins here and nothing is outstanding", REQUEST },
	[WHY_JOIN_UNPROVEN] = { "a command seems to begin here; without the layout of the server's structs that is not proven",
				REQUEST },
	[WHY_MONITOR] = { "the server's structs say that the client is a MONITOR", NEITHER },
	[WHY_REPLICATION] = { "the server's structs say that it is a replica or the primary", NEITHER },
	[WHY_CLUSTER_LINK] = { "it is a link of the cluster bus", NEITHER },
	[WHY_OUTGOING] = { "the server opened it, and is the client", NEITHER },
	[WHY_DRAINING_COMMAND] = { "the client sent a command that ends the sequence of commands and replies (MONITOR, PSYNC, "
				   "CLIENT REPLY or the like)",
				   REQUEST },
	[WHY_ONE_WAY] = { "the server only reads from it: as many commands are outstanding as --max-pipeline allows",
			  REQUEST },
	[WHY_TRACKED] = { "no memory for one more outstanding transaction or the like (loss: turns)", REQUEST },
	[WHY_REQUEST_REFUSED] = { "replylog cannot read the request (loss: framing)", REQUEST },
	[WHY_REQUEST_UNREADABLE] = { "the server's read buffer could not be read (loss: unreadable)", REQUEST },
	[WHY_DRAINED] = { "everything that was read before it drained is answered", NEITHER },
	[WHY_REPLY_REFUSED] = { "replylog cannot read the reply (loss: framing)", REPLY },
	[WHY_REPLY_UNREADABLE] = { "the server's write buffer could not be read (loss: unreadable)", REPLY },
	[WHY_REPLY_UNASKED] = { "the server wrote a reply although no command is outstanding (loss: out_of_step)", REPLY },
	[WHY_REPLY_MISFIT] = { "the outstanding command cannot have such a reply (loss: out_of_step)", REPLY },
	[WHY_REPLY_DOUBTFUL] = { "it cannot be known which command this reply answers (loss: framing)", REPLY },
	[WHY_QUEUED_SUBSCRIBE] = { "a transaction has queued a subscribing command, whose confirmations come inside EXEC's reply",
				   REPLY },
	[WHY_READ_MISSED] = { "the kernel counts bytes read that replylog did not see (loss: missed)", REQUEST },
	[WHY_WRITE_MISSED] = { "the kernel counts bytes written that replylog did not see (loss: missed)", REPLY },
	[WHY_UNKNOWN_CALL] = { "bytes passed in a system call that replylog does not follow (loss: framing)", REPLY },
	[WHY_THREAD_NO_ROOM] = { "a thread read, wrote or closed it and replylog had no scratch area for that thread (loss: "
				 "no_scratch)",
				 NEITHER },
	[WHY_COUNTS_DIFFER] = { "the server's structs show nothing outstanding, and replylog counts otherwise (loss: out_of_step)",
				NEITHER },
	[WHY_REFUTED] = { "user space refuted the pairing of replies and commands (loss: out_of_step)", NEITHER },
	[WHY_STATE_DIFFERS] = { "after a doubt the server's structs say something else of transaction or subscriptions",
				NEITHER },
	[WHY_DOUBT_ENDS] = { "the server has answered as many commands as it was sent, but not surely each of them once: what waits for a proof is ambiguous",
			     NEITHER },
	[WHY_CLOSED] = { "the server closes the connection", NEITHER },
	[WHY_KEY_REUSED] = { "another connection has its place: its close was not seen", NEITHER },
	[WHY_PAUSE] = { "replylog pauses (--max-overhead)", NEITHER },
};

static const char *const states[DEBUG_STATES] = {
	"unjoined", "accepted", "followed", "draining", "left out", "passed over", "unknown",
};

static const char *const doubts[DOUBTS] = {
	[DOUBT_NONE] = "",
	[DOUBT_MODULE] = "a module's command may be answered never or twice",
	[DOUBT_AUTH] = "this server may leave a failed AUTH or HELLO unanswered",
	[DOUBT_EXEC] = "a queued command may have no element in EXEC's reply",
	[DOUBT_SCRIPT_ERROR] = "a script's error may hold line ends, and so be any number of replies",
	[DOUBT_ERROR] = "an error may name a host with line ends in it, or come before the real reply",
	[DOUBT_BLANK_LINE] = "behind a blank line this server may read the next command as a typed line",
	[DOUBT_UNTOLD] = "the ring buffer was full when an earlier check should have been reported",
};

const char *debug_doubt(enum doubt doubt)
{
	return doubt < DOUBTS ? doubts[doubt] : "";
}

static const char *const forms[FORMS] = {
	[FORM_NONE] = "its form is refused",
	[FORM_REQUEST_ARGC] = "what follows '*' is no number of arguments",
	[FORM_REQUEST_ARGUMENT] = "an argument does not begin with '$'",
	[FORM_REQUEST_LENGTH] = "what follows '$' is no length",
	[FORM_REQUEST_CONTROL] = "a typed line has a control character",
	[FORM_REQUEST_LONG] = "a header does not end",
	[FORM_REPLY_HEADER] = "an element begins with no header that a server sends",
	[FORM_REPLY_TYPE] = "an element begins with no type of RESP",
	[FORM_REPLY_LONG] = "a header does not end",
	[FORM_CONFIRMATION] = "the count at the end of a confirmation is none",
	[FORM_NESTED_PUSH] = "a push begins inside a push or a confirmation",
	[FORM_CONFIRMED_OTHER] = "another message comes between the confirmations of one command",
	[FORM_CONFIRMED_REPLY] = "a reply comes between the confirmations of one command",
	[FORM_RESP_UNKNOWN] = "an array may be a message, and the version of the protocol is not known",
};

static __attribute__((format(printf, 3, 4))) void add(char *text, size_t size, const char *format, ...)
{
	size_t len = strlen(text);
	va_list args;

	va_start(args, format);
	vsnprintf(text + len, size - len, format, args);
	va_end(args);
}

static void add_address(char *text, size_t size, const __u8 *addr, __u8 family, __u16 port)
{
	char address[INET6_ADDRSTRLEN] = "";

	if (family == FAMILY_UNIX)
		add(text, size, " unix");
	if (family != FAMILY_INET && family != FAMILY_INET6)
		return;
	inet_ntop(family == FAMILY_INET ? AF_INET : AF_INET6, addr, address, sizeof(address));
	add(text, size, family == FAMILY_INET ? " %s:%u" : " [%s]:%u", address, port);
}

void debug_client(char text[DEBUG_CLIENT_TEXT], const struct reply_record *rec)
{
	snprintf(text, DEBUG_CLIENT_TEXT, rec->client_id ? "client %llu" : "a client", rec->client_id);
	add_address(text, DEBUG_CLIENT_TEXT, rec->client_addr, rec->client_family, rec->client_port);
	if (rec->generation)
		add(text, DEBUG_CLIENT_TEXT, " (connection %u.%u)", rec->connection, rec->generation);
}

static void add_client(char text[DEBUG_LINE_TEXT], const struct debug_event *event)
{
	struct reply_record rec = {
		.client_id = event->client_id,
		.client_port = event->client_port,
		.client_family = event->client_family,
		.connection = event->connection,
		.generation = event->generation,
	};
	char client[DEBUG_CLIENT_TEXT];

	memcpy(rec.client_addr, event->client_addr, sizeof(rec.client_addr));
	debug_client(client, &rec);
	add(text, DEBUG_LINE_TEXT, "%s", client);
}

static void add_position(char text[DEBUG_LINE_TEXT], const struct debug_event *event)
{
	enum direction direction = whys[event->why].direction;
	__u64 position = direction == REQUEST ? event->read_bytes : event->written_bytes;

	if (event->position != DEBUG_NOWHERE)
		position = event->position;
	if (direction != NEITHER)
		add(text, DEBUG_LINE_TEXT, " %s byte %llu", direction == REQUEST ? "request" : "reply", position);
}

/* The byte that a framer stopped at may be one of a password, unless it is one that the protocol is made of. */
static void add_seen(char text[DEBUG_LINE_TEXT], const struct debug_event *event)
{
	__u8 c = event->seen;

	if (!event->has_seen)
		return;
	if (strchr("+-:$*_#,(!=%~>|", c) && c)
		add(text, DEBUG_LINE_TEXT, "; it begins with '%c'", c);
	else if (c == '\r' || c == '\n')
		add(text, DEBUG_LINE_TEXT, "; it begins with a line end");
	else
		add(text, DEBUG_LINE_TEXT, "; it begins with a byte that is no type of the protocol (not shown)");
}

static bool is_refused(__u8 why)
{
	return why == WHY_REQUEST_REFUSED || why == WHY_REPLY_REFUSED;
}

/* What the framer is in the middle of. */
static void add_framer(char text[DEBUG_LINE_TEXT], const struct debug_event *event)
{
	bool request = whys[event->why].direction == REQUEST;

	if (event->owed || event->skip)
		add(text, DEBUG_LINE_TEXT, "; %llu %s and %llu bytes of payload were to come", event->owed,
		    request ? "arguments" : "elements", event->skip);
}

static void add_state(char text[DEBUG_LINE_TEXT], const struct debug_event *event)
{
	if (event->from == event->to)
		add(text, DEBUG_LINE_TEXT, ": %s", states[event->to]);
	else
		add(text, DEBUG_LINE_TEXT, ": %s -> %s", states[event->from], states[event->to]);
}

int debug_line(char text[DEBUG_LINE_TEXT], const struct debug_event *event, size_t size)
{
	if (size < sizeof(*event) || event->why >= WHYS || event->from >= DEBUG_STATES || event->to >= DEBUG_STATES ||
	    event->form >= FORMS || event->doubt >= DOUBTS)
		return -EBADMSG;
	text[0] = '\0';
	add_client(text, event);
	add_position(text, event);
	add_state(text, event);
	add(text, DEBUG_LINE_TEXT, ": %s", whys[event->why].text);
	if (is_refused(event->why)) {
		add(text, DEBUG_LINE_TEXT, ": %s", forms[event->form]);
		add_seen(text, event);
		add_framer(text, event);
	}
	if (event->doubt)
		add(text, DEBUG_LINE_TEXT, "; doubt: %s", doubts[event->doubt]);
	if (event->number)
		add(text, DEBUG_LINE_TEXT, "; %llu bytes", event->number);
	if (!event->generation)
		return 0;
	add(text, DEBUG_LINE_TEXT, "; %llu commands read, %llu replies written; %llu bytes read, %llu bytes written",
	    event->read_seq, event->reply_seq, event->read_bytes, event->written_bytes);
	add(text, DEBUG_LINE_TEXT, event->exact ? "" : "; ambiguous");
	return 0;
}
