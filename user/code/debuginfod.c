/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * libdebuginfod is loaded when it is asked for and not linked: it brings libcurl and much else, and most machines that
 * replylog runs on have neither a use for it nor the library.
 */
#include "user/code/debuginfod.h"

#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>

/* elfutils since 0.178, debuginfod/debuginfod.h; the interface that this soname stands for. */
#define LIBRARY "libdebuginfod.so.1"

struct debuginfod_client;

struct library {
	void *handle;
	struct debuginfod_client *(*begin)(void);
	int (*find)(struct debuginfod_client *client, const unsigned char *build_id, int len, char **path);
	void (*end)(struct debuginfod_client *client);
};

static int library_load(struct library *lib)
{
	lib->handle = dlopen(LIBRARY, RTLD_LAZY | RTLD_LOCAL);
	if (!lib->handle)
		return -ENOSYS;
	lib->begin = dlsym(lib->handle, "debuginfod_begin");
	lib->find = dlsym(lib->handle, "debuginfod_find_debuginfo");
	lib->end = dlsym(lib->handle, "debuginfod_end");
	return lib->begin && lib->find && lib->end ? 0 : -ENOSYS;
}

/* What the user has set stays. */
static int bound_time(void)
{
	return setenv("DEBUGINFOD_MAXTIME", DEBUGINFOD_MAXTIME_S, 0) || setenv("DEBUGINFOD_TIMEOUT", DEBUGINFOD_TIMEOUT_S, 0)
		       ? -errno
		       : 0;
}

static int find(const struct library *lib, const char *build_id)
{
	struct debuginfod_client *client = lib->begin();
	int fd;

	if (!client)
		return -ENOMEM;
	/* Length 0: in hexadecimal. */
	fd = lib->find(client, (const unsigned char *)build_id, 0, NULL);
	lib->end(client);
	return fd;
}

int debuginfod_open(const char *build_id)
{
	const char *urls = getenv("DEBUGINFOD_URLS");
	struct library lib;
	int ret;

	if (!urls || !*urls)
		return -ENOENT;
	ret = bound_time();
	if (ret)
		return ret;
	ret = library_load(&lib);
	if (!ret)
		ret = find(&lib, build_id);
	/* libcurl and what it loads don't like to be unloaded: the handle is kept until the process ends. */
	return ret;
}
