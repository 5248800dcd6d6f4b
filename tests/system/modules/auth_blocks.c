/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A server's module that has every AUTH, and HELLO with AUTH, wait twice for a thread before the server itself looks at
 * the password: the server executes such a command three times. Of the modules' interface (src/redismodule.h in
 * redis 7.2 to 8.6 and valkey 8.0 to 9.1) it declares what it uses.
 */
#include <pthread.h>
#include <unistd.h>

#define MODULE_OK 0
#define MODULE_ERR 1
#define AUTH_HANDLED 0
#define AUTH_NOT_HANDLED 1
#define API_VERSION 1

struct context;
struct string;
struct blocked;

typedef int auth_callback(struct context *, struct string *user, struct string *password, struct string **error);

static int (*get_api)(const char *name, void *function);
static int (*set_attributes)(struct context *, const char *name, int version, int api_version);
static void (*register_auth)(struct context *, auth_callback *);
static struct blocked *(*block_on_auth)(struct context *, auth_callback *reply, void (*free)(struct context *, void *));
static int (*unblock)(struct blocked *, void *data);

static void *let_go(void *blocked)
{
	usleep(20000);
	unblock(blocked, NULL);
	return NULL;
}

/* The thread does not answer, so the next handler may. */
static int go_on(struct context *ctx, struct string *user, struct string *password, struct string **error)
{
	return AUTH_NOT_HANDLED;
}

static int wait_for_thread(struct context *ctx, struct string *user, struct string *password, struct string **error)
{
	struct blocked *blocked = block_on_auth(ctx, go_on, NULL);
	pthread_t thread;

	if (!blocked || pthread_create(&thread, NULL, let_go, blocked))
		return AUTH_NOT_HANDLED;
	pthread_detach(thread);
	return AUTH_HANDLED;
}

int RedisModule_OnLoad(struct context *ctx, struct string **argv, int argc);

int RedisModule_OnLoad(struct context *ctx, struct string **argv, int argc)
{
	get_api = (int (*)(const char *, void *))((void **)ctx)[0];
	if (get_api("RedisModule_SetModuleAttribs", &set_attributes) ||
	    get_api("RedisModule_RegisterAuthCallback", &register_auth) ||
	    get_api("RedisModule_BlockClientOnAuth", &block_on_auth) || get_api("RedisModule_UnblockClient", &unblock))
		return MODULE_ERR;
	set_attributes(ctx, "auth_blocks", 1, API_VERSION);
	register_auth(ctx, wait_for_thread);
	register_auth(ctx, wait_for_thread);
	return MODULE_OK;
}
