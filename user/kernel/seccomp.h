/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef REPLYLOG_USER_KERNEL_SECCOMP_H
#define REPLYLOG_USER_KERNEL_SECCOMP_H

#include "user/kernel/filtered_child.h"
#include "user/kernel/attach.h"

/*
 * Asks the kernel whether a process under a seccomp filter survives a return probe that is attached this way (not
 * ATTACH_AUTO), by trying one on a child of our own. On x86-64 a return goes through the system call uretprobe since
 * Linux 6.11 (ff474a78cef5), which filters saw, and refused, until cf6cb56ef244 (6.14, 6.13.3, 6.12.14). Takes some
 * tens of milliseconds. CHILD_NOT_TRIED: *err is the errno that says why.
 */
enum filtered_child seccomp_ask(enum attach_choice how, int *err);

#endif
