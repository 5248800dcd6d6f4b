/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/server/tls_module.h"

#include "user/server/server_version.h"
#include "user/code/sites.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* A line of /proc/<pid>/maps. */
struct mapping {
	uint64_t start, end, offset;
	bool executable;
	dev_t device;
	ino_t inode;
	const char *name; /* of a file: the path; it lies in the line */
};

static bool parse_mapping(char *line, struct mapping *out)
{
	unsigned int major, minor;
	unsigned long inode;
	char perms[5];
	int name = 0;

	if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %" SCNx64 " %x:%x %lu %n", &out->start, &out->end, perms, &out->offset,
		   &major, &minor, &inode, &name) < 7 ||
	    !name)
		return false;
	line[strcspn(line, "\n")] = '\0';
	out->executable = perms[2] == 'x';
	out->device = makedev(major, minor);
	out->inode = inode;
	out->name = line + name;
	return true;
}

/*
 * map_files opens what is mapped, also when it was deleted or replaced, but wants CAP_SYS_ADMIN or
 * CAP_CHECKPOINT_RESTORE. Without those, what has the name now will do if it is still the same file.
 */
static int open_mapping(pid_t pid, const struct mapping *mapping)
{
	char link[PATH_MAX + 32];
	struct stat st;
	int fd;

	snprintf(link, sizeof(link), "/proc/%d/map_files/%" PRIx64 "-%" PRIx64, pid, mapping->start, mapping->end);
	fd = open(link, O_RDONLY | O_CLOEXEC);
	if (fd >= 0 || errno != EPERM)
		return fd < 0 ? -errno : fd;
	snprintf(link, sizeof(link), "/proc/%d/root%s", pid, mapping->name);
	fd = open(link, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	if (!fstat(fd, &st) && st.st_ino == mapping->inode && st.st_dev == mapping->device)
		return fd;
	close(fd);
	return -EPERM;
}

static bool is_tls_module(struct elf_image *image)
{
	struct elf_symbol sym;

	return sites_has_tls(image) && (!elf_image_symbol(image, "ValkeyModule_OnLoad", STT_FUNC, &sym) ||
					!elf_image_symbol(image, "RedisModule_OnLoad", STT_FUNC, &sym));
}

static bool is_server(struct elf_image *image)
{
	char version[32];

	return !identify_server(image, version, sizeof(version));
}

/* 1: it is what is wanted; 0: it is not, or no ELF file at all; -errno. */
static int try_mapping(pid_t pid, const struct mapping *mapping, bool (*wanted)(struct elf_image *image),
		       struct module *module, struct elf_image **image)
{
	char path[32], why[256];

	module->fd = open_mapping(pid, mapping);
	if (module->fd < 0)
		return module->fd;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", module->fd);
	if (!elf_image_open(path, image, why, sizeof(why)) && wanted(*image)) {
		snprintf(module->name, sizeof(module->name), "%s", mapping->name);
		module->start = mapping->start;
		module->end = mapping->end;
		module->offset = mapping->offset;
		return 1;
	}
	elf_image_close(*image);
	*image = NULL;
	close(module->fd);
	module->fd = -1;
	return 0;
}

/* Returns as module_find_tls(). */
static int find_mapped(pid_t pid, bool (*wanted)(struct elf_image *image), struct module *module, struct elf_image **image,
		       char *why, size_t why_size)
{
	struct mapping mapping;
	char path[32], *line = NULL;
	size_t size = 0;
	int ret = 0, err;
	FILE *maps;

	*image = NULL;
	module->fd = -1;
	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	maps = fopen(path, "re");
	if (!maps) {
		snprintf(why, why_size, "%s: %s", path, strerror(errno));
		return -errno;
	}
	while (ret != 1 && getline(&line, &size, maps) > 0) {
		if (!parse_mapping(line, &mapping) || !mapping.executable || mapping.name[0] != '/')
			continue;
		err = try_mapping(pid, &mapping, wanted, module, image);
		if (err < 0)
			snprintf(why, why_size, "cannot read %s: %s: run as root", mapping.name, strerror(-err));
		if (err)
			ret = err;
	}
	free(line);
	fclose(maps);
	return ret;
}

int module_find_tls(pid_t pid, struct module *module, struct elf_image **image, char *why, size_t why_size)
{
	return find_mapped(pid, is_tls_module, module, image, why, why_size);
}

bool module_find_server(pid_t pid, char name[PATH_MAX])
{
	struct elf_image *image;
	struct module module;
	char why[PATH_MAX + 256];

	if (find_mapped(pid, is_server, &module, &image, why, sizeof(why)) != 1)
		return false;
	memcpy(name, module.name, PATH_MAX);
	elf_image_close(image);
	close(module.fd);
	return true;
}

uint64_t module_address(const struct module *module, uint64_t file_offset)
{
	uint64_t into = file_offset - module->offset;

	return file_offset >= module->offset && into < module->end - module->start ? module->start + into : 0;
}
