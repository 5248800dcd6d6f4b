/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What the user wants of a session. */
#ifndef REPLYLOG_USER_SESSION_SETTINGS_H
#define REPLYLOG_USER_SESSION_SETTINGS_H

#include "user/kernel/attach.h"
#include "user/kernel/engine.h"

#include <stdbool.h>
#include <stdint.h>

struct settings {
	struct attach_mode mode;
	struct engine_config engine;
	uint32_t verify_wait_ms; /* how long a record waits for its check, at most */
	bool follow;             /* when the server ends, wait for its successor */
};

#endif
