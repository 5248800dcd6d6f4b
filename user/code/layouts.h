/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef REPLYLOG_USER_CODE_LAYOUTS_H
#define REPLYLOG_USER_CODE_LAYOUTS_H

#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "bpf/abi/layout.h"

struct elf_image;

/*
 * The layout of struct client in the server whose executable is img, open at exe_fd: from its debug information, inside
 * or in a separate file of the same build id under /usr/lib/debug in the server's root or ours; else from the table by
 * name_version ("valkey 9.1.2", as identify_server() gives it); else from debuginfod, if that is configured: see
 * debuginfod.h for how long that may take. pid is the server's; 0: only our root.
 * Returns 0, or -ENOENT with all of *out 0 and one line in why.
 */
int layout_find(const struct elf_image *img, int exe_fd, pid_t pid, const char *name_version, struct client_layout *out,
		char *why, size_t why_size);

/* The table's entry alone. 0 or -ENOENT. */
int layout_from_table(const char *name_version, struct client_layout *out);

/*
 * From the debug information in a file, which is not trusted. Flags that debug information does not describe (redis,
 * valkey 7.2) are known for the versions that name_version may say. 0, or -ENOENT: not there, not all there, or odd.
 */
int layout_from_debug_info(int fd, const char *name_version, struct client_layout *out);

/*
 * How much of a struct client's beginning holds the fields that --argv-from dispatch reads, but for those that lie
 * behind CLIENT_SPAN_MAX.
 */
__u32 layout_span(const struct client_layout *layout);

/* Fills in what follows from the rest, and checks that all of it lies within struct client. False: not to be used. */
bool layout_finish(struct client_layout *layout);

#endif
