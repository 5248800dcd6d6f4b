/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef REPLYLOG_USER_SESSION_REPLY_FITS_H
#define REPLYLOG_USER_SESSION_REPLY_FITS_H

#include "user/output/argv.h"

#include <linux/types.h>
#include <stdbool.h>

/*
 * Can a reply to a that begins with first_byte be one? In the protocol's version resp; 0 when it is not known, which is
 * either. True for commands that are not known. Inside a transaction a command is answered with +QUEUED: that is the
 * caller's to know, and so is CLIENT REPLY.
 */
bool reply_fits_command(const struct argv *a, __u8 first_byte, unsigned int resp);

#endif
