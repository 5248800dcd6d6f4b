/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "target.h"

#include "complain.h"
#include "identify.h"
#include "proc_status.h"

#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* include/linux/proc_ns.h PROC_PID_INIT_INO: the inode of the initial pid namespace, fixed since Linux 3.8. */
#define INIT_PID_NAMESPACE 0xEFFFFFFCU

/* BPF sees the pids of the initial namespace; in another one, -p would name a different process. */
static int check_pid_namespace(void)
{
	struct stat st;

	if (stat("/proc/self/ns/pid", &st))
		return complain("/proc/self/ns/pid: %s: mount /proc", strerror(errno));
	if (st.st_ino != INIT_PID_NAMESPACE)
		return complain("this is not the host's pid namespace: run replylog on the host, or in a container "
				"with --pid=host");
	return 0;
}

static int no_process(pid_t pid, int err)
{
	if (err == ESRCH || err == ENOENT)
		return complain("-p %d: no such process", pid);
	if (err == ENOSYS)
		return complain("this kernel has no pidfd_open (Linux 5.3 or later has it)");
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
		return complain("-p %d: a thread, not a process: use -p %ld", target->pid, tgid);
	if (target->pidfd < 0)
		return complain("-p %d: pidfd_open: %s", target->pid, strerror(EINVAL));
	return 0;
}

static int open_executable(struct target *target)
{
	char link[32];
	ssize_t len;

	snprintf(link, sizeof(link), "/proc/%d/exe", target->pid);
	len = readlink(link, target->exe, sizeof(target->exe) - 1);
	if (len < 0 && errno == ENOENT)
		return complain("-p %d: a kernel thread or a zombie, not a server", target->pid);
	target->exe_fd = len < 0 ? -1 : open(link, O_RDONLY | O_CLOEXEC);
	if (target->exe_fd < 0)
		return complain("%s: %s%s", link, strerror(errno),
				errno == EACCES || errno == EPERM ?
				": CAP_SYS_PTRACE is needed for a process of another user: run as root" : "");
	target->exe[len] = '\0';
	snprintf(target->path, sizeof(target->path), "/proc/self/fd/%d", target->exe_fd);
	return 0;
}

/*
 * How far the executable was moved when it was loaded: its entry point in the process's memory (AT_ENTRY in auxv) less
 * that in the file. Instead of /proc/<pid>/maps, whose inodes are not those of stat() on overlayfs.
 */
static int load_bias(const struct target *target, const struct elf_image *image, uint64_t *bias)
{
	const Elf64_Ehdr *header = (const Elf64_Ehdr *)elf_image_bytes(image, 0, sizeof(*header));
	Elf64_auxv_t entry = { .a_type = AT_NULL };
	char path[32];
	FILE *auxv;

	snprintf(path, sizeof(path), "/proc/%d/auxv", target->pid);
	auxv = fopen(path, "re");
	if (!auxv)
		return complain("%s: %s", path, strerror(errno));
	while (entry.a_type != AT_ENTRY && fread(&entry, sizeof(entry), 1, auxv) == 1)
		;
	fclose(auxv);
	if (!header || entry.a_type != AT_ENTRY)
		return complain("%s: no AT_ENTRY: has the server just ended?", path);
	*bias = entry.a_un.a_val - header->e_entry;
	return 0;
}

static int locate_probes(struct target *target, const struct elf_image *image)
{
	uint64_t bias = 0, vaddr;
	int kind;

	if (load_bias(target, image, &bias))
		return -1;
	for (kind = 0; kind < SITE_KINDS; kind++) {
		const struct site *site = &target->sites.site[kind];

		if (!site->present)
			continue;
		if (elf_image_vaddr(image, site->probe_offset, &vaddr))
			return complain("%s: offset 0x%" PRIx64 " is not loaded", target->exe, site->probe_offset);
		target->probe_address[kind] = bias + vaddr;
	}
	return 0;
}

/* Reads the file only: what it is, and where its connection layer does I/O. */
static int read_executable(struct target *target)
{
	struct elf_image *image = NULL;
	char why[512];
	int ret = -1;

	if (elf_image_open(target->path, &image, why, sizeof(why))) {
		complain("-p %d: %s: %s", target->pid, target->exe, why);
		goto cleanup;
	}
	if (identify_server(image, target->version, sizeof(target->version))) {
		complain("-p %d: %s is neither a Valkey nor a Redis server", target->pid, target->exe);
		goto cleanup;
	}
	if (sites_find_socket(image, &target->sites, why, sizeof(why))) {
		complain("-p %d: %s (%s): nowhere to probe: %s", target->pid, target->exe, target->version, why);
		goto cleanup;
	}
	if (locate_probes(target, image))
		goto cleanup;
	elf_image_build_id(image, target->build_id);
	layout_find(image, target->exe_fd, target->pid, target->version, &target->layout, target->no_layout,
		    sizeof(target->no_layout));
	ret = 0;
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
	target->exe_fd = -1;
	if (check_pid_namespace() || open_process(target) || open_executable(target) || read_executable(target))
		return -1;
	/* Absent on kernels without seccomp. SECCOMP_MODE_FILTER is 2 (include/uapi/linux/seccomp.h). */
	proc_status_number(pid, "Seccomp", &seccomp);
	target->seccomp_filter = seccomp == 2;
	return 0;
}

void target_close(struct target *target)
{
	if (target->pidfd >= 0)
		close(target->pidfd);
	if (target->exe_fd >= 0)
		close(target->exe_fd);
	target->pidfd = target->exe_fd = -1;
}

static bool thread_is_idle(pid_t pid, const char *tid)
{
	char path[64], name[16] = "";
	FILE *file;
	bool idle;

	snprintf(path, sizeof(path), "/proc/%d/task/%.16s/comm", pid, tid);
	file = fopen(path, "re");
	if (!file)
		return false;
	idle = fgets(name, sizeof(name), file) && !strncmp(name, "bio_", 4);
	fclose(file);
	return idle;
}

pid_t target_idle_thread(const struct target *target)
{
	pid_t tid = target->pid;
	struct dirent *entry;
	char path[32];
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", target->pid);
	dir = opendir(path);
	if (!dir)
		return tid;
	while (tid == target->pid && (entry = readdir(dir)))
		if (thread_is_idle(target->pid, entry->d_name))
			tid = atoi(entry->d_name);
	closedir(dir);
	return tid;
}
