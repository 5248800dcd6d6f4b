/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/cli/options.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "user/complain.h"
#include "user/cli/size.h"
#include "user/version.h"

#define KB (UINT64_C(1) << 10)
#define GB (UINT64_C(1) << 30)
#define ARGV_MEMORY_MAX (UINT64_C(1) * ARGV_BLOCKS_MAX * ARGV_BLOCK_BYTES)

/* What follows an option, or what one without a value does. */
enum value {
	VALUE_NUMBER,
	VALUE_SIZE,
	VALUE_PERCENT,
	VALUE_WORD,
	VALUE_SELECTOR,
	VALUE_FLAG,
	VALUE_DEBUG,
	VALUE_HELP,
	VALUE_VERSION,
};

struct option_row {
	const char *name;
	char letter;          /* 0: no short form */
	const char *argument; /* in brackets: it may be left out */
	const char *initial;  /* the default, as on the command line; NULL: none */
	enum value value;
	size_t offset, width; /* of its field in struct options; a selector's offset is its kind */
	uint64_t min, max;
	const char *help;
};

#define FIELD(f) offsetof(struct options, f), sizeof(((struct options *)0)->f)

/*
 * Limits: the kernel's PID_MAX_LIMIT; what bpf/conn/connection.h can hold and number; a ring
 * buffer's size is a power of two of whole pages and must hold several records of up to 8 KiB.
 */
static const struct option_row rows[] = {
	{ "pid", 'p', "PID", NULL, VALUE_SELECTOR, SELECT_PID, 0, 1, 4194304,
	  "observe the Valkey or Redis server with this process id; may be repeated" },
	{ "port", 0, "N", NULL, VALUE_SELECTOR, SELECT_PORT, 0, 1, 65535,
	  "observe the server that listens on this TCP port; may be repeated" },
	{ "unixsocket", 0, "PATH", NULL, VALUE_SELECTOR, SELECT_UNIXSOCKET, 0, 0, 0,
	  "observe the server that listens on this Unix socket; may be repeated" },
	{ "all", 0, NULL, NULL, VALUE_SELECTOR, SELECT_ALL, 0, 0, 0,
	  "observe every listening server, those in containers included" },
	{ "follow", 'f', NULL, NULL, VALUE_FLAG, FIELD(follow), 0, 0,
	  "when a server ends, wait for its successor and observe that" },
	{ "check", 0, NULL, NULL, VALUE_FLAG, FIELD(check), 0, 0,
	  "attach nothing, print what replylog would do; exit 0 if it would work" },
	{ "json", 0, NULL, NULL, VALUE_FLAG, FIELD(json), 0, 0, "with --check: print one JSON object per server" },
	{ "threshold", 't', "SIZE", "1mb", VALUE_SIZE, FIELD(engine.threshold), 0, UINT64_MAX,
	  "log replies of at least this size; 0 logs every reply" },
	{ "max-clients", 0, "N", "10000", VALUE_NUMBER, FIELD(engine.max_clients), 1, 1000000,
	  "follow at most N connections at the same time" },
	{ "max-pipeline", 0, "N", "4096", VALUE_NUMBER, FIELD(engine.max_pipeline), 1, PIPELINE_MAX,
	  "keep the argv of at most N outstanding commands per client" },
	{ "argv-memory", 0, "SIZE", "16mb", VALUE_SIZE, FIELD(engine.argv_memory), ARGV_BLOCK_BYTES, ARGV_MEMORY_MAX,
	  "memory for the argv of all clients' outstanding commands" },
	{ "ring-size", 0, "SIZE", "8mb", VALUE_SIZE, FIELD(engine.ring_size), 64 * KB, GB,
	  "size of the buffer for records that are not written yet" },
	{ "tap", 0, "TAP", "auto", VALUE_WORD, FIELD(mode.tap), TAP_CHOICE_AUTO, TAP_CHOICE_CONNECTION,
	  "read bytes at the socket or connection; auto: first available" },
	{ "dispatch", 0, NULL, NULL, VALUE_FLAG, FIELD(mode.dispatch), 0, 0,
	  "also measure how long commands execute; slows the server's main thread" },
	{ "argv-from", 0, "FROM", "request", VALUE_WORD, FIELD(argv_from), FROM_REQUEST, FROM_DISPATCH,
	  "take argv from the request, or from the server at dispatch" },
	{ "max-overhead", 0, "PERCENT", NULL, VALUE_PERCENT, FIELD(engine.max_overhead), 1, 1000,
	  "detach for a while when the probes take more of a thread's time" },
	{ "verify-wait", 0, "MS", "1000", VALUE_NUMBER, FIELD(verify_wait_ms), 0, 3600000,
	  "wait at most this long for the proof that a record is exact" },
	{ "attach", 0, "HOW", "auto", VALUE_WORD, FIELD(mode.attach), ATTACH_AUTO, ATTACH_PERF,
	  "attach by session, multi or perf; auto: the first available" },
	{ "debug", 0, "[=FILE]", NULL, VALUE_DEBUG, 0, 0, 0, 0,
	  "explain each change and loss of a connection on stderr, or in FILE" },
	{ "help", 'h', NULL, NULL, VALUE_HELP, 0, 0, 0, 0, "show this help" },
	{ "version", 'V', NULL, NULL, VALUE_VERSION, 0, 0, 0, 0, "show the version" },
};

#define ROWS (sizeof(rows) / sizeof(rows[0]))

/* What getopt_long returns for a row: its letter, or a number that is no letter. */
#define LONG_ONLY 256

static __attribute__((format(printf, 1, 2))) enum options_result bad(const char *format, ...)
{
	char line[256];
	va_list args;

	va_start(args, format);
	vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	complain("%s", line);
	return OPTIONS_BAD;
}

/* A user's word as it may appear in a one-line message. */
static const char *shown(const char *word, char buf[static 64])
{
	size_t i;

	for (i = 0; word[i] && i < 63; i++)
		buf[i] = word[i] >= 0x20 && word[i] < 0x7f ? word[i] : '?';
	buf[i] = '\0';
	if (word[i])
		memcpy(buf + 60, "...", 3);
	return buf;
}

static int number_parse(const char *s, uint64_t *value)
{
	if (!*s || s[strspn(s, "0123456789")])
		return -EINVAL;
	return size_parse(s, value);
}

/* Percent, with at most one digit behind the point, in tenths. */
static int percent_parse(const char *s, uint64_t *tenths)
{
	size_t whole = strspn(s, "0123456789"), part = s[whole] == '.' ? strspn(s + whole + 1, "0123456789") : 0;

	if (!whole || part > 1 || s[whole + (part ? part + 1 : 0)])
		return -EINVAL;
	if (whole > 4) /* out of range, whatever follows */
		return -ERANGE;
	*tenths = strtoul(s, NULL, 10) * 10 + (part ? (uint64_t)(s[whole + 1] - '0') : 0);
	return 0;
}

static void store(struct options *o, const struct option_row *row, uint64_t value)
{
	uint32_t narrow = (uint32_t)value;
	char *field = (char *)o + row->offset;

	if (row->width == sizeof(narrow))
		memcpy(field, &narrow, sizeof(narrow));
	else
		memcpy(field, &value, sizeof(value));
}

static enum options_result bad_percent(const struct option_row *row, const char *word)
{
	char buf[64];

	return bad("--%s: '%s' is not a percentage: use 0.1 to 100, with at most one decimal digit", row->name,
		   shown(word, buf));
}

static enum options_result out_of_range(const struct option_row *row, const char *word)
{
	char buf[64];

	if (row->value == VALUE_PERCENT)
		return bad_percent(row, word);
	if (row->max == UINT64_MAX)
		return bad("--%s: '%s' does not fit in 64 bits: use a smaller size", row->name, shown(word, buf));
	return bad("--%s: '%s' is out of range: use %" PRIu64 " to %" PRIu64 "%s", row->name, shown(word, buf), row->min,
		   row->max, row->value == VALUE_SIZE ? " bytes" : "");
}

/* The words of an option, in the order of their values, which begin at its minimum. */
static const char *const *words_of(const struct option_row *row)
{
	static const char *const attach[] = { "auto", "session", "multi", "perf" };
	static const char *const tap[] = { "auto", "socket", "connection" };
	static const char *const from[] = { "request", "dispatch" };

	if (row->offset == offsetof(struct options, argv_from))
		return from;
	return row->offset == offsetof(struct options, mode.tap) ? tap : attach;
}

static int word_parse(const struct option_row *row, const char *word, uint64_t *value)
{
	for (*value = row->min; *value <= row->max; ++*value)
		if (!strcmp(word, words_of(row)[*value]))
			return 0;
	return -EINVAL;
}

static int value_parse(const struct option_row *row, const char *word, uint64_t *value)
{
	switch (row->value) {
	case VALUE_SIZE:
		return size_parse(word, value);
	case VALUE_PERCENT:
		return percent_parse(word, value);
	case VALUE_WORD:
		return word_parse(row, word, value);
	default:
		return number_parse(word, value);
	}
}

static enum options_result bad_word(const struct option_row *row, const char *word)
{
	char list[64] = "", buf[64];
	size_t len = 0;

	for (uint64_t i = row->min; i <= row->max; i++)
		len += (size_t)snprintf(list + len, sizeof(list) - len, "%s%s",
					i == row->min ? "" : (i == row->max ? " or " : ", "), words_of(row)[i]);
	return bad("--%s: '%s' is not one of its values: use %s", row->name, shown(word, buf), list);
}

/* A row's value out of a word, checked. */
static enum options_result read_value(const struct option_row *row, const char *word, uint64_t *value)
{
	char buf[64];
	int err;

	err = value_parse(row, word, value);
	if (err == -EINVAL && row->value == VALUE_WORD)
		return bad_word(row, word);
	if (err == -EINVAL && row->value == VALUE_SIZE)
		return bad("--%s: '%s' is not a size: use bytes or 1k, 1kb, 1m, 1mb, 1g, 1gb", row->name, shown(word, buf));
	if (err == -EINVAL && row->value == VALUE_PERCENT)
		return bad_percent(row, word);
	if (err == -EINVAL)
		return bad("--%s: '%s' is not a number: use %" PRIu64 " to %" PRIu64, row->name, shown(word, buf), row->min,
			   row->max);
	if (err || *value < row->min || *value > row->max)
		return out_of_range(row, word);
	return OPTIONS_RUN;
}

static enum options_result set(struct options *o, const struct option_row *row, const char *word)
{
	enum options_result result;
	uint64_t value = 0;

	result = read_value(row, word, &value);
	if (result == OPTIONS_RUN)
		store(o, row, value);
	return result;
}

static enum options_result select_server(struct options *o, const struct option_row *row, const char *word)
{
	struct selector selector = { .kind = (enum selector_kind)row->offset, .path = word };
	enum options_result result;
	uint64_t value = 0;

	if (row->max) {
		result = read_value(row, word, &value);
		if (result != OPTIONS_RUN)
			return result;
	}
	if (selector.kind == SELECT_UNIXSOCKET && !*word)
		return bad("--unixsocket: the path is empty: give the path of the socket");
	if (o->n_selectors == SELECTORS_MAX)
		return bad("--%s: more than %d servers are named: use --all", row->name, SELECTORS_MAX);
	selector.pid = selector.kind == SELECT_PID ? (pid_t)value : 0;
	selector.port = selector.kind == SELECT_PORT ? (uint16_t)value : 0;
	o->selectors[o->n_selectors++] = selector;
	return OPTIONS_RUN;
}

static enum options_result flushed(void)
{
	if (fflush(stdout))
		return bad("stdout: %s", strerror(errno));
	return OPTIONS_DONE;
}

/* A row's argument: only behind a '=', then. */
static bool may_be_left_out(const struct option_row *row)
{
	return row->argument && row->argument[0] == '[';
}

static enum options_result help(void)
{
	char left[64];

	printf("usage: replylog {-p PID | --port N | --unixsocket PATH}... [OPTION ...]\n"
	       "       replylog --all [OPTION ...]\n"
	       "Log the large replies of running Valkey or Redis servers as JSON lines on stdout.\n\n");
	for (size_t i = 0; i < ROWS; i++) {
		snprintf(left, sizeof(left), "%c%c%s--%s%s%s", rows[i].letter ? '-' : ' ',
			 rows[i].letter ? rows[i].letter : ' ', rows[i].letter ? ", " : "  ", rows[i].name,
			 rows[i].argument && !may_be_left_out(&rows[i]) ? " " : "",
			 rows[i].argument ? rows[i].argument : "");
		printf("  %-27s %s", left, rows[i].help);
		if (rows[i].initial)
			printf(" (default %s)", rows[i].initial);
		putchar('\n');
	}
	printf("\nSIZE uses the server's units: 1k is 1000 bytes, 1kb is 1024 bytes; m, mb, g and gb work the same way.\n");
	return flushed();
}

static enum options_result version(void)
{
	printf("replylog %s\n", replylog_version);
	return flushed();
}

static const struct option_row *row_of(int code)
{
	for (size_t i = 0; i < ROWS; i++)
		if (code == (rows[i].letter ? rows[i].letter : LONG_ONLY + (int)i))
			return &rows[i];
	return NULL;
}

static void getopt_tables(struct option *longs, char *shorts)
{
	/* The colon first: a missing argument is told from an unknown option. */
	*shorts++ = ':';
	for (size_t i = 0; i < ROWS; i++) {
		longs[i].name = rows[i].name;
		longs[i].has_arg = may_be_left_out(&rows[i]) ? optional_argument
				   : rows[i].argument        ? required_argument
							     : no_argument;
		longs[i].val = rows[i].letter ? rows[i].letter : LONG_ONLY + (int)i;
		if (!rows[i].letter)
			continue;
		*shorts++ = rows[i].letter;
		if (rows[i].argument)
			*shorts++ = ':';
	}
}

/*
 * getopt_long returned ':' or '?'. word is the one before optind, which a short option needs not have passed
 * yet.
 */
static enum options_result refused(int code, const char *word)
{
	const struct option_row *row = row_of(optopt);
	char buf[64];

	if (code == ':')
		return bad("--%s: needs a value: see replylog --help", row->name);
	if (row)
		return bad("--%s: takes no value: see replylog --help", row->name);
	if (!optopt)
		return bad("%s: unknown or ambiguous option: see replylog --help", shown(word, buf));
	return bad("-%s: unknown option: see replylog --help", shown((char[2]){ (char)optopt }, buf));
}

static enum options_result set_debug(struct options *o, const char *file)
{
	if (file && !*file)
		return bad("--debug: the path of the file is empty: use --debug, or --debug=FILE");
	o->engine.debug = true;
	o->debug_file = file;
	return OPTIONS_RUN;
}

static enum options_result apply(struct options *o, const struct option_row *row)
{
	switch (row->value) {
	case VALUE_HELP:
		return help();
	case VALUE_VERSION:
		return version();
	case VALUE_SELECTOR:
		return select_server(o, row, optarg);
	case VALUE_DEBUG:
		return set_debug(o, optarg);
	case VALUE_FLAG:
		memcpy((char *)o + row->offset, &(bool){ true }, sizeof(bool));
		return OPTIONS_RUN;
	default:
		return set(o, row, optarg);
	}
}

static void set_defaults(struct options *o)
{
	memset(o, 0, sizeof(*o));
	for (size_t i = 0; i < ROWS; i++)
		if (rows[i].initial)
			set(o, &rows[i], rows[i].initial);
}

static bool selects_all(const struct options *o)
{
	for (uint32_t i = 0; i < o->n_selectors; i++)
		if (o->selectors[i].kind == SELECT_ALL)
			return true;
	return false;
}

static enum options_result finish(struct options *o, int argc, char **argv)
{
	char buf[64];
	uint64_t size;

	if (optind < argc)
		return bad("'%s': replylog takes only options: see replylog --help", shown(argv[optind], buf));
	if (!o->n_selectors)
		return bad("no server is named: use --pid, as in replylog -p $(pidof valkey-server), "
			   "or --port, --unixsocket or --all");
	if (o->n_selectors > 1 && selects_all(o))
		return bad("--all: already selects every server: leave out --pid, --port and --unixsocket");
	if (o->json && !o->check)
		return bad("--json: works only with --check: without --check the output is always JSON");
	if (o->follow && o->check)
		return bad("--follow: does not work with --check, which looks only once: leave out one of them");
	o->mode.argv = o->argv_from == FROM_DISPATCH;
	o->mode.dispatch |= o->mode.argv;
	o->engine.argv_memory = (o->engine.argv_memory + ARGV_BLOCK_BYTES - 1) / ARGV_BLOCK_BYTES * ARGV_BLOCK_BYTES;
	for (size = 1; size < o->engine.ring_size;)
		size *= 2;
	o->engine.ring_size = size;
	return OPTIONS_RUN;
}

enum options_result options_parse(int argc, char **argv, struct options *o)
{
	struct option longs[ROWS + 1] = {};
	enum options_result result;
	char shorts[2 * ROWS + 2] = {};
	int code;

	getopt_tables(longs, shorts);
	set_defaults(o);
	opterr = 0;
	optind = 0; /* glibc: start over, also when called again */
	while ((code = getopt_long(argc, argv, shorts, longs, NULL)) != -1) {
		if (code == ':' || code == '?')
			return refused(code, argv[optind - 1]);
		result = apply(o, row_of(code));
		if (result != OPTIONS_RUN)
			return result;
	}
	return finish(o, argc, argv);
}
