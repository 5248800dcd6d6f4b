/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef REPLYLOG_USER_KERNEL_UPROBE_LINK_H
#define REPLYLOG_USER_KERNEL_UPROBE_LINK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define UPROBE_LOCATIONS_MAX 4

/* Places of one file, all with the same program. */
struct uprobe_locations {
	uint64_t offset[UPROBE_LOCATIONS_MAX]; /* bytes into the file */
	uint64_t cookie[UPROBE_LOCATIONS_MAX]; /* what bpf_get_attach_cookie() says there */
	uint32_t count;
};

/*
 * Attaches a loaded program to locations of a file with a uprobe_multi link. Made by hand, because Debian 12's libbpf
 * (1.1) does not know the link type while the kernel it runs on may.
 *
 * attach_type: the program's own (ATTACH_TYPE_MULTI or _SESSION). at_return: return probes. pid: whose address space, 0
 * for all. Returns the link's fd, owned by the caller, or -errno.
 */
int uprobe_link_locations(int program_fd, int attach_type, const char *path, const struct uprobe_locations *locations,
			  bool at_return, pid_t pid);

/* The same for one location without a cookie. */
int uprobe_link_create(int program_fd, int attach_type, const char *path, uint64_t offset, bool at_return, pid_t pid);

#endif
