/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef REPLYLOG_USER_CODE_SITES_H
#define REPLYLOG_USER_CODE_SITES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct elf_image;

enum site_kind {
	SITE_READ,
	SITE_WRITE,
	SITE_WRITEV, /* absent before Redis 7.0 */
	SITE_CLOSE,  /* of sockets only: the others' ends in it (connTLSClose, connUnixClose in all versions) */
	SITE_ACCEPT, /* absent where the table's slot holds something else */
	SITE_KINDS
};

/* The connection types whose functions do I/O; a Unix socket's functions call the socket's. */
enum conn_type { CONN_SOCKET, CONN_TLS, CONN_TYPES };

/* A function to probe. */
struct site {
	uint64_t func_vaddr;   /* of its first byte, as the ELF file states it */
	uint64_t func_offset;  /* file offset of its first byte */
	uint64_t probe_offset; /* file offset to put the uprobe or uretprobe at */
	bool emulated;         /* the kernel emulates the probed instruction */
	bool present;
};

/* The connection layer's functions of one connection type. */
struct conn_sites {
	struct site site[SITE_KINDS];
	int fd_offset;        /* bytes from struct connection to its fd; -1: unknown */
	const char *found_by; /* "symbol" or "table"; static */
};

/* "connSocketRead", the name the server's source gives a function; NULL when it is not probed. */
const char *site_name(enum conn_type type, enum site_kind kind);

/*
 * Finds the functions that connections of a type go through in a Valkey or Redis
 * server, or for TLS in the module that it came in: read and write always, of sockets
 * close, too, writev and accept where they are. Everything found is verified; two
 * answers count as none. fd_offset is found with the socket's only.
 * Returns 0; -ENOENT when a function is not found, -ENOTUNIQ when the answer is
 * ambiguous, -EILSEQ when a function's code is not understood, -ENOTSUP for the
 * machine, -ENOMEM. On failure why says in one line what was looked for and where,
 * and *out is not to be used.
 */
int sites_find(struct elf_image *img, enum conn_type type, struct conn_sites *out, char *why, size_t why_size);

/*
 * Where to probe the function that begins at func: its first instruction, or one soon after it at which the arguments are
 * still in their registers and that the kernel emulates. name: for why. Returns as sites_find() does.
 */
int sites_place(struct elf_image *img, uint64_t func, const char *name, struct site *site, char *why, size_t why_size);

/* Does this file use TLS itself, so that a failure to find its functions means something? */
bool sites_has_tls(const struct elf_image *img);

#endif
