/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Where a server executes its commands. */
#ifndef REPLYLOG_USER_CODE_DISPATCH_SITES_H
#define REPLYLOG_USER_CODE_DISPATCH_SITES_H

#include "user/code/sites.h"

enum dispatch_site {
	DISPATCH_CALL, /* void call(client *c, int flags): executes a command */
	DISPATCH_SITES
};

struct dispatch_sites {
	struct site site[DISPATCH_SITES];
};

/* "call", the name the server's source gives a function */
const char *dispatch_site_name(enum dispatch_site site);

/*
 * Finds the functions by their symbols, which servers export for their modules' sake (-rdynamic), so that stripped ones
 * have them, too. What is not found is not present, and why says in one line what is missing.
 */
void dispatch_sites_find(struct elf_image *img, struct dispatch_sites *out, char *why, size_t why_size);

#endif
