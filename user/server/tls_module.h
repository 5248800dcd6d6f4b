/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Files that a server has mapped code from: the module that its TLS came in, where it is not built in. */
#ifndef REPLYLOG_USER_SERVER_TLS_MODULE_H
#define REPLYLOG_USER_SERVER_TLS_MODULE_H

#include "user/code/elf_image.h"

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* A file that the process has mapped code from. */
struct module {
	int fd;              /* of the very file that is mapped, whatever has its name by now; -1: not open */
	char name[PATH_MAX]; /* as the process's own mount namespace names it */
	uint64_t start, end; /* its code in the process's memory ... */
	uint64_t offset;     /* ... and where that begins in the file */
};

/*
 * Looks through the process's memory for a module (it exports ValkeyModule_OnLoad or RedisModule_OnLoad, which is how
 * the server calls it) that uses TLS. Returns 1 with *module and *image for the caller to close; 0 when there is none;
 * -errno with one line in why when a file that could be it can't be read.
 */
int module_find_tls(pid_t pid, struct module *module, struct elf_image **image, char *why, size_t why_size);

/*
 * Whether a server is mapped in a process that was not started as one, and what it is called there: by the dynamic loader,
 * run as a program with the server's name as an argument.
 */
bool module_find_server(pid_t pid, char name[PATH_MAX]);

/* Where a byte of the file is in the process's memory; 0 when it is not in this mapping. */
uint64_t module_address(const struct module *module, uint64_t file_offset);

#endif
