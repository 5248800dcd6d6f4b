/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/version.h"

/* Only this file includes the header that scripts/version writes: a commit has no other file compiled anew. */
#ifndef REPLYLOG_VERSION
#include "version_text.h"
#endif

const char replylog_version[] = REPLYLOG_VERSION;
