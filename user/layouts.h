/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef REPLYLOG_LAYOUTS_H
#define REPLYLOG_LAYOUTS_H

#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "../bpf/layout.h"

struct elf_image;

/*
 * The layout of a server's struct client: from debug information, its own or in a separate file of the same build id,
 * else from the table by name_version ("valkey 9.1.2", as identify_server() gives it) for x86-64. pid is the server's,
 * to find separate files in its root; 0: only in ours. Returns 0, or -ENOENT with out->valid LAYOUT_NONE and one line
 * in why.
 */
int layout_find(struct elf_image *img, const char *path, pid_t pid, const char *name_version,
		struct client_layout *out, char *why, size_t why_size);

/* The table's entry alone. */
int layout_from_table(const char *name_version, struct client_layout *out);

/* Fills in what follows from the rest, and checks that all lies within struct client. False: not to be used. */
bool layout_finish(struct client_layout *layout);

/*
 * From the debug information in the file at path, which is not trusted. Flags that debug information does not describe
 * (redis, valkey before 8.0) are known for the versions that name_version may say. 0, or a negative errno (-ENOENT: it
 * has none, or not what is needed) with one line in why.
 */
int layout_from_debug_info(const char *path, const char *name_version, struct client_layout *out, char *why,
			   size_t why_size);

#endif
