/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef REPLYLOG_USER_CODE_CALLEES_H
#define REPLYLOG_USER_CODE_CALLEES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct elf_image;

/* Library functions that tell a stripped server's connection functions apart. */
enum callee { CALLS_READ, CALLS_WRITE, CALLS_WRITEV, CALLS_CLOSE, CALLS_SSL_READ, CALLS_SSL_WRITE, CALLS_SSL_FREE, CALLEES };

#define CALLEE_BIT(callee) (1u << (callee))

/* Which functions of an image call or jump to which of them. */
struct callers;

/*
 * Scans the code of an image, which must have an isa, once. NULL when out of memory. To be given to callers_free(); NULL
 * is fine there.
 */
struct callers *callers_find(const struct elf_image *img);
void callers_free(struct callers *callers);

/* How many functions call any of them. */
size_t callers_count(const struct callers *callers);

/* CALLEE_BIT mask of what the function starting at vaddr calls; 0 also when no function starts there. */
unsigned int callers_callees(const struct callers *callers, uint64_t vaddr);

/* The callee that a branch to target (or, indirect, through the GOT word there) ends in; CALLEES when none. */
enum callee callers_target(const struct callers *callers, uint64_t target, bool indirect);

/* "SSL_read" */
const char *callee_name(enum callee callee);

#endif
