/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/server/target.h"

#include "user/complain.h"
#include "user/server/server_version.h"
#include "user/server/tls_module.h"
#include "user/server/proc.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int no_process(pid_t pid, int err)
{
	if (err == ESRCH || err == ENOENT)
		return complain("-p %d: no such process", pid);
	if (err == ENOSYS)
		return complain("this kernel has no pidfd_open (it needs Linux 5.3 or later)");
	return complain("-p %d: %s", pid, strerror(err));
}

/* pidfd_open says EINVAL for the tid of a thread that leads no process. */
static int open_process(struct target *target)
{
	long tgid;
	int err;

	target->pidfd = syscall(SYS_pidfd_open, target->pid, 0);
	if (target->pidfd < 0 && errno != EINVAL)
		return no_process(target->pid, errno);
	err = proc_status_number(target->pid, "Tgid", &tgid);
	if (err)
		return no_process(target->pid, -err);
	if (tgid != target->pid)
		return complain("-p %d: this is a thread, not a process: use -p %ld", target->pid, tgid);
	if (target->pidfd < 0)
		return complain("-p %d: pidfd_open: %s", target->pid, strerror(EINVAL));
	return 0;
}

static void hold_file(struct target_file *file, int fd, const char *name)
{
	file->fd = fd;
	snprintf(file->path, sizeof(file->path), "/proc/self/fd/%d", fd);
	snprintf(file->name, sizeof(file->name), "%s", name);
}

/* How many words, 0 when there are none: a kernel thread, or it has ended. */
static size_t read_auxv(pid_t pid, Elf64_auxv_t auxv[TARGET_AUXV])
{
	char path[32];
	FILE *file;
	size_t n;

	snprintf(path, sizeof(path), "/proc/%d/auxv", pid);
	file = fopen(path, "re");
	if (!file)
		return 0;
	n = fread(auxv, sizeof(auxv[0]), TARGET_AUXV, file);
	fclose(file);
	return n;
}

static int open_executable(struct target *target)
{
	char link[32], name[PATH_MAX];
	ssize_t len;
	int fd;

	snprintf(link, sizeof(link), "/proc/%d/exe", target->pid);
	len = readlink(link, name, sizeof(name) - 1);
	if (len < 0 && errno == ENOENT)
		return complain("-p %d: this is a kernel thread or a zombie, not a server", target->pid);
	fd = len < 0 ? -1 : open(link, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return complain("%s: %s%s", link, strerror(errno),
				errno == EACCES || errno == EPERM
					? ": replylog needs CAP_SYS_PTRACE for another user's process: run as root"
					: "");
	name[len] = '\0';
	hold_file(&target->file[FILE_EXECUTABLE], fd, name);
	return 0;
}

/*
 * How far the executable was moved when it was loaded: its entry point in the process's memory (AT_ENTRY in auxv) less
 * that in the file. Instead of /proc/<pid>/maps, whose inodes are not those of stat() on overlayfs.
 */
static int load_bias(const struct target *target, const struct elf_image *image, uint64_t *bias)
{
	const Elf64_Ehdr *header = (const Elf64_Ehdr *)elf_image_bytes(image, 0, sizeof(*header));
	size_t i;

	for (i = 0; i < target->n_auxv && target->auxv[i].a_type != AT_ENTRY; i++)
		;
	if (!header || i == target->n_auxv)
		return complain("/proc/%d/auxv has no AT_ENTRY: the server may have just ended: try again", target->pid);
	*bias = target->auxv[i].a_un.a_val - header->e_entry;
	return 0;
}

static int locate_probes(struct target_layer *layer, const struct target_file *file, const struct elf_image *image,
			 uint64_t bias)
{
	uint64_t vaddr;
	int kind;

	for (kind = 0; kind < SITE_KINDS; kind++) {
		const struct site *site = &layer->sites.site[kind];

		if (!site->present)
			continue;
		if (elf_image_vaddr(image, site->probe_offset, &vaddr))
			return complain("%s: the code at file offset 0x%" PRIx64 " is not loaded", file->name,
					site->probe_offset);
		layer->probe_address[kind] = bias + vaddr;
	}
	return 0;
}

/* Without them the server's other connections are still followed: said, and gone on. */
static int no_tls(struct target *target, const char *why)
{
	memset(&target->layer[CONN_TLS], 0, sizeof(target->layer[CONN_TLS]));
	complain("-p %d: replylog will not see this server's TLS connections, if it has any: %s", target->pid, why);
	return 0;
}

static int find_built_in_tls(struct target *target, struct elf_image *image, uint64_t bias)
{
	struct target_layer *tls = &target->layer[CONN_TLS];
	char why[512];

	if (sites_find(image, CONN_TLS, &tls->sites, why, sizeof(why)))
		return no_tls(target, why);
	return locate_probes(tls, &target->file[FILE_EXECUTABLE], image, bias);
}

/* A module is loaded when the server starts and never later (valkey 9.1.2 src/tls.c, ValkeyModule_OnLoad). */
static int find_tls_module(struct target *target)
{
	struct target_layer *tls = &target->layer[CONN_TLS];
	struct target_file *file = &target->file[FILE_TLS_MODULE];
	struct elf_image *image;
	struct module module;
	char why[PATH_MAX + 256];
	int ret;

	ret = module_find_tls(target->pid, &module, &image, why, sizeof(why));
	if (ret <= 0)
		return ret ? no_tls(target, why) : 0;
	hold_file(file, module.fd, module.name);
	tls->file = FILE_TLS_MODULE;
	ret = 0;
	if (sites_find(image, CONN_TLS, &tls->sites, why, sizeof(why)))
		ret = no_tls(target, why);
	for (int kind = 0; kind < SITE_KINDS; kind++)
		if (tls->sites.site[kind].present)
			tls->probe_address[kind] = module_address(&module, tls->sites.site[kind].probe_offset);
	elf_image_close(image);
	return ret;
}

/* Only --dispatch needs it. */
static void find_dispatch(struct target *target, struct elf_image *image, uint64_t bias)
{
	uint64_t vaddr;

	dispatch_sites_find(image, &target->dispatch, target->no_dispatch, sizeof(target->no_dispatch));
	for (int i = 0; i < DISPATCH_SITES; i++)
		if (target->dispatch.site[i].present &&
		    !elf_image_vaddr(image, target->dispatch.site[i].probe_offset, &vaddr))
			target->dispatch_address[i] = bias + vaddr;
}

/* What reads the links of the cluster bus, in all versions (src/cluster.c, later src/cluster_legacy.c). */
static void find_cluster_read(struct target *target, const struct elf_image *image, uint64_t bias)
{
	struct elf_symbol symbol;

	if (!elf_image_symbol(image, "clusterReadHandler", STT_FUNC, &symbol))
		target->cluster_read = bias + symbol.vaddr;
}

static void no_server(const struct target *target)
{
	const char *exe = target->file[FILE_EXECUTABLE].name;
	char server[PATH_MAX];

	if (module_find_server(target->pid, server))
		complain("-p %d: %s was started as an argument of %s: start the server directly", target->pid, server, exe);
	else
		complain("-p %d: %s is not a Valkey or Redis server", target->pid, exe);
}

/* Without these its connections are followed all the same, though less is known of them: said, and gone on. */
static void say_what_is_missing(const struct target *target)
{
	const struct conn_sites *sites = &target->layer[CONN_SOCKET].sites;

	if (!sites->site[SITE_ACCEPT].present)
		complain("-p %d: replylog treats new connections like older ones: cannot find %s in the server", target->pid,
			 site_name(CONN_SOCKET, SITE_ACCEPT));
	if (sites->fd_offset < 0)
		complain(
			"-p %d: records will have no client addresses, and the socket tap cannot be used: cannot find where the "
			"server keeps a connection's fd",
			target->pid);
}

/* Reads files only: what the server is, and where its connection layer does I/O. */
static int read_executable(struct target *target)
{
	struct target_layer *socket = &target->layer[CONN_SOCKET];
	const struct target_file *exe = &target->file[FILE_EXECUTABLE];
	struct elf_image *image = NULL;
	uint64_t bias = 0;
	char why[512];
	int ret = -1;

	if (elf_image_open(exe->path, &image, why, sizeof(why))) {
		complain("-p %d: %s: %s", target->pid, exe->name, why);
		goto cleanup;
	}
	if (identify_server(image, target->version, sizeof(target->version))) {
		no_server(target);
		goto cleanup;
	}
	if (sites_find(image, CONN_SOCKET, &socket->sites, why, sizeof(why))) {
		complain("-p %d: %s (%s): cannot find the functions to probe: %s", target->pid, exe->name, target->version,
			 why);
		goto cleanup;
	}
	say_what_is_missing(target);
	if (load_bias(target, image, &bias) || locate_probes(socket, exe, image, bias))
		goto cleanup;
	find_dispatch(target, image, bias);
	find_cluster_read(target, image, bias);
	elf_image_build_id(image, target->build_id);
	layout_find(image, exe->fd, target->pid, target->version, &target->layout, target->no_layout,
		    sizeof(target->no_layout));
	ret = sites_has_tls(image) ? find_built_in_tls(target, image, bias) : find_tls_module(target);
cleanup:
	elf_image_close(image);
	return ret;
}

int target_open(struct target *target, pid_t pid)
{
	long seccomp = 0;

	memset(target, 0, sizeof(*target));
	target->pid = pid;
	target->pidfd = -1;
	for (int file = 0; file < TARGET_FILES; file++)
		target->file[file].fd = -1;
	if (open_process(target))
		return -1;
	/* First: whatever else is found out is known to be of the same image when this is still the same. */
	target->n_auxv = read_auxv(pid, target->auxv);
	if (open_executable(target) || read_executable(target))
		return -1;
	/* Absent on kernels without seccomp. SECCOMP_MODE_FILTER is 2 (include/uapi/linux/seccomp.h). */
	proc_status_number(pid, "Seccomp", &seccomp);
	target->seccomp_filter = seccomp == 2;
	/* It has its background threads once it has started. */
	if (target_idle_thread(target) != pid)
		target->cluster = cluster_find(pid);
	return 0;
}

void target_close(struct target *target)
{
	if (target->pidfd >= 0)
		close(target->pidfd);
	target->pidfd = -1;
	for (int file = 0; file < TARGET_FILES; file++) {
		if (target->file[file].fd >= 0)
			close(target->file[file].fd);
		target->file[file].fd = -1;
	}
}

bool target_has_ended(const struct target *target)
{
	struct pollfd fd = { .fd = target->pidfd, .events = POLLIN };
	char path[32], exe;

	snprintf(path, sizeof(path), "/proc/%d/exe", target->pid);
	if (readlink(path, &exe, 1) < 0 && errno == ENOENT)
		return true;
	if (target->pidfd < 0)
		return kill(target->pid, 0) && errno == ESRCH;
	return poll(&fd, 1, 0) > 0;
}

/* Addresses are random; where that is switched off, the file at least is another one, or all is as it was. */
bool target_is_replaced(const struct target *target)
{
	Elf64_auxv_t auxv[TARGET_AUXV];
	struct stat then, now;
	char path[32];
	size_t n = read_auxv(target->pid, auxv);

	if (!n || !target->n_auxv)
		return false;
	if (n != target->n_auxv || memcmp(auxv, target->auxv, n * sizeof(auxv[0])))
		return true;
	snprintf(path, sizeof(path), "/proc/%d/exe", target->pid);
	return !fstat(target->file[FILE_EXECUTABLE].fd, &then) && !stat(path, &now) &&
	       (then.st_dev != now.st_dev || then.st_ino != now.st_ino);
}

uint64_t target_function(const struct target *target, enum conn_type type, enum site_kind kind)
{
	const struct target_layer *layer = &target->layer[type];
	const struct site *site = &layer->sites.site[kind];

	return site->present ? layer->probe_address[kind] - (site->probe_offset - site->func_offset) : 0;
}

pid_t target_idle_thread(const struct target *target)
{
	pid_t tid = target->pid;

	proc_threads_named(target->pid, "bio_", &tid);
	return tid;
}
