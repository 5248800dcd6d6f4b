/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What only some versions of the servers do. version: as in struct target, "valkey 9.1.2". */
#ifndef REPLYLOG_USER_SERVER_QUIRKS_H
#define REPLYLOG_USER_SERVER_QUIRKS_H

#include <stdbool.h>

/*
 * Whether a failing AUTH may go unanswered while earlier replies are still to be written: see auth_may_be_silent() in
 * bpf/port.h. True for versions that were not read.
 */
bool quirk_auth_is_silent(const char *version);

/*
 * Whether a typed line without words makes the server take what follows for typed lines: see request_inline_end() in
 * bpf/conn/request_inline.h. Likewise.
 */
bool quirk_blank_lines_confuse(const char *version);

/*
 * Whether the options of a HELLO take effect one by one, those before the one that is refused included (helloCommand() in
 * redis 6.0 and 7.0 src/networking.c; redis 8.0 and valkey 8.1 look at all of them first). Likewise.
 */
bool quirk_hello_in_parts(const char *version);

#endif
