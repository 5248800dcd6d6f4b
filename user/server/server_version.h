/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef REPLYLOG_USER_SERVER_SERVER_VERSION_H
#define REPLYLOG_USER_SERVER_SERVER_VERSION_H

#include <stddef.h>

struct elf_image;

/*
 * Tells from the file alone, without running it, whether an executable is a Valkey or
 * Redis server, and writes "valkey 9.1.2" or, when the version cannot be read,
 * "valkey". 32 bytes hold any answer. Returns 0, or -ENOENT when it is neither (then
 * name_version is "").
 */
int identify_server(struct elf_image *img, char *name_version, size_t size);

#endif
