/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/kernel/attach.h"

const char *attach_name(enum attach_choice how)
{
	static const char *const names[] = { "auto", "uprobe_session", "uprobe_multi", "perf" };

	return names[how];
}

const char *tap_name(enum tap_choice tap)
{
	static const char *const names[] = { "auto", "socket", "connection" };

	return names[tap];
}
