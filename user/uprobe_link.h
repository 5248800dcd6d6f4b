/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef REPLYLOG_UPROBE_LINK_H
#define REPLYLOG_UPROBE_LINK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/*
 * Attaches a loaded program to one place of a file with a uprobe_multi link. Made by hand, because Debian 12's libbpf
 * (1.1) does not know the link type while the kernel it runs on may.
 *
 * attach_type: the program's own (ATTACH_TYPE_MULTI or _SESSION). offset: bytes into the file. at_return: a return
 * probe. pid: whose address space, 0 for all. Returns the link's fd, owned by the caller, or -errno.
 */
int uprobe_link_create(int program_fd, int attach_type, const char *path, uint64_t offset, bool at_return, pid_t pid);

#endif
