/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The rules are those of helloCommand, clientSetNameCommand, clientSetinfoCommand and resetCommand in src/networking.c
 * and of authCommand in src/acl.c, valkey 9.1.2 and redis 7.0.15, for commands that have succeeded. A command that they
 * would have refused is one that we have not understood: then nothing is known any more.
 */
#include "user/output/client_identity.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "user/output/argv.h"

#define DEFAULT_USER "default"

/* Large tables come from the kernel as pages of zeros that take no memory until the first identity is written. */
int client_identities_init(struct client_identities *all, uint32_t connections)
{
	all->connections = connections;
	all->hello_in_parts = true;
	all->of = calloc(connections, sizeof(*all->of));
	return all->of ? 0 : -ENOMEM;
}

void client_identities_free(struct client_identities *all)
{
	free(all->of);
	all->of = NULL;
	all->connections = 0;
}

static void forget(struct identity_word *word)
{
	word->len = 0;
}

static void set(struct identity_word *word, const char *bytes, size_t len)
{
	memcpy(word->bytes, bytes, len);
	word->len = (uint8_t)len;
}

/* One that was cut is not known; an empty one takes away what was there. */
static void take(struct identity_word *word, const struct argv_arg *arg)
{
	if (arg->len < arg->true_len)
		forget(word);
	else
		set(word, arg->bytes, arg->len);
}

/*
 * These take what the command a says into id. False when it is not understood; id may be half changed then.
 */

/* AUTH [username] password */
static bool learn_auth(struct client_identity *id, const struct argv *a)
{
	if (a->argc == 2)
		set(&id->user, DEFAULT_USER, strlen(DEFAULT_USER));
	else if (a->argc == 3)
		take(&id->user, &a->arg[1]);
	return a->argc == 2 || a->argc == 3;
}

static bool learn_protocol(struct client_identity *id, const struct argv_arg *arg)
{
	if (argv_arg_is(arg, "2"))
		id->resp = 2;
	else if (argv_arg_is(arg, "3"))
		id->resp = 3;
	else
		return false;
	return true;
}

/* HELLO [protover [AUTH username password] [SETNAME clientname]]: the last one of each counts. */
static bool learn_hello(struct client_identity *id, const struct argv *a)
{
	unsigned int i = 2;

	if (a->n < a->argc || (a->n > 1 && !learn_protocol(id, &a->arg[1])))
		return false;
	while (i < a->n) {
		if (argv_arg_reads(&a->arg[i], "auth") && i + 2 < a->n) {
			take(&id->user, &a->arg[i + 1]);
			i += 3;
		} else if (argv_arg_reads(&a->arg[i], "setname") && i + 1 < a->n) {
			take(&id->client_name, &a->arg[i + 1]);
			i += 2;
		} else {
			return false;
		}
	}
	return true;
}

/* CLIENT SETINFO LIB-NAME | LIB-VER value */
static bool learn_library(struct client_identity *id, const struct argv *a)
{
	if (a->argc != 4)
		return false;
	if (argv_arg_reads(&a->arg[2], "lib-name"))
		take(&id->lib_name, &a->arg[3]);
	else if (argv_arg_reads(&a->arg[2], "lib-ver"))
		take(&id->lib_ver, &a->arg[3]);
	/* Any other would be one that a later server knows, and none of these. */
	return true;
}

/* CLIENT subcommand ...: typed inline, any of them comes here. */
static bool learn_client(struct client_identity *id, const struct argv *a)
{
	if (a->n > 1 && argv_arg_reads(&a->arg[1], "setinfo"))
		return learn_library(id, a);
	if (a->n < 2 || !argv_arg_reads(&a->arg[1], "setname"))
		return true;
	if (a->argc != 3)
		return false;
	take(&id->client_name, &a->arg[2]);
	return true;
}

/* Back to how the connection was accepted. The library is still the same one. */
static bool learn_reset(struct client_identity *id, const struct argv *a)
{
	forget(&id->client_name);
	forget(&id->user);
	id->resp = 2;
	return true;
}

/*
 * After a HELLO that has failed, is all as it was? When it has failed at its protocol, or at its only option, AUTH. A
 * name may be taken and the command be refused for want of AUTH.
 */
static bool hello_changed_nothing(const struct argv *a)
{
	struct client_identity any;

	if (a->n < 3 || !learn_protocol(&any, &a->arg[1]))
		return true;
	return a->argc == 5 && argv_arg_reads(&a->arg[2], "auth");
}

static const struct {
	const char *command;
	bool (*learn)(struct client_identity *id, const struct argv *a);
} rules[] = {
	{ "auth", learn_auth },
	{ "hello", learn_hello },
	{ "client", learn_client },
	{ "reset", learn_reset },
};

/* In the part of a line that is gone there may be anything. */
static bool read_argv(struct argv *a, const struct reply_record *rec)
{
	return rec->argv_status == ARGV_KEPT && !rec->argv_cut && !argv_decode(a, rec + 1, rec->argv_len, false);
}

static bool learn(struct client_identity *id, const struct reply_record *rec)
{
	struct argv a;

	if (!read_argv(&a, rec))
		return false;
	for (size_t i = 0; i < sizeof(rules) / sizeof(rules[0]); i++)
		if (argv_arg_reads(&a.arg[0], rules[i].command))
			return rules[i].learn(id, &a);
	return true;
}

/* False when nothing is known any more. */
static bool survives(const struct client_identities *all, struct client_identity *id, const struct reply_record *rec)
{
	struct argv a;

	switch (rec->event) {
	case EVENT_IDENTITY:
		return learn(id, rec);
	case EVENT_IDENTITY_FAILED:
		return !all->hello_in_parts || (read_argv(&a, rec) && hello_changed_nothing(&a));
	default:
		return false;
	}
}

static bool is_of_identity(const struct reply_record *rec)
{
	return rec->event == EVENT_IDENTITY || rec->event == EVENT_IDENTITY_FAILED || rec->event == EVENT_IDENTITY_LOST;
}

int client_identities_learn(struct client_identities *all, const struct reply_record *rec, size_t size)
{
	struct client_identity *id;

	if (size < sizeof(*rec) || rec->argv_len > size - sizeof(*rec) || rec->connection >= all->connections ||
	    !is_of_identity(rec))
		return -EBADMSG;
	id = &all->of[rec->connection];
	if (id->generation != rec->generation)
		*id = (struct client_identity){ .generation = rec->generation, .resp = 2 };
	if (id->lost)
		return 0;
	if (!survives(all, id, rec))
		*id = (struct client_identity){ .generation = rec->generation, .lost = true };
	return 0;
}

const struct client_identity *client_identities_find(const struct client_identities *all, const struct reply_record *rec)
{
	static const struct client_identity nothing_said = { .resp = 2 };
	const struct client_identity *id;

	if (!rec->from_start || rec->connection >= all->connections)
		return NULL;
	id = &all->of[rec->connection];
	if (id->generation != rec->generation)
		return &nothing_said;
	return id->lost ? NULL : id;
}

void client_identity_from_dispatch(const struct reply_record *rec, struct client_identity *out)
{
	struct identity_word *const words[CLIENT_WORDS] = {
		[WORD_USER] = &out->user,
		[WORD_NAME] = &out->client_name,
		[WORD_LIB_NAME] = &out->lib_name,
		[WORD_LIB_VER] = &out->lib_ver,
	};
	const char *bytes = (const char *)(rec + 1) + rec->argv_len;

	out->resp = rec->resp;
	for (int i = 0; i < CLIENT_WORDS; i++) {
		set(words[i], bytes, rec->word[i]);
		bytes += rec->word[i];
	}
}
