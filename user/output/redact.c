/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The rules are the calls of redactClientCommandArgument in valkey 9.1.2 and redis 7.0.15 (src/acl.c,
 * networking.c, config.c, cluster.c), taken together, with one difference. The server has understood a
 * command when it redacts; we see only bytes, of which some were cut, and commands that it refuses (a
 * mistyped option before a password). So what is shown is what is known to be harmless, and from the first
 * argument that isn't understood everything is hidden.
 */
#include "user/output/redact.h"

#include <string.h>
#include <strings.h>

/*
 * The server compares most words with strcasecmp, for which a NUL ends the word: "AUTH\0x" is AUTH to HELLO.
 * A word that hides something is compared like that; a word that lets something be shown must match to its
 * last byte.
 */
static bool is_like(const struct argv_arg *arg, const char *word)
{
	size_t len = strnlen(arg->bytes, arg->len);

	return len == strlen(word) && !strncasecmp(arg->bytes, word, len);
}

static bool is_exactly(const struct argv_arg *arg, const char *word)
{
	return arg->true_len == strlen(word) && is_like(arg, word);
}

static void hide(struct argv *a, unsigned int i)
{
	if (i < a->n)
		a->arg[i] = (struct argv_arg){ REDACTED, strlen(REDACTED), strlen(REDACTED) };
}

static void hide_from(struct argv *a, unsigned int first)
{
	for (unsigned int i = first; i < a->n; i++)
		hide(a, i);
}

static bool contains(const struct argv_arg *arg, const char *word)
{
	size_t len = strlen(word);

	for (size_t i = 0; i + len <= arg->len; i++)
		if (!strncasecmp(arg->bytes + i, word, len))
			return true;
	return false;
}

/*
 * The parameters with SENSITIVE_CONFIG in src/config.c of both servers are requirepass, primaryauth,
 * masterauth, primaryuser, masteruser, tls-key-file-pass and tls-client-key-file-pass; Sentinel's are
 * auth-pass, auth-user, sentinel-pass and sentinel-user (isSensitiveCommand, src/valkey-cli.c). Modules
 * register more of them under names we can't know (VALKEYMODULE_CONFIG_SENSITIVE), hence parts of names. A
 * name too long to be kept is not known either.
 */
static bool names_secret(const struct argv_arg *arg)
{
	static const char *const parts[] = { "pass", "auth", "user", "secret", "token", "cred" };

	if (arg->len < arg->true_len)
		return true;
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
		if (contains(arg, parts[i]))
			return true;
	return false;
}

/* AUTH [username] password */
static void redact_all(struct argv *a)
{
	hide_from(a, 1);
}

static bool is_number(const struct argv_arg *arg)
{
	for (size_t i = 0; i < arg->len; i++)
		if (arg->bytes[i] < '0' || arg->bytes[i] > '9')
			return false;
	return arg->len && arg->len == arg->true_len;
}

/* HELLO [protover [AUTH username password] [SETNAME clientname]] */
static void redact_hello(struct argv *a)
{
	unsigned int i = 2;

	if (a->n > 1 && !is_number(&a->arg[1])) {
		hide_from(a, 1);
		return;
	}
	while (i < a->n) {
		if (is_exactly(&a->arg[i], "setname")) {
			i += 2;
		} else if (is_exactly(&a->arg[i], "auth")) {
			hide(a, i + 1);
			hide(a, i + 2);
			i += 3;
		} else {
			hide_from(a, i);
			return;
		}
	}
}

/* Whether the subcommand is one of names, a list that NULL ends. */
static bool subcommand_in(const struct argv *a, const char *const *names)
{
	for (; a->n > 1 && *names; names++)
		if (is_exactly(&a->arg[1], *names))
			return true;
	return false;
}

/*
 * ACL SETUSER, DELUSER, GETUSER: all from the user's name on. DRYRUN carries a whole command: hidden with the
 * rest.
 */
static void redact_acl(struct argv *a)
{
	static const char *const harmless[] = { "cat", "genpass", "help",  "list",   "load",
						"log", "save",    "users", "whoami", NULL };

	if (!subcommand_in(a, harmless))
		hide_from(a, 2);
}

/* A module's parameter is named <module>.<parameter>, and only the server knows whether it is sensitive. */
static bool names_module_parameter(const struct argv_arg *arg)
{
	return arg->len && memchr(arg->bytes, '.', arg->len);
}

/*
 * CONFIG SET parameter value [parameter value ...]. After the first sensitive parameter nothing is shown, and
 * of unpaired words neither: a password with a space in it, not quoted, reads as a value and then a
 * parameter.
 */
static void redact_config(struct argv *a)
{
	static const char *const harmless[] = { "get", "help", "resetstat", "rewrite", NULL };

	if (subcommand_in(a, harmless))
		return;
	if (a->n < 2 || !is_exactly(&a->arg[1], "set") || a->argc % 2) {
		hide_from(a, 2);
		return;
	}
	for (unsigned int i = 2; i < a->n; i += 2) {
		if (names_secret(&a->arg[i])) {
			hide_from(a, i + 1);
			return;
		}
		if (names_module_parameter(&a->arg[i]))
			hide(a, i + 1);
	}
}

/*
 * MIGRATE's arguments from first to before end are values of other things, keys for example. AUTH among them
 * is one more to the server, but a mistake more likely. Returns whether the arguments after it were hidden
 * for it.
 */
static bool hide_after_auth(struct argv *a, unsigned int first, unsigned int end)
{
	for (unsigned int i = first; i < end && i < a->n; i++) {
		if (is_like(&a->arg[i], "auth") || is_like(&a->arg[i], "auth2")) {
			hide_from(a, i + 1);
			return true;
		}
	}
	return false;
}

/*
 * MIGRATE host port key db timeout [COPY] [REPLACE] [AUTH password | AUTH2 username password] [KEYS key ...]
 */
static void redact_migrate(struct argv *a)
{
	unsigned int i = 6;

	if (hide_after_auth(a, 1, i))
		return;
	while (i < a->n) {
		if (is_exactly(&a->arg[i], "keys")) {
			hide_after_auth(a, i + 1, a->n);
			return;
		}
		if (is_exactly(&a->arg[i], "copy") || is_exactly(&a->arg[i], "replace")) {
			i++;
		} else if (is_exactly(&a->arg[i], "auth") && i + 1 < a->n) {
			hide(a, i + 1);
			i += 2;
		} else if (is_exactly(&a->arg[i], "auth2") && i + 2 < a->n) {
			hide(a, i + 1);
			hide(a, i + 2);
			i += 3;
		} else {
			hide_from(a, i);
			return;
		}
	}
}

/*
 * SENTINEL SET name option value ..., SENTINEL CONFIG SET parameter value ..., MODULE LOADEX path CONFIG name
 * value ... The servers themselves don't redact these; valkey-cli keeps the first two out of its history.
 */
static void redact_after_secret(struct argv *a)
{
	for (unsigned int i = 1; i < a->n; i++) {
		if (names_secret(&a->arg[i])) {
			hide_from(a, i + 1);
			return;
		}
	}
}

static const struct {
	const char *command;
	void (*redact)(struct argv *a);
} rules[] = {
	{ "auth", redact_all },
	{ "hello", redact_hello },
	{ "acl", redact_acl },
	{ "config", redact_config },
	{ "migrate", redact_migrate },
	{ "sentinel", redact_after_secret },
	{ "module", redact_after_secret },
};

void redact(struct argv *a)
{
	for (size_t i = 0; a->n && i < sizeof(rules) / sizeof(rules[0]); i++)
		if (is_like(&a->arg[0], rules[i].command))
			rules[i].redact(a);
}
