/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef REPLYLOG_USER_VERSION_H
#define REPLYLOG_USER_VERSION_H

/* "0.1.0", or between releases "0.1.0-12-gabc1234", as scripts/version prints it. */
extern const char replylog_version[];

#endif
