/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/output/stream.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "user/clock.h"
#include "user/output/argv.h"
#include "user/output/execution.h"
#include "user/output/json.h"
#include "user/output/resp_push.h"
#include "user/output/redact.h"

#define NS_PER_US 1000

/* The server's form of an address, and the longest there is: "[<address>]:<port>". */
#define ADDR_MAX (INET6_ADDRSTRLEN + sizeof("[]:65535"))

/*
 * When a line gets too long, arguments are shortened by ARG_CUT_STEP bytes, the longest first, and never have
 * to go below ARG_CUT_MIN: all else in a reply record (the command, the argv's quotes and commas, every key)
 * takes less than the rest of the line.
 */
#define ARG_CUT_STEP 16
#define ARG_CUT_MIN 48
#define OTHER_KEYS_MAX 2048

_Static_assert((ARGV_MAX_ARG_BYTES + ARGV_MAX_ARGS * ARG_CUT_MIN + IDENTITY_WORDS * IDENTITY_WORD_MAX) * JSON_EXPANSION_MAX +
			       3 * ARGV_MAX_ARGS + OTHER_KEYS_MAX <=
		       STREAM_LINE_MAX,
	       "a reply fits in a line once its arguments are cut");

static const char *const kind_names[] = { "simple", "pipelined", "push", "multi" };
static const char *const attribution_names[] = { "exact", "ambiguous" };
static const char *const state_names[] = { "complete", "aborted" };
static const char *const loss_names[] = {
	"ring_full", "clients_full", "framing", "unreadable", "no_scratch", "missed", "turns", "unfinished", "out_of_step",
};
static const char *const counter_names[] = {
	"joined",           "unjoined",          "left_out_monitor",   "left_out_replication",
	"left_out_cluster", "left_out_outgoing", "left_out_silenced",  "left_out_other",
	"unanswered",       "reply_bytes",       "attributed_bytes",   "unattributed_bytes",
	"left_out_bytes",   "dispatch_unread",   "dispatch_disagrees",
};
static const char *const source_names[] = { NULL, "request", "dispatch" };
static const char *const stop_names[] = { "signal", "server_exited", "server_restarted", "error" };

#define NAMES(names) (sizeof(names) / sizeof((names)[0]))

_Static_assert(NAMES(loss_names) == LOSS_KINDS, "every loss has a name");

const char *stream_loss_name(enum loss loss)
{
	return loss_names[loss];
}
_Static_assert(NAMES(counter_names) == COUNTERS, "every counter has a name");
_Static_assert(NAMES(source_names) == ARGV_SOURCES, "every source has a name");
_Static_assert(NAMES(stop_names) == STOP_REASONS, "every stop has a name");
_Static_assert(KIND_MULTI == NAMES(kind_names) - 1, "every kind has a name");
_Static_assert(ATTRIBUTION_AMBIGUOUS == NAMES(attribution_names) - 1, "every attribution has a name");
_Static_assert(STATE_ABORTED == NAMES(state_names) - 1, "every state has a name");

static void put_time(const struct stream *s, struct json *j, const char *key, uint64_t monotonic_ns)
{
	char text[TIMESTAMP_LEN];

	clock_map_timestamp(&s->clock, monotonic_ns, text);
	json_text(j, key, text, sizeof(text));
}

static void put_word(struct json *j, const char *key, const char *word)
{
	if (word)
		json_text(j, key, word, strlen(word));
}

/* A word from outside may be of any length. */
static void put_foreign(struct json *j, const char *key, const char *word)
{
	if (word)
		json_text(j, key, word, strnlen(word, STREAM_WORD_MAX));
}

static void line_begin(struct stream *s, struct json *j, const char *event)
{
	json_begin(j, s->line, sizeof(s->line) - 1);
	put_word(j, "event", event);
	json_u64(j, "server_pid", s->server_pid);
}

/* -ENOBUFS when the line did not fit: then nothing is written. */
static int line_end(struct stream *s, struct json *j)
{
	int len = json_end(j);

	if (len < 0)
		return len;
	s->line[len] = '\n';
	s->line_len = (size_t)len + 1;
	return sink_write(s->sink, s->line, s->line_len);
}

static int random_hex(char out[static 33])
{
	unsigned char bytes[16];

	if (getrandom(bytes, sizeof(bytes), 0) < 0)
		return -errno;
	for (size_t i = 0; i < sizeof(bytes); i++)
		sprintf(out + 2 * i, "%02x", bytes[i]);
	return 0;
}

int stream_init(struct stream *s, struct sink *sink, uint32_t server_pid)
{
	int err;

	memset(s, 0, sizeof(*s));
	s->sink = sink;
	s->server_pid = server_pid;
	err = random_hex(s->run_id);
	return err ? err : clock_map_refresh(&s->clock);
}

int stream_start(struct stream *s, const struct stream_start *start)
{
	struct json j;
	int err;

	line_begin(s, &j, "start");
	json_u64(&j, "schema", STREAM_SCHEMA);
	put_foreign(&j, "version", start->version);
	put_word(&j, "run_id", s->run_id);
	put_word(&j, "follows", start->follows);
	put_time(s, &j, "ts", monotonic_ns());
	put_foreign(&j, "server_exe", start->server_exe);
	put_foreign(&j, "server_build_id", start->server_build_id);
	put_foreign(&j, "server_version", start->server_version);
	json_u64(&j, "threshold", start->threshold);
	put_word(&j, "tap", start->tap);
	if (start->max_overhead) {
		json_u64(&j, "max_overhead_permille", start->max_overhead);
		json_u64(&j, "probe_ns", start->probe_ns);
		if (start->tracepoint_ns)
			json_u64(&j, "tracepoint_ns", start->tracepoint_ns);
	}
	json_array_begin(&j, "probes");
	for (size_t i = 0; i < start->n_probes; i++)
		json_item_text(&j, start->probes[i], strnlen(start->probes[i], STREAM_WORD_MAX));
	json_array_end(&j);
	err = line_end(s, &j);
	return err == -ENOBUFS ? -EMSGSIZE : err;
}

/* How argv is written: in which form, and how much of each argument. */
struct shape {
	bool escaped;
	size_t arg_max;
};

/* How much of an argument is shown. Text that is cut stays text: it ends where a character does. */
static size_t shown_len(const struct argv_arg *arg, const struct shape *shape)
{
	size_t len = arg->len < shape->arg_max ? arg->len : shape->arg_max;

	return shape->escaped || len == arg->true_len ? len : utf8_floor(arg->bytes, len);
}

static bool is_text(const struct argv *a, const struct shape *shape)
{
	for (unsigned int i = 0; i < a->n; i++)
		if (!utf8_valid(a->arg[i].bytes, shown_len(&a->arg[i], shape)))
			return false;
	return true;
}

static char upper_case(char c)
{
	return c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
}

static void put_command(struct json *j, const struct argv_arg *arg, const struct shape *shape)
{
	char upper[ARGV_MAX_ARG_BYTES];
	size_t len = shown_len(arg, shape);

	for (size_t i = 0; i < len; i++)
		upper[i] = upper_case(arg->bytes[i]);
	if (shape->escaped)
		json_escaped(j, "cmd", upper, len);
	else
		json_text(j, "cmd", upper, len);
}

static void put_argv(struct json *j, const struct argv *a, const struct shape *shape)
{
	bool truncated = a->truncated;

	put_command(j, &a->arg[0], shape);
	json_array_begin(j, "argv");
	for (unsigned int i = 0; i < a->n; i++) {
		size_t len = shown_len(&a->arg[i], shape);

		if (shape->escaped)
			json_item_escaped(j, a->arg[i].bytes, len);
		else
			json_item_text(j, a->arg[i].bytes, len);
		truncated |= len < a->arg[i].len;
	}
	json_array_end(j);
	if (a->argc_known)
		json_u64(j, "argc", a->argc);
	if (truncated)
		json_bool(j, "argv_truncated", true);
	if (shape->escaped)
		put_word(j, "argv_encoding", "escaped");
}

/* Why a record that could have an argv has none; NULL when it has one, or is no reply to a known command. */
static const char *argv_lost(const struct reply_record *rec, const struct argv *a)
{
	if (record_has_head(rec))
		return a->n ? NULL : "malformed";
	switch (rec->argv_status) {
	case ARGV_LOST_DEPTH:
		return "pipeline_depth";
	case ARGV_LOST_MEMORY:
		return "argv_memory";
	default:
		return NULL;
	}
}

/*
 * "10.0.0.5:51324", "[::1]:6379", as in the server's CLIENT LIST (anetFormatAddr, valkey 9.1.2 src/anet.c);
 * "unix".
 */
static void put_addr(struct json *j, const struct reply_record *rec)
{
	char text[ADDR_MAX], address[INET6_ADDRSTRLEN];
	bool inet6 = rec->client_family == FAMILY_INET6;

	if (rec->client_family == FAMILY_UNKNOWN)
		return;
	if (rec->client_family == FAMILY_UNIX) {
		put_word(j, "client_addr", "unix");
		return;
	}
	inet_ntop(inet6 ? AF_INET6 : AF_INET, rec->client_addr, address, sizeof(address));
	snprintf(text, sizeof(text), inet6 ? "[%s]:%u" : "%s:%u", address, rec->client_port);
	put_word(j, "client_addr", text);
}

/* The time between two moments, left out when one is unknown. */
static void put_duration(struct json *j, const char *key, uint64_t from_ns, uint64_t to_ns)
{
	if (from_ns && to_ns >= from_ns)
		json_u64(j, key, (to_ns - from_ns) / NS_PER_US);
}

static void put_identity_word(struct json *j, const char *key, const struct identity_word *word)
{
	if (word->len)
		json_text(j, key, word->bytes, word->len);
}

/* Who is at the other end: what the kernel and the server know, and what the client said of itself. */
static void put_client(const struct stream *s, struct json *j, const struct reply_record *rec)
{
	const struct client_identity *who = s->identities ? client_identities_find(s->identities, rec) : NULL;
	struct client_identity dispatched;
	__s32 db = rec->db;

	if (rec->argv_from == ARGV_FROM_DISPATCH) {
		client_identity_from_dispatch(rec, &dispatched);
		who = &dispatched;
		db = rec->exec_db;
	}

	if (rec->client_id)
		json_u64(j, "client_id", rec->client_id);
	put_addr(j, rec);
	if (db >= 0)
		json_u64(j, "db", (uint64_t)db);
	if (!who)
		return;
	json_u64(j, "resp", who->resp);
	if (!s->modules_ran || rec->argv_from == ARGV_FROM_DISPATCH)
		put_identity_word(j, "client_name", &who->client_name);
	put_identity_word(j, "user", &who->user);
	put_identity_word(j, "lib_name", &who->lib_name);
	put_identity_word(j, "lib_ver", &who->lib_ver);
}

static void put_size(struct json *j, const struct reply_record *rec)
{
	if (rec->state == STATE_COMPLETE) {
		json_u64(j, "reply_bytes", rec->reply_bytes);
		return;
	}
	json_u64(j, "bytes_sent", rec->reply_bytes);
	json_u64(j, "bytes_expected", rec->bytes_expected);
}

/* A script's reply is that of the command that runs it. */
static const char *kind_name(const struct reply_record *rec, const struct argv *a)
{
	static const char *const scripts[] = { "eval", "eval_ro", "evalsha", "evalsha_ro", "fcall", "fcall_ro" };

	if (a->n && (rec->kind == KIND_SIMPLE || rec->kind == KIND_PIPELINED))
		for (size_t i = 0; i < NAMES(scripts); i++)
			if (argv_arg_reads(&a->arg[0], scripts[i]))
				return "script";
	return kind_names[rec->kind];
}

/* Is the command the one that was executed, as far as can be told from the beginning of its name? */
static bool is_executed(const struct reply_record *rec, const struct argv *a)
{
	size_t len = a->n ? a->arg[0].len : 0, known = sizeof(rec->exec_name);

	return len && !memcmp(a->arg[0].bytes, &rec->exec_name, len < known ? len : known) &&
	       (len >= known || !((const char *)&rec->exec_name)[len]);
}

/* How long the server's main thread worked on it. */
static void put_execution(struct json *j, const struct reply_record *rec, const struct argv *a)
{
	if (!rec->exec_ns || !is_executed(rec, a))
		return;
	json_u64(j, "exec_us", rec->exec_ns / NS_PER_US);
	if (!rec->inner)
		return;
	json_u64(j, "inner_commands", rec->inner);
	json_u64(j, "inner_exec_us", rec->inner_ns / NS_PER_US);
}

static void put_reply(const struct stream *s, struct json *j, const struct reply_record *rec, const struct argv *a)
{
	put_size(j, rec);
	put_client(s, j, rec);
	if (rec->request_ns)
		put_time(s, j, "request_ts", rec->request_ns);
	if (rec->request_bytes)
		json_u64(j, "request_bytes", rec->request_bytes);
	put_duration(j, "first_byte_us", rec->request_ns, rec->first_byte_ns);
	put_duration(j, "drain_us", rec->first_byte_ns, rec->last_byte_ns);
	json_u64(j, "writes", rec->writes);
	put_execution(j, rec, a);
	put_word(j, "kind", kind_name(rec, a));
	put_word(j, "attribution", attribution_names[rec->attribution]);
	put_word(j, "state", state_names[rec->state]);
	if (s->window)
		json_u64(j, "window", s->window);
}

static int write_reply(struct stream *s, const struct reply_record *rec, const struct argv *a, const struct shape *shape)
{
	const char *lost = argv_lost(rec, a);
	struct json j;

	line_begin(s, &j, "reply");
	json_u64(&j, "seq", s->replies + 1);
	put_time(s, &j, "ts", rec->last_byte_ns);
	if (a->n)
		put_argv(&j, a, shape);
	put_word(&j, "argv_lost", lost);
	put_word(&j, "argv_from", a->n ? source_names[rec->argv_from] : NULL);
	put_reply(s, &j, rec, a);
	return line_end(s, &j);
}

static int stream_command(struct stream *s, const struct reply_record *rec)
{
	struct shape shape = { .arg_max = ARGV_MAX_ARG_BYTES };
	struct argv a;
	size_t len;
	const void *head = record_head(rec, &len);
	int err;

	a.n = 0;
	if (record_has_head(rec) && !argv_decode(&a, head, len, rec->argv_cut && !rec->exec_argv_len))
		redact(&a);
	shape.escaped = !is_text(&a, &shape);
	while ((err = write_reply(s, rec, &a, &shape)) == -ENOBUFS && shape.arg_max > ARG_CUT_MIN)
		shape.arg_max -= ARG_CUT_STEP;
	return err;
}

/* Text that is cut ends where a character does, as in argv. */
static bool word_is_text(const struct argv_arg *word, const struct shape *shape)
{
	return !word->bytes || utf8_valid(word->bytes, shown_len(word, shape));
}

static void put_push_word(struct json *j, const char *key, const struct argv_arg *word, const struct shape *shape)
{
	if (!word->bytes)
		return;
	if (shape->escaped)
		json_escaped(j, key, word->bytes, shown_len(word, shape));
	else
		json_text(j, key, word->bytes, shown_len(word, shape));
}

static int stream_push(struct stream *s, const struct reply_record *rec)
{
	struct shape shape = { .arg_max = PUSH_HEAD };
	const struct argv none = { .n = 0 };
	struct resp_push push;
	struct json j;

	resp_push_decode(&push, rec + 1, rec->argv_len);
	shape.escaped = !word_is_text(&push.kind, &shape) || !word_is_text(&push.pattern, &shape) ||
			!word_is_text(&push.channel, &shape);
	line_begin(s, &j, "reply");
	json_u64(&j, "seq", s->replies + 1);
	put_time(s, &j, "ts", rec->last_byte_ns);
	put_push_word(&j, "push", &push.kind, &shape);
	put_push_word(&j, "pattern", &push.pattern, &shape);
	put_push_word(&j, "channel", &push.channel, &shape);
	if (push.truncated)
		json_bool(&j, "channel_truncated", true);
	if (shape.escaped)
		put_word(&j, "channel_encoding", "escaped");
	put_reply(s, &j, rec, &none);
	return line_end(s, &j);
}

/* Bytes of the words behind the head; more than there can be when one of them is too long. */
static size_t words_len(const struct reply_record *rec)
{
	size_t len = 0;

	for (int i = 0; i < CLIENT_WORDS; i++)
		len += rec->word[i] <= ARGV_MAX_ARG_BYTES ? rec->word[i] : SIZE_MAX / CLIENT_WORDS;
	return len;
}

static bool is_ours(const struct reply_record *rec, size_t size)
{
	return size >= sizeof(*rec) && rec->argv_len <= size - sizeof(*rec) &&
	       words_len(rec) <= size - sizeof(*rec) - rec->argv_len &&
	       rec->exec_argv_len <= size - sizeof(*rec) - rec->argv_len - words_len(rec) && rec->event == EVENT_REPLY &&
	       rec->argv_from < NAMES(source_names) && rec->kind < NAMES(kind_names) &&
	       rec->attribution < NAMES(attribution_names) && rec->state < NAMES(state_names) &&
	       rec->argv_status < ARGV_STATUSES && rec->client_family <= FAMILY_UNIX &&
	       (rec->kind == KIND_PUSH) == (rec->argv_status == ARGV_PUSH);
}

int stream_reply(struct stream *s, const struct reply_record *rec, size_t size)
{
	int err;

	if (!is_ours(rec, size))
		return -EBADMSG;
	err = rec->kind == KIND_PUSH ? stream_push(s, rec) : stream_command(s, rec);
	if (err)
		return err;
	s->replies++;
	s->ambiguous += rec->attribution == ATTRIBUTION_AMBIGUOUS;
	return 0;
}

int stream_dropped(struct stream *s, enum loss reason, const struct stream_loss *lost)
{
	struct json j;

	if ((unsigned int)reason >= LOSS_KINDS)
		return -EINVAL;
	if (!lost->count && !lost->replies && !lost->bytes)
		return 0;
	line_begin(s, &j, "dropped");
	json_u64(&j, "count", lost->count);
	put_word(&j, "reason", loss_names[reason]);
	json_u64(&j, "replies", lost->replies);
	json_u64(&j, "bytes", lost->bytes);
	s->dropped += lost->count;
	return line_end(s, &j);
}

int stream_out_of_step(struct stream *s, const struct reply_record *rec)
{
	struct json j;

	line_begin(s, &j, "dropped");
	json_u64(&j, "count", 1);
	put_word(&j, "reason", loss_names[LOSS_OUT_OF_STEP]);
	json_u64(&j, "replies", 0);
	json_u64(&j, "bytes", 0);
	if (rec->client_id)
		json_u64(&j, "client_id", rec->client_id);
	put_addr(&j, rec);
	json_u64(&j, "first_seq", s->replies + 1);
	s->dropped++;
	return line_end(s, &j);
}

int stream_stop(struct stream *s, const struct stream_stop *stop)
{
	struct json j;

	if ((unsigned int)stop->reason >= STOP_REASONS)
		return -EINVAL;
	line_begin(s, &j, "stop");
	json_u64(&j, "replies", s->replies);
	json_u64(&j, "dropped", s->dropped);
	put_word(&j, "reason", stop_names[stop->reason]);
	json_u64(&j, "hits_main", stop->hits_main);
	json_u64(&j, "hits_io", stop->hits_io);
	json_u64(&j, "ambiguous", s->ambiguous);
	json_u64(&j, "held", stop->held);
	json_u64(&j, "held_median_us", stop->held_median_us);
	json_u64(&j, "held_max_us", stop->held_max_us);
	for (int counter = 0; counter < COUNTERS; counter++)
		json_u64(&j, counter_names[counter], stop->counter[counter]);
	if (s->window) {
		json_u64(&j, "windows", s->window);
		json_u64(&j, "paused_us", s->paused_ns / NS_PER_US);
	}
	return line_end(s, &j);
}

static void window_begin(struct stream *s, struct json *j, const char *event)
{
	line_begin(s, j, event);
	put_time(s, j, "ts", monotonic_ns());
	json_u64(j, "window", s->window);
}

int stream_paused(struct stream *s, const struct stream_pause *pause)
{
	struct json j;

	window_begin(s, &j, "paused");
	json_u64(&j, "observed_us", pause->observed_ns / NS_PER_US);
	json_u64(&j, "probes_us", pause->probes_ns / NS_PER_US);
	json_u64(&j, "pause_us", pause->pause_ns / NS_PER_US);
	return line_end(s, &j);
}

int stream_resumed(struct stream *s, uint64_t paused_ns)
{
	struct json j;

	s->window++;
	s->paused_ns += paused_ns;
	window_begin(s, &j, "resumed");
	json_u64(&j, "paused_us", paused_ns / NS_PER_US);
	return line_end(s, &j);
}
