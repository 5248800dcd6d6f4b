/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A module for servers, loaded by test_unruly.py, whose commands do what servers' own commands never do:
 *
 *   unruly.plain SIZE                 answers once, with SIZE bytes: the only one that behaves
 *   unruly.never                      does not answer
 *   unruly.twice SIZE SIZE            answers twice
 *   unruly.thrice SIZE SIZE SIZE      answers three times
 *   unruly.short COUNT SIZE           announces COUNT elements and gives one less, each of SIZE bytes
 *   unruly.select NUMBER              selects a database for the client
 *   unruly.setname NAME               names the client, where the server has RM_SetClientNameById (redis 6.2 on)
 *   unruly.auth USER                  makes the client another user
 *
 * Loaded with the argument "auth" it also handles AUTH: each is blocked, served a moment later, and left to the server (from
 * redis 7.2 and valkey 7.2 on).
 *
 * No server's header is needed: its functions are asked for by name, as that header does it (RedisModule_Init() in
 * redismodule.h). Valkey knows them by the same names (moduleRegisterApi() in its module.c).
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define OK 0
#define ERR 1
#define API_VERSION 1
#define AUTH_HANDLED 0
#define AUTH_NOT_HANDLED 1
#define SIZE_MAX_BYTES (4 << 20)

struct ctx;
struct string;
struct blocked;

typedef int command_fn(struct ctx *ctx, struct string **argv, int argc);
typedef int auth_fn(struct ctx *ctx, struct string *user, struct string *password, struct string **error);

static int (*get_api)(const char *name, void *function);
static void (*set_attribs)(struct ctx *ctx, const char *name, int version, int api_version);
static int (*create_command)(struct ctx *ctx, const char *name, command_fn *function, const char *flags, int first, int last,
			     int step);
static int (*reply_with_string)(struct ctx *ctx, const char *bytes, size_t len);
static int (*reply_with_status)(struct ctx *ctx, const char *text);
static int (*reply_with_error)(struct ctx *ctx, const char *text);
static int (*reply_with_array)(struct ctx *ctx, long len);
static int (*string_to_number)(const struct string *string, long long *number);
static const char *(*string_bytes)(const struct string *string, size_t *len);
static int (*select_db)(struct ctx *ctx, int number);
static unsigned long long (*client_id)(struct ctx *ctx);
static int (*set_client_name)(uint64_t id, struct string *name);
static int (*authenticate)(struct ctx *ctx, const char *user, size_t len, void *callback, void *data, uint64_t *id);
static void (*register_auth)(struct ctx *ctx, auth_fn *function);
static struct blocked *(*block_on_auth)(struct ctx *ctx, auth_fn *reply, void (*free_data)(struct ctx *ctx, void *data));
static int (*unblock)(struct blocked *blocked, void *data);

static const struct {
	const char *name;
	void *function;
} functions[] = {
	{ "RedisModule_SetModuleAttribs", &set_attribs },
	{ "RedisModule_CreateCommand", &create_command },
	{ "RedisModule_ReplyWithStringBuffer", &reply_with_string },
	{ "RedisModule_ReplyWithSimpleString", &reply_with_status },
	{ "RedisModule_ReplyWithError", &reply_with_error },
	{ "RedisModule_ReplyWithArray", &reply_with_array },
	{ "RedisModule_StringToLongLong", &string_to_number },
	{ "RedisModule_StringPtrLen", &string_bytes },
	{ "RedisModule_SelectDb", &select_db },
	{ "RedisModule_GetClientId", &client_id },
	{ "RedisModule_AuthenticateClientWithACLUser", &authenticate },
	{ "RedisModule_UnblockClient", &unblock },
	{ "RedisModule_SetClientNameById", &set_client_name },
	{ "RedisModule_RegisterAuthCallback", &register_auth },
	{ "RedisModule_BlockClientOnAuth", &block_on_auth },
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* A string that names its own size, as payload() of truth.py. */
static void reply_with_size(struct ctx *ctx, struct string *text)
{
	static char bytes[SIZE_MAX_BYTES];
	char head[32];
	long long size;
	int digits;

	if (string_to_number(text, &size) != OK || size < 0 || size > SIZE_MAX_BYTES) {
		reply_with_error(ctx, "ERR no size");
		return;
	}
	memset(bytes, 'x', size);
	digits = snprintf(head, sizeof(head), "%lld:", size);
	memcpy(bytes, head, digits < size ? digits : size);
	reply_with_string(ctx, bytes, size);
}

/* One answer for each argument. */
static int answer_each(struct ctx *ctx, struct string **argv, int argc)
{
	int i;

	for (i = 1; i < argc; i++)
		reply_with_size(ctx, argv[i]);
	return OK;
}

static int announce_more(struct ctx *ctx, struct string **argv, int argc)
{
	long long count;

	if (argc != 3 || string_to_number(argv[1], &count) != OK)
		return reply_with_error(ctx, "ERR no count");
	reply_with_array(ctx, count);
	while (--count > 0)
		reply_with_size(ctx, argv[2]);
	return OK;
}

static int select_database(struct ctx *ctx, struct string **argv, int argc)
{
	long long number;

	if (argc != 2 || string_to_number(argv[1], &number) != OK || select_db(ctx, number) != OK)
		return reply_with_error(ctx, "ERR no database");
	return reply_with_status(ctx, "OK");
}

static int set_name(struct ctx *ctx, struct string **argv, int argc)
{
	if (argc != 2 || set_client_name(client_id(ctx), argv[1]) != OK)
		return reply_with_error(ctx, "ERR no name");
	return reply_with_status(ctx, "OK");
}

static int become(struct ctx *ctx, struct string **argv, int argc)
{
	const char *user;
	size_t len;

	if (argc != 2)
		return reply_with_error(ctx, "ERR no user");
	user = string_bytes(argv[1], &len);
	if (authenticate(ctx, user, len, NULL, NULL, NULL) != OK)
		return reply_with_error(ctx, "ERR no such user");
	return reply_with_status(ctx, "OK");
}

static int leave_to_the_server(struct ctx *ctx, struct string *user, struct string *password, struct string **error)
{
	return AUTH_NOT_HANDLED;
}

static int block_auth(struct ctx *ctx, struct string *user, struct string *password, struct string **error)
{
	struct blocked *blocked = block_on_auth(ctx, leave_to_the_server, NULL);

	unblock(blocked, NULL);
	return AUTH_HANDLED;
}

static int create_commands(struct ctx *ctx)
{
	static const struct {
		const char *name;
		command_fn *function;
	} commands[] = {
		{ "unruly.plain", answer_each },  { "unruly.never", answer_each },   { "unruly.twice", answer_each },
		{ "unruly.thrice", answer_each }, { "unruly.short", announce_more }, { "unruly.select", select_database },
		{ "unruly.auth", become },
	};
	size_t i;

	for (i = 0; i < COUNT(commands); i++)
		if (create_command(ctx, commands[i].name, commands[i].function, "readonly", 0, 0, 0) != OK)
			return ERR;
	return set_client_name ? create_command(ctx, "unruly.setname", set_name, "readonly", 0, 0, 0) : OK;
}

static int handles_auth(struct string **argv, int argc)
{
	size_t len;

	return argc > 0 && !strncmp(string_bytes(argv[0], &len), "auth", len);
}

__attribute__((visibility("default"))) int RedisModule_OnLoad(struct ctx *ctx, struct string **argv, int argc)
{
	size_t i;

	get_api = *(void **)ctx;
	for (i = 0; i < COUNT(functions); i++)
		/* A function that the server lacks stays NULL. Older servers lack the last three. */
		get_api(functions[i].name, functions[i].function);
	set_attribs(ctx, "unruly", 1, API_VERSION);
	if (handles_auth(argv, argc)) {
		if (!register_auth || !block_on_auth)
			return ERR;
		register_auth(ctx, block_auth);
	}
	return create_commands(ctx);
}
