/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/server/selector.h"

#include <stdio.h>

bool selector_matches(const struct endpoint *endpoint, pid_t pid, const void *ctx)
{
	const struct selector *selector = ctx;

	switch (selector->kind) {
	case SELECT_PORT:
		return endpoint->port == selector->port;
	case SELECT_UNIXSOCKET:
		return endpoint_is_file(endpoint, pid, selector->path);
	default:
		return true;
	}
}

const char *selector_describe(const struct selector *selector, char text[SELECTOR_TEXT])
{
	switch (selector->kind) {
	case SELECT_PID:
		snprintf(text, SELECTOR_TEXT, "-p %d", selector->pid);
		break;
	case SELECT_PORT:
		snprintf(text, SELECTOR_TEXT, "--port %u", selector->port);
		break;
	case SELECT_UNIXSOCKET:
		snprintf(text, SELECTOR_TEXT, "--unixsocket %s", selector->path);
		break;
	case SELECT_ALL:
		snprintf(text, SELECTOR_TEXT, "--all");
		break;
	}
	return text;
}
