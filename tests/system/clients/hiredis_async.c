/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * hiredis' asynchronous client on libevent: hiredis_async PORT ROUNDS
 *
 * Sends all commands at once, without waiting. Prints its address, then for each command its words and how many bytes the
 * reply took on the wire, worked out from what hiredis made of it.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <hiredis/adapters/libevent.h>
#include <hiredis/async.h>
#include <hiredis/hiredis.h>

static const char *const commands[] = {
	"GET s:100000", "PING",         "GET missing",   "LRANGE l:400 0 -1", "GET s:0",
	"INCR counter", "HGETALL h:50", "GET s:1000000", "LPUSH s:1 x",       "LRANGE missing 0 -1",
};

#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

static size_t header_size(long long n)
{
	return (size_t)snprintf(NULL, 0, "$%lld\r\n", n);
}

static size_t wire_size(const redisReply *reply)
{
	size_t size = 0, i;

	switch (reply->type) {
	case REDIS_REPLY_STRING:
		return header_size((long long)reply->len) + reply->len + 2;
	case REDIS_REPLY_INTEGER:
		return header_size(reply->integer);
	case REDIS_REPLY_NIL:
		return header_size(-1);
	case REDIS_REPLY_ARRAY:
		size = header_size((long long)reply->elements);
		for (i = 0; i < reply->elements; i++)
			size += wire_size(reply->element[i]);
		return size;
	default: /* a status or an error */
		return 1 + (size_t)reply->len + 2;
	}
}

static void on_reply(redisAsyncContext *context, void *reply, void *command)
{
	(void)context;
	if (!reply) {
		fprintf(stderr, "hiredis_async: the connection broke: %s\n", context->errstr);
		exit(1);
	}
	printf("%s\t%zu\n", (const char *)command, wire_size(reply));
}

static void print_address(int fd)
{
	struct sockaddr_in own;
	socklen_t len = sizeof(own);

	if (getsockname(fd, (struct sockaddr *)&own, &len))
		exit(1);
	printf("%s:%d\n", inet_ntoa(own.sin_addr), ntohs(own.sin_port));
}

static void on_connect(const redisAsyncContext *context, int status)
{
	if (status != REDIS_OK) {
		fprintf(stderr, "hiredis_async: %s\n", context->errstr);
		exit(1);
	}
	print_address(context->c.fd);
}

int main(int argc, char **argv)
{
	struct event_base *base = event_base_new();
	redisAsyncContext *context;
	size_t rounds, i;

	if (argc != 3)
		return 2;
	context = redisAsyncConnect("127.0.0.1", atoi(argv[1]));
	rounds = strtoul(argv[2], NULL, 10);
	if (!base || !context || context->err || redisLibeventAttach(context, base) != REDIS_OK)
		return 1;
	redisAsyncSetConnectCallback(context, on_connect);
	for (i = 0; i < rounds * COMMANDS; i++)
		redisAsyncCommand(context, on_reply, (void *)commands[i % COMMANDS], commands[i % COMMANDS]);
	redisAsyncDisconnect(context); /* when the last reply is there */
	event_base_dispatch(base);
	event_base_free(base);
	return 0;
}
