/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* All that has to be right before anything is loaded. */
#ifndef REPLYLOG_USER_KERNEL_PREPARE_H
#define REPLYLOG_USER_KERNEL_PREPARE_H

#include "user/kernel/attach.h"
#include "user/server/target.h"

#include <sys/types.h>

/*
 * Opens the target and asks the kernel. 0, or -1 with the reason on stderr. What is auto in *mode becomes the best there
 * is. Either way target_close() gives back what it holds.
 */
int attach_prepare(struct target *target, pid_t pid, struct attach_mode *mode);

#endif
