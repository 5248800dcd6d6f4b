/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/kernel/filtered_child.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int install_filter(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_read, 3, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_write, 2, 0),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog filter = { .len = sizeof(code) / sizeof(code[0]), .filter = code };

	/* Its death is an answer, and no core wanted: 1 keeps it from core_pattern's programs, too, see core(5). */
	setrlimit(RLIMIT_CORE, &(struct rlimit){ 1, 1 });
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter))
		return -errno;
	return 0;
}

/* Not _exit(): before that, sanitizers make system calls of their own. */
static _Noreturn void end_child(int status)
{
	for (;;)
		syscall(SYS_exit_group, status);
}

/* The child. It says how installing the filter went, waits for the word, and calls. Our end is the end of its pipe. */
static _Noreturn void be_child(const struct filtered_trial *trial, int said, int heard)
{
	int err = install_filter();
	char word;

	if (write(said, &err, sizeof(err)) != sizeof(err) || err || read(heard, &word, 1) != 1)
		end_child(1);
	end_child(trial->function(FILTERED_CHILD_ARGUMENT) != FILTERED_CHILD_RESULT);
}

/* The parent: *err is 0 when the child may be tried. */
static void prepare(const struct filtered_trial *trial, pid_t child, int said, int *err)
{
	struct pollfd fd = { .fd = said, .events = POLLIN };
	int answer = -ETIMEDOUT;

	if (poll(&fd, 1, FILTERED_CHILD_MS) > 0 && read(said, &answer, sizeof(answer)) != sizeof(answer))
		answer = -ECHILD;
	if (!answer)
		answer = trial->attach(child, trial->ctx);
	*err = -answer;
}

/* Whatever state it is in, it ends now or soon. */
static enum filtered_child await_end(pid_t child, int pidfd)
{
	struct pollfd fd = { .fd = pidfd, .events = POLLIN };
	int status = 0;

	if (poll(&fd, 1, FILTERED_CHILD_MS) <= 0)
		kill(child, SIGKILL);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) && !WEXITSTATUS(status) ? CHILD_SURVIVED : CHILD_DIED;
}

static enum filtered_child try_child(const struct filtered_trial *trial, pid_t child, int said, int word, int *err)
{
	int pidfd = (int)syscall(SYS_pidfd_open, child, 0);
	enum filtered_child outcome;

	if (pidfd < 0)
		*err = errno;
	else
		prepare(trial, child, said, err);
	if (!*err && write(word, "", 1) != 1)
		*err = errno;
	if (*err)
		kill(child, SIGKILL);
	outcome = await_end(child, pidfd);
	if (pidfd >= 0)
		close(pidfd);
	return *err ? CHILD_NOT_TRIED : outcome;
}

enum filtered_child filtered_child_try(const struct filtered_trial *trial, int *err)
{
	int said[2], heard[2];
	enum filtered_child outcome = CHILD_NOT_TRIED;
	sigset_t all, before;
	pid_t child;

	*err = 0;
	if (pipe2(said, O_CLOEXEC)) {
		*err = errno;
		return outcome;
	}
	if (pipe2(heard, O_CLOEXEC)) {
		*err = errno;
		goto close_said;
	}
	/* A signal is for us: its handler in the child would make system calls that the filter doesn't let pass. */
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, &before);
	child = fork();
	if (!child) {
		close(said[0]);
		close(heard[1]);
		be_child(trial, said[1], heard[0]);
	}
	if (child < 0)
		*err = errno;
	sigprocmask(SIG_SETMASK, &before, NULL);
	close(said[1]);
	said[1] = -1;
	if (child > 0)
		outcome = try_child(trial, child, said[0], heard[1], err);
	close(heard[0]);
	close(heard[1]);
close_said:
	close(said[0]);
	if (said[1] >= 0)
		close(said[1]);
	return outcome;
}
