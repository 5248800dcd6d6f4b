/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef REPLYLOG_SITES_H
#define REPLYLOG_SITES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct elf_image;

enum site_kind {
	SITE_READ,
	SITE_WRITE,
	SITE_WRITEV,	/* absent before Redis 7.0 */
	SITE_CLOSE,
	SITE_KINDS
};

/* A function to probe. */
struct site {
	uint64_t func_vaddr;	/* of its first byte, as the ELF file states it */
	uint64_t func_offset;	/* file offset of its first byte */
	uint64_t probe_offset;	/* file offset to put the uprobe or uretprobe at */
	bool emulated;		/* the kernel emulates the probed instruction */
	bool present;
};

/* The connection layer's functions of one connection type. */
struct conn_sites {
	struct site site[SITE_KINDS];
	int fd_offset;		/* bytes from struct connection to its fd; -1: unknown */
	const char *found_by;	/* "symbol" or "table"; static */
};

/*
 * Finds the functions that plain TCP (and Unix) sockets go through in a Valkey or
 * Redis server, read, write and close always, writev where the version has it.
 * Everything found is verified; two answers count as none.
 * Returns 0; -ENOENT when a function is not found, -ENOTUNIQ when the answer is
 * ambiguous, -EILSEQ when a function's code is not understood, -ENOTSUP for the
 * machine, -ENOMEM. On failure why says in one line what was looked for and where,
 * and *out is not to be used.
 */
int sites_find_socket(struct elf_image *img, struct conn_sites *out, char *why, size_t why_size);

#endif
