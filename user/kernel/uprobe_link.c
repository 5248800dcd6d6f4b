/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/kernel/uprobe_link.h"

#include <errno.h>
#include <linux/bpf.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* BPF_F_UPROBE_MULTI_RETURN of include/uapi/linux/bpf.h (Linux 6.6) */
#define UPROBE_MULTI_RETURN 1U

/* The link_create part of union bpf_attr for uprobe_multi, as of Linux 6.6. The kernel wants the rest to be zero. */
struct uprobe_multi_attr {
	uint32_t prog_fd;
	uint32_t target_fd;
	uint32_t attach_type;
	uint32_t link_flags;
	uint64_t path;
	uint64_t offsets;
	uint64_t ref_ctr_offsets;
	uint64_t cookies;
	uint32_t count;
	uint32_t flags;
	uint32_t pid;
	uint32_t pad;
};

_Static_assert(sizeof(struct uprobe_multi_attr) == 64, "layout of union bpf_attr, link_create.uprobe_multi");

int uprobe_link_locations(int program_fd, int attach_type, const char *path, const struct uprobe_locations *locations,
			  bool at_return, pid_t pid)
{
	struct uprobe_multi_attr attr;
	long fd;

	memset(&attr, 0, sizeof(attr));
	attr.prog_fd = program_fd;
	attr.attach_type = attach_type;
	attr.path = (uintptr_t)path;
	attr.offsets = (uintptr_t)locations->offset;
	attr.cookies = (uintptr_t)locations->cookie;
	attr.count = locations->count;
	attr.flags = at_return ? UPROBE_MULTI_RETURN : 0;
	attr.pid = pid;
	fd = syscall(SYS_bpf, BPF_LINK_CREATE, &attr, sizeof(attr));
	return fd < 0 ? -errno : (int)fd;
}

int uprobe_link_create(int program_fd, int attach_type, const char *path, uint64_t offset, bool at_return, pid_t pid)
{
	const struct uprobe_locations location = { .offset = { offset }, .count = 1 };

	return uprobe_link_locations(program_fd, attach_type, path, &location, at_return, pid);
}
