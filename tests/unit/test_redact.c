/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <cmocka.h>

#include "user/output/redact.h"

static struct argv a;

/* An inline line, whose arguments are joined again with '|' after redaction. */
static const char *after(const char *line, size_t len, bool cut)
{
	static char text[4096];
	size_t n = 0;

	assert_int_equal(argv_decode(&a, line, len, cut), 0);
	redact(&a);
	for (unsigned int i = 0; i < a.n; i++)
		n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%.*s", i ? "|" : "", (int)a.arg[i].len, a.arg[i].bytes);
	return text;
}

#define SHOWS(line, expected) assert_string_equal(after(line, sizeof(line) - 1, false), expected)

#define X "(redacted)"

static void test_others(void **state)
{
	(void)state;
	SHOWS("GET auth", "GET|auth");
	SHOWS("SET requirepass x", "SET|requirepass|x");
	SHOWS("HGET config auth", "HGET|config|auth");
	SHOWS("AUTHX a b", "AUTHX|a|b");
	SHOWS("AUT a", "AUT|a");
	SHOWS("COMMAND", "COMMAND");
}

static void test_auth(void **state)
{
	(void)state;
	SHOWS("AUTH", "AUTH");
	SHOWS("AUTH pw", "AUTH|" X);
	SHOWS("auth user pw", "auth|" X "|" X);
	SHOWS("aUtH user pw more", "aUtH|" X "|" X "|" X);
	SHOWS("\"\\x41UTH\" pw", "AUTH|" X);
	SHOWS("'AU'TH pw", "AUTH|" X);
	SHOWS("\"AUTH\\x00x\" pw ", "AUTH|" X);
	assert_int_equal(a.arg[1].true_len, 10);
}

static void test_hello(void **state)
{
	(void)state;
	SHOWS("HELLO", "HELLO");
	SHOWS("HELLO 3", "HELLO|3");
	SHOWS("HELLO 3 AUTH default pw", "HELLO|3|AUTH|" X "|" X);
	SHOWS("hello 3 auth default pw setname me", "hello|3|auth|" X "|" X "|setname|me");
	SHOWS("HELLO 3 SETNAME me AUTH default pw", "HELLO|3|SETNAME|me|AUTH|" X "|" X);
	SHOWS("HELLO 3 SETNAME AUTH AUTH user pw", "HELLO|3|SETNAME|AUTH|AUTH|" X "|" X);
	SHOWS("HELLO 3 AUTH AUTH AUTH SETNAME x", "HELLO|3|AUTH|" X "|" X "|SETNAME|x");
	SHOWS("HELLO 3 AUTH a b AUTH c d", "HELLO|3|AUTH|" X "|" X "|AUTH|" X "|" X);
	SHOWS("HELLO 3 AUTH pw", "HELLO|3|AUTH|" X);
	SHOWS("HELLO 3 AUTH", "HELLO|3|AUTH");
	SHOWS("HELLO AUTH user pw", "HELLO|" X "|" X "|" X);
	SHOWS("HELLO pw", "HELLO|" X);
	SHOWS("HELLO 3 AUHT user pw", "HELLO|3|" X "|" X "|" X);
	SHOWS("HELLO 3 \"AUTH\\x00x\" user pw", "HELLO|3|" X "|" X "|" X);
	SHOWS("HELLO 3 user pw AUTH", "HELLO|3|" X "|" X "|" X);
}

static void test_acl(void **state)
{
	(void)state;
	SHOWS("ACL SETUSER bob on >pw ~*", "ACL|SETUSER|" X "|" X "|" X "|" X);
	SHOWS("acl setuser bob", "acl|setuser|" X);
	SHOWS("ACL GETUSER bob", "ACL|GETUSER|" X);
	SHOWS("ACL DELUSER bob eve", "ACL|DELUSER|" X "|" X);
	SHOWS("ACL \"setuser\\x00x\" bob >pw", "ACL|setuser|" X "|" X);
	SHOWS("ACL SETUSR bob >pw", "ACL|SETUSR|" X "|" X);
	SHOWS("ACL DRYRUN bob AUTH pw", "ACL|DRYRUN|" X "|" X "|" X);
	SHOWS("ACL LIST", "ACL|LIST");
	SHOWS("ACL LOG 10", "ACL|LOG|10");
	SHOWS("ACL cat scripting", "ACL|cat|scripting");
	SHOWS("ACL", "ACL");
}

static void test_config(void **state)
{
	(void)state;
	SHOWS("CONFIG SET requirepass pw", "CONFIG|SET|requirepass|" X);
	SHOWS("config set RequirePass pw", "config|set|RequirePass|" X);
	SHOWS("CONFIG SET masterauth pw", "CONFIG|SET|masterauth|" X);
	SHOWS("CONFIG SET primaryauth pw", "CONFIG|SET|primaryauth|" X);
	SHOWS("CONFIG SET masteruser u", "CONFIG|SET|masteruser|" X);
	SHOWS("CONFIG SET primaryuser u", "CONFIG|SET|primaryuser|" X);
	SHOWS("CONFIG SET tls-key-file-pass pw", "CONFIG|SET|tls-key-file-pass|" X);
	SHOWS("CONFIG SET tls-client-key-file-pass pw", "CONFIG|SET|tls-client-key-file-pass|" X);
	SHOWS("CONFIG SET search.oss-global-password pw", "CONFIG|SET|search.oss-global-password|" X);
	SHOWS("CONFIG SET mod.key pw maxmemory 1gb", "CONFIG|SET|mod.key|" X "|maxmemory|1gb");
	SHOWS("CONFIG SET maxmemory 1gb", "CONFIG|SET|maxmemory|1gb");
	SHOWS("CONFIG SET maxmemory 1gb requirepass pw", "CONFIG|SET|maxmemory|1gb|requirepass|" X);
	SHOWS("CONFIG SET requirepass my pass word", "CONFIG|SET|requirepass|" X "|" X "|" X);
	SHOWS("CONFIG SET maxmemory requirepass pw", "CONFIG|SET|" X "|" X "|" X);
	SHOWS("CONFIG SET requirepass", "CONFIG|SET|" X);
	SHOWS("CONFIG SETT requirepass pw", "CONFIG|SETT|" X "|" X);
	SHOWS("CONFIG \"set\\x00\" requirepass pw", "CONFIG|set|" X "|" X);
	SHOWS("CONFIG GET *", "CONFIG|GET|*");
	SHOWS("CONFIG GET requirepass maxmemory", "CONFIG|GET|requirepass|maxmemory");
	SHOWS("CONFIG RESETSTAT", "CONFIG|RESETSTAT");
	SHOWS("CONFIG", "CONFIG");
}

static void test_migrate(void **state)
{
	(void)state;
	SHOWS("MIGRATE h 6379 key 0 1000", "MIGRATE|h|6379|key|0|1000");
	SHOWS("MIGRATE h 6379 key 0 1000 COPY REPLACE AUTH pw", "MIGRATE|h|6379|key|0|1000|COPY|REPLACE|AUTH|" X);
	SHOWS("migrate h 6379 '' 0 1000 auth2 user pw keys a b", "migrate|h|6379||0|1000|auth2|" X "|" X "|keys|a|b");
	SHOWS("MIGRATE h 6379 '' 0 1000 AUTH KEYS KEYS a", "MIGRATE|h|6379||0|1000|AUTH|" X "|KEYS|a");
	SHOWS("MIGRATE h 6379 key 0 1000 AUTH", "MIGRATE|h|6379|key|0|1000|" X);
	SHOWS("MIGRATE h 6379 key 0 1000 AUTH2 pw", "MIGRATE|h|6379|key|0|1000|" X "|" X);
	SHOWS("MIGRATE h 6379 key 0 1000 AUHT pw", "MIGRATE|h|6379|key|0|1000|" X "|" X);
	SHOWS("MIGRATE h 6379 key 0 AUTH pw", "MIGRATE|h|6379|key|0|AUTH|" X);
	SHOWS("MIGRATE h 6379 AUTH pw", "MIGRATE|h|6379|AUTH|" X);
	SHOWS("MIGRATE h 6379 '' 0 1000 KEYS a AUTH pw", "MIGRATE|h|6379||0|1000|KEYS|a|AUTH|" X);
}

static void test_sentinel(void **state)
{
	(void)state;
	SHOWS("SENTINEL SET primary auth-pass pw", "SENTINEL|SET|primary|auth-pass|" X);
	SHOWS("SENTINEL SET primary quorum 2 AUTH-USER u", "SENTINEL|SET|primary|quorum|2|AUTH-USER|" X);
	SHOWS("SENTINEL CONFIG SET sentinel-pass pw", "SENTINEL|CONFIG|SET|sentinel-pass|" X);
	SHOWS("SENTINEL CONFIG SET requirepass pw", "SENTINEL|CONFIG|SET|requirepass|" X);
	SHOWS("SENTINEL MASTERS", "SENTINEL|MASTERS");
	SHOWS("MODULE LOADEX m.so CONFIG m.password pw", "MODULE|LOADEX|m.so|CONFIG|m.password|" X);
	SHOWS("MODULE LIST", "MODULE|LIST");
}

/* A cut must not make a secret look harmless. */
static void test_cut(void **state)
{
	char line[1024], longer[200];

	(void)state;
	memset(longer, 'n', sizeof(longer));
	/* A parameter's name with an unknown end. */
	assert_non_null(strstr(after(line, (size_t)snprintf(line, sizeof(line), "CONFIG SET %.200s hunter2", longer), false),
			       "|" X));
	/* A subcommand and an option likewise. */
	assert_null(
		strstr(after(line, (size_t)snprintf(line, sizeof(line), "ACL %.200s hunter2", longer), false), "hunter2"));
	assert_null(strstr(after(line, (size_t)snprintf(line, sizeof(line), "HELLO 3 %.200s hunter2", longer), false),
			   "hunter2"));
	/* A password of which only the beginning was kept. */
	assert_string_equal(after(line, (size_t)snprintf(line, sizeof(line), "AUTH %.200s", longer), false), "AUTH|" X);
	/* An inline line that was cut inside an argument. */
	assert_string_equal(after("AUTH hun", 8, true), "AUTH|" X);
	assert_string_equal(after("AUTH \"hun ter", 13, true), "AUTH|" X);
	assert_string_equal(after("HELLO 3 AUTH user", 17, true), "HELLO|3|AUTH|" X);
	assert_string_equal(after("MIGRATE h 1 k 0 1 AUTH2 user", 28, true), "MIGRATE|h|1|k|0|1|" X "|" X);
	assert_string_equal(after("CONFIG SET requirepass hun", 26, true), "CONFIG|SET|requirepass|" X);
}

/*
 * More arguments than are kept: the pairs of CONFIG SET must not shift, and the kept ones are still redacted.
 */
static void test_many(void **state)
{
	char head[2048];
	int len = snprintf(head, sizeof(head), "*42\r\n$6\r\nCONFIG\r\n$3\r\nSET\r\n");

	(void)state;
	for (int i = 0; i < 14; i++)
		len += snprintf(head + len, sizeof(head) - (size_t)len, "$1\r\nm\r\n$1\r\n%d\r\n", i % 10);
	len += snprintf(head + len, sizeof(head) - (size_t)len, "$11\r\nrequirepass\r\n$2\r\npw\r\n");
	assert_int_equal(argv_decode(&a, head, (size_t)len, false), 0);
	redact(&a);
	assert_int_equal(a.n, 32);
	assert_memory_equal(a.arg[30].bytes, "requirepass", 11);
	assert_memory_equal(a.arg[31].bytes, X, 10);
	assert_memory_equal(a.arg[29].bytes, "3", 1);

	/* AUTH's user is the last argument that is kept, its password the first that isn't. */
	len = snprintf(head, sizeof(head), "*33\r\n$5\r\nHELLO\r\n$1\r\n3\r\n");
	for (int i = 0; i < 14; i++)
		len += snprintf(head + len, sizeof(head) - (size_t)len, "$7\r\nSETNAME\r\n$1\r\nx\r\n");
	len += snprintf(head + len, sizeof(head) - (size_t)len, "$4\r\nAUTH\r\n$4\r\nuser\r\n");
	assert_int_equal(argv_decode(&a, head, (size_t)len, false), 0);
	memset(a.text, 'z', sizeof(a.text));
	redact(&a);
	assert_memory_equal(a.arg[31].bytes, X, 10);
	for (size_t i = 0; i < sizeof(a.text); i++)
		assert_int_equal(a.text[i], 'z');
}

/*
 * The server's own code, as it calls redactClientCommandArgument: valkey 9.1.2 and redis 7.0.15, acl.c,
 * networking.c, config.c, cluster.c. Returns the bits of the arguments it hides.
 */
static bool is(const char *word, const char *other)
{
	return !strcasecmp(word, other);
}

static uint32_t hello_hides(char **argv, int argc)
{
	uint32_t hidden = 0;
	char *end;

	if (argc >= 2 && (strtol(argv[1], &end, 10) < 2 || *end || strtol(argv[1], NULL, 10) > 3))
		return 0;
	for (int j = 2; j < argc; j++) {
		int more = argc - 1 - j;

		if (is(argv[j], "AUTH") && more >= 2) {
			hidden |= 3u << (j + 1);
			j += 2;
		} else if (is(argv[j], "SETNAME") && more) {
			j++;
		} else {
			break;
		}
	}
	return hidden;
}

static uint32_t migrate_hides(char **argv, int argc)
{
	uint32_t hidden = 0;

	for (int j = 6; j < argc; j++) {
		int more = argc - 1 - j;

		if (is(argv[j], "copy") || is(argv[j], "replace"))
			continue;
		if (is(argv[j], "auth") && more) {
			hidden |= 1u << ++j;
		} else if (is(argv[j], "auth2") && more >= 2) {
			hidden |= 3u << (j + 1);
			j += 2;
		} else {
			break;
		}
	}
	return hidden;
}

static uint32_t config_hides(char **argv, int argc)
{
	static const char *const sensitive[] = {
		"requirepass",
		"primaryauth",
		"masterauth",
		"primaryuser",
		"masteruser",
		"tls-key-file-pass",
		"tls-client-key-file-pass",
	};
	uint32_t hidden = 0;

	if (argc < 4 || argc & 1 || !is(argv[1], "set"))
		return 0;
	for (int i = 2; i < argc; i += 2)
		for (size_t k = 0; k < sizeof(sensitive) / sizeof(sensitive[0]); k++)
			if (is(argv[i], sensitive[k]))
				hidden |= 1u << (i + 1);
	return hidden;
}

static uint32_t server_hides(char **argv, int argc)
{
	if (is(argv[0], "auth"))
		return argc > 3 ? 0 : 6u & ((1u << argc) - 1);
	if (is(argv[0], "hello"))
		return hello_hides(argv, argc);
	if (is(argv[0], "acl") && argc > 2 &&
	    (is(argv[1], "setuser") || is(argv[1], "deluser") || (is(argv[1], "getuser") && argc == 3)))
		return ((1u << argc) - 1) & ~3u;
	if (is(argv[0], "config"))
		return config_hides(argv, argc);
	if (is(argv[0], "migrate") && argc >= 6)
		return migrate_hides(argv, argc);
	return 0;
}

/* Random command lines of relevant words: redact() hides whatever the server hides. */
static void test_against_server(void **state)
{
	static char *const words[] = {
		"AUTH",
		"auth2",
		"HELLO",
		"2",
		"3",
		"SETNAME",
		"setname",
		"ACL",
		"SetUser",
		"deluser",
		"GETUSER",
		"CONFIG",
		"SET",
		"set",
		"GET",
		"requirepass",
		"MasterAuth",
		"primaryuser",
		"tls-key-file-pass",
		"maxmemory",
		"MIGRATE",
		"copy",
		"REPLACE",
		"keys",
		"key",
		"0",
	};
	static char *const commands[] = { "AUTH", "hello", "ACL", "config", "Migrate" };
	unsigned int hidden_at_all = 0;
	char *argv[16];

	(void)state;
	srandom(1);
	for (int round = 0; round < 300000; round++) {
		int argc = 1 + (int)(random() % 13);
		uint32_t hidden;

		argv[0] = commands[random() % 5];
		for (int i = 1; i < argc; i++)
			argv[i] = words[(size_t)random() % (sizeof(words) / sizeof(words[0]))];
		if (argc > 1 && round % 2)
			argv[1] = is(argv[0], "hello") ? "3" : is(argv[0], "acl") ? "SETUSER" : "SET";
		a = (struct argv){ .argc = (uint64_t)argc, .n = (unsigned int)argc };
		for (int i = 0; i < argc; i++)
			a.arg[i] = (struct argv_arg){ argv[i], strlen(argv[i]), strlen(argv[i]) };
		redact(&a);
		hidden = server_hides(argv, argc);
		hidden_at_all += !!hidden;
		for (int i = 0; i < argc; i++)
			if (hidden >> i & 1)
				assert_memory_equal(a.arg[i].bytes, X, 10);
		assert_ptr_equal(a.arg[0].bytes, argv[0]);
	}
	assert_true(hidden_at_all > 30000);
}

/*
 * Parses a typed line as a server does, byte by byte: sdssplitargs of redis 7.0.15 and valkey 9.1.2, src/sds.c. Since
 * valkey 9.0 the line has an end besides its zero byte, and a quote may close inside an argument. Bytes 0xff are dropped
 * by valkey 8.1 and 9.1 where char is signed.
 */
struct server {
	bool is_new, drops;
};

#define WORDS_MAX 16

struct words {
	int argc;
	char bytes[WORDS_MAX][256];
	size_t len[WORDS_MAX];
	char *argv[WORDS_MAX];
};

static bool is_blank(char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static int hex(char c)
{
	const char *digits = "0123456789abcdef", *at = c ? strchr(digits, c | 0x20) : NULL;

	return at && (c >= '0') ? (int)(at - digits) : -1;
}

/* Returns the length of an escape at p, or 0. New servers require more bytes behind it. */
static size_t escape(const struct server *server, const char *p, const char *end, char quote, char *out)
{
	size_t left = server->is_new ? (size_t)(end - p) : SIZE_MAX;
	const char *plain = "nrtba", *at;

	if (*p != '\\')
		return 0;
	if (quote == '\'') {
		if (p[1] != '\'' || left <= 2)
			return 0;
		*out = '\'';
		return 2;
	}
	if (left > 4 && p[1] == 'x' && hex(p[2]) >= 0 && hex(p[3]) >= 0) {
		*out = (char)(16 * hex(p[2]) + hex(p[3]));
		return 4;
	}
	if (!p[1] || left <= 2)
		return 0;
	at = strchr(plain, p[1]);
	*out = at ? "\n\r\t\b\a"[at - plain] : p[1];
	return 2;
}

/* end has a zero byte. False: a protocol error. */
static bool split(const struct server *server, struct words *w, const char *p, const char *end)
{
	memset(w, 0, sizeof(*w));
	while (true) {
		char quote = 0, c;
		size_t n;

		while (is_blank(*p))
			p++;
		if (!*p)
			return true;
		if (w->argc == WORDS_MAX)
			return true;
		w->argv[w->argc] = w->bytes[w->argc];
		while (*p && (quote || !strchr(" \n\r\t", *p))) {
			n = 1;
			c = *p;
			if (quote) {
				n = escape(server, p, end, quote, &c);
				if (!n && *p == quote) {
					p++;
					quote = 0;
					if (server->is_new)
						continue;
					if (*p && !is_blank(*p))
						return false;
					break;
				}
				n = n ? n : 1;
			} else if (*p == '"' || *p == '\'') {
				quote = *p++;
				continue;
			}
			/* As an escape, "\xff" has another value than as a char. */
			if (!(server->drops && c == '\xff' && n != 4))
				w->argv[w->argc][w->len[w->argc]++] = c;
			p += n;
		}
		if (quote)
			return false;
		w->argc++;
	}
}

static bool same_words(const struct words *a, const struct words *b)
{
	if (a->argc != b->argc)
		return false;
	for (int i = 0; i < a->argc; i++)
		if (a->len[i] != b->len[i] || memcmp(a->bytes[i], b->bytes[i], a->len[i]))
			return false;
	return true;
}

/* What a record shows of a line that servers read as w: nothing that they hide, otherwise what they read. */
static void check_shown(const struct words *w)
{
	uint32_t hidden = server_hides((char **)w->argv, w->argc);

	assert_int_equal(a.argc, w->argc);
	for (int i = 0; i < w->argc; i++) {
		bool is_hidden = a.arg[i].len == strlen(X) && !memcmp(a.arg[i].bytes, X, strlen(X));

		if (hidden >> i & 1)
			assert_true(is_hidden);
		if (is_hidden)
			continue;
		assert_int_equal(a.arg[i].len, w->len[i]);
		assert_memory_equal(a.arg[i].bytes, w->bytes[i], w->len[i]);
	}
}

/*
 * Typed lines of relevant words, with bytes that servers treat differently. A record shows the line only when all
 * servers that accept it read the same.
 */
static void test_typed_lines(void **state)
{
	static const char *const atoms[] = {
		"AUTH",    "A\xffUTH",  "AU",          "TH",     "HELLO", "3",           "SETNAME",
		"ACL",     "SETUSER",   "SET\xffUSER", "CONFIG", "SET",   "requirepass", "require\xffpass",
		"MIGRATE", "h 1 k 0 1", "secret",      "\xff",   "\"",    "'",           "\"",
		"'",       "\\",        "\\",          "\\xff",  "\\xFF", "\\x41",       "\\x00",
		"x",       "n",         "\r",          "\v",     "\f",    "\t",
	};
	static const struct server servers[] = { { 0, 0 }, { 0, 1 }, { 1, 0 }, { 1, 1 } };
	unsigned int shown = 0, kept_back = 0;
	static struct words w[4], first;

	(void)state;
	srandom(2);
	for (int round = 0; round < 300000; round++) {
		char line[256], head[256];
		int parts = 1 + (int)(random() % 8), accepted = 0, err;
		bool agree = true;
		size_t len = 0, end;

		for (int i = 0; i < parts; i++)
			len += (size_t)sprintf(line + len, "%s%s",
					       atoms[(size_t)random() % (sizeof(atoms) / sizeof(atoms[0]))],
					       random() % 3 ? " " : "");
		memcpy(head, line, len);
		if (random() % 2)
			head[len++] = '\r';
		end = len && head[len - 1] == '\r' ? len - 1 : len;
		memcpy(line, head, end);
		line[end] = '\0';
		for (int i = 0; i < 4; i++) {
			if (!split(&servers[i], &w[i], line, line + end))
				continue;
			agree &= !accepted++ || same_words(&first, &w[i]);
			first = w[i];
		}
		if (first.argc == WORDS_MAX)
			continue;
		err = argv_decode(&a, head, len, false);
		assert_int_equal(!err, accepted && agree && first.argc);
		kept_back += !agree;
		if (err)
			continue;
		shown++;
		redact(&a);
		check_shown(&first);
	}
	assert_true(shown > 50000 && kept_back > 5000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_others),      cmocka_unit_test(test_auth),
		cmocka_unit_test(test_hello),       cmocka_unit_test(test_acl),
		cmocka_unit_test(test_config),      cmocka_unit_test(test_migrate),
		cmocka_unit_test(test_sentinel),    cmocka_unit_test(test_cut),
		cmocka_unit_test(test_many),        cmocka_unit_test(test_against_server),
		cmocka_unit_test(test_typed_lines),
	};

	return cmocka_run_group_tests_name("redact", tests, NULL, NULL);
}
