/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "elf_image.h"
#include "layouts.h"

struct table_entry {
	const char *name_version;
	struct client_layout layout;
};

static const struct table_entry table[] = {
#include "layout_table.h"
};

/* Where the debug packages of distributions put a file, by build id: the first byte's two digits are a folder. */
#define DEBUG_FILE "%s/usr/lib/debug/.build-id/%.2s/%s.debug"

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

/* The server's root comes first: that is where its packages are installed. */
static int from_separate_file(const char *root, const char *build_id, const char *name_version,
			      struct client_layout *out, char *why, size_t why_size)
{
	char path[sizeof("/proc/4294967295/root") + sizeof(DEBUG_FILE) + ELF_BUILD_ID_HEX];

	snprintf(path, sizeof(path), DEBUG_FILE, root, build_id, build_id + 2);
	return layout_from_debug_info(path, name_version, out, why, why_size);
}

static int from_debug_info(struct elf_image *img, const char *path, pid_t pid, const char *name_version,
			   struct client_layout *out, char *why, size_t why_size)
{
	char root[sizeof("/proc/4294967295/root")], build_id[ELF_BUILD_ID_HEX];

	if (!layout_from_debug_info(path, name_version, out, why, why_size))
		return 0;
	if (elf_image_build_id(img, build_id) || strlen(build_id) <= 2)
		return -ENOENT;
	snprintf(root, sizeof(root), "/proc/%d/root", pid);
	if (pid && !from_separate_file(root, build_id, name_version, out, why, why_size))
		return 0;
	return from_separate_file("", build_id, name_version, out, why, why_size);
}

int layout_find(struct elf_image *img, const char *path, pid_t pid, const char *name_version,
		struct client_layout *out, char *why, size_t why_size)
{
	if (!from_debug_info(img, path, pid, name_version, out, why, why_size))
		return 0;
	if (elf_image_machine(img) == EM_X86_64 && !layout_from_table(name_version, out))
		return 0;
	snprintf(why, why_size, "no debug information (%s), and %s is not in the table of layouts",
		 path, *name_version ? name_version : "a server of unknown version");
	return -ENOENT;
}
