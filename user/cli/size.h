/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef REPLYLOG_USER_CLI_SIZE_H
#define REPLYLOG_USER_CLI_SIZE_H

#include <stdint.h>

/*
 * A size in the server's own units into *bytes: digits, then nothing or b (bytes), k (1000), kb (1024), m,
 * mb, g, gb, in any case. 0 on success; -EINVAL when s is no such size (empty, a sign, a space, a unit alone,
 * anything after the unit); -ERANGE when it does not fit in 64 bits. *bytes is written only on success.
 */
int size_parse(const char *s, uint64_t *bytes);

#endif
