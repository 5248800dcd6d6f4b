/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* A child of ours under a seccomp filter, on which is tried what might kill a server under one. */
#ifndef REPLYLOG_USER_KERNEL_FILTERED_CHILD_H
#define REPLYLOG_USER_KERNEL_FILTERED_CHILD_H

#include <sys/types.h>

enum filtered_child { CHILD_SURVIVED, CHILD_DIED, CHILD_NOT_TRIED };

/* The child ends, or is killed, within so many milliseconds of its call. */
#define FILTERED_CHILD_MS 2000

/* What the function returns for this argument, when nothing has harmed it. */
#define FILTERED_CHILD_ARGUMENT 20
#define FILTERED_CHILD_RESULT 21

struct filtered_trial {
	int (*function)(int argument);
	int (*attach)(pid_t child, void *ctx); /* 0, or -errno: then the child does not call it */
	void *ctx;                             /* the caller's */
};

/*
 * Forks a child that installs a filter which kills it at any system call but those that it needs to hear and say a word
 * and to end, as strict as filters are; calls attach() for it; and then has it call the function. It survives when the
 * function has returned what it should; one that hangs is killed and counts as died. Nothing of the child is left when
 * this returns. CHILD_NOT_TRIED: *err is the errno that says why.
 */
enum filtered_child filtered_child_try(const struct filtered_trial *trial, int *err);

#endif
