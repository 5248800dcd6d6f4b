/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "user/code/debuginfod.h"
#include "user/code/elf_image.h"
#include "user/code/layouts.h"

struct table_entry {
	const char *name_version;
	struct client_layout layout;
};

static const struct table_entry table[] = {
#include "user/code/layout_table.h"
};

int layout_from_table(const char *name_version, struct client_layout *out)
{
	size_t i;

	memset(out, 0, sizeof(*out));
	for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		if (strcmp(table[i].name_version, name_version))
			continue;
		*out = table[i].layout;
		return 0;
	}
	return -ENOENT;
}

__u32 layout_span(const struct client_layout *layout)
{
	const struct layout_field *const fields[] = {
		&layout->resp,     &layout->db,      &layout->user, &layout->name,
		&layout->lib_name, &layout->lib_ver, &layout->argc, &layout->argv,
	};
	__u32 span = 0;

	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
		/* A word is read of each. */
		__u32 end = fields[i]->offset + sizeof(__u64);

		if (end <= CLIENT_SPAN_MAX && end <= layout->client_size && end > span)
			span = end;
	}
	return span;
}

/*
 * Opens the regular file at path as a process with that root would: links in it lead nowhere else, and what is no file
 * (a device, a pipe) is not opened. -1 when there is none.
 */
static int open_in_root(const char *root, const char *path)
{
	struct open_how how = { .flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS };
	int root_fd = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC), found = -1, fd = -1;
	char reopen[32];
	struct stat st;

	if (root_fd >= 0)
		found = syscall(SYS_openat2, root_fd, path, &how, sizeof(how));
	if (found >= 0 && !fstat(found, &st) && S_ISREG(st.st_mode)) {
		snprintf(reopen, sizeof(reopen), "/proc/self/fd/%d", found);
		fd = open(reopen, O_RDONLY | O_CLOEXEC);
	}
	if (found >= 0)
		close(found);
	if (root_fd >= 0)
		close(root_fd);
	return fd;
}

/* Where distributions' debug packages put a file, by build id: the first two digits are a folder. */
static int from_separate_file(const char *root, const char *build_id, const char *name_version, struct client_layout *out)
{
	char path[sizeof("/usr/lib/debug/.build-id//.debug") + ELF_BUILD_ID_HEX];
	int fd, ret;

	snprintf(path, sizeof(path), "/usr/lib/debug/.build-id/%.2s/%s.debug", build_id, build_id + 2);
	fd = open_in_root(root, path);
	if (fd < 0)
		return -ENOENT;
	ret = layout_from_debug_info(fd, name_version, out);
	close(fd);
	return ret;
}

static int from_debug_info(const struct elf_image *img, int exe_fd, pid_t pid, const char *name_version,
			   struct client_layout *out)
{
	char root[32], build_id[ELF_BUILD_ID_HEX];

	if (!layout_from_debug_info(exe_fd, name_version, out))
		return 0;
	if (elf_image_build_id(img, build_id) || strlen(build_id) < 3)
		return -ENOENT;
	snprintf(root, sizeof(root), "/proc/%d/root", pid);
	if (pid && !from_separate_file(root, build_id, name_version, out))
		return 0;
	return from_separate_file("/", build_id, name_version, out);
}

/* Both were compiled and compared: bit fields and alignment included, the layouts are the same. */
static bool table_applies(const struct elf_image *img)
{
	return elf_image_machine(img) == EM_X86_64 || elf_image_machine(img) == EM_AARCH64;
}

/* Last, because it takes the network's time. */
static int from_debuginfod(const struct elf_image *img, const char *name_version, struct client_layout *out)
{
	char build_id[ELF_BUILD_ID_HEX];
	int fd, ret;

	if (elf_image_build_id(img, build_id))
		return -ENOENT;
	fd = debuginfod_open(build_id);
	if (fd < 0)
		return fd;
	ret = layout_from_debug_info(fd, name_version, out);
	close(fd);
	return ret;
}

int layout_find(const struct elf_image *img, int exe_fd, pid_t pid, const char *name_version, struct client_layout *out,
		char *why, size_t why_size)
{
	const char *asked = "";
	int err;

	if (!from_debug_info(img, exe_fd, pid, name_version, out))
		return 0;
	if (table_applies(img) && !layout_from_table(name_version, out))
		return 0;
	err = from_debuginfod(img, name_version, out);
	if (!err)
		return 0;
	if (err == -ENOSYS)
		asked = " (DEBUGINFOD_URLS is set, but libdebuginfod1 is not installed)";
	else if (err != -ENOENT)
		asked = " (debuginfod failed)";
	snprintf(why, why_size,
		 "no debug information describes struct client, and replylog's table of layouts does not have %s%s%s",
		 name_version, table_applies(img) ? "" : " for this machine", asked);
	return -ENOENT;
}
