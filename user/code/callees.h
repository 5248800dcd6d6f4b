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
struct callees;

/*
 * Scans the code of an image, which must have an isa, once. NULL when out of memory. To be given to callees_free(); NULL
 * is fine there.
 */
struct callees *callees_find(const struct elf_image *img);
void callees_free(struct callees *callees);

/* How many functions call any of them. */
size_t callees_count_callers(const struct callees *callees);

/* CALLEE_BIT mask of what the function starting at vaddr calls; 0 also when no function starts there. */
unsigned int callees_of(const struct callees *callees, uint64_t vaddr);

/* The callee that a branch to target (or, indirect, through the GOT word there) ends in; CALLEES when none. */
enum callee callees_target(const struct callees *callees, uint64_t target, bool indirect);

/* "SSL_read" */
const char *callee_name(enum callee callee);

#endif
