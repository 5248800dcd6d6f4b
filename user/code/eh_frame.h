/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef REPLYLOG_USER_CODE_EH_FRAME_H
#define REPLYLOG_USER_CODE_EH_FRAME_H

#include <stddef.h>
#include <stdint.h>

/* [start, end) of a function, or of a part of one that the compiler split. */
struct eh_function {
	uint64_t start;
	uint64_t end;
};

/* No section of this size describes more: the smallest FDE is a length, a CIE pointer and two addresses of 2 bytes. */
#define EH_FUNCTIONS_MAX(size) ((size) / 12 + 1)

/*
 * Reads the .eh_frame section at data, which is mapped at vaddr and never trusted: what
 * is not understood is left out, damage ends it. out: room for EH_FUNCTIONS_MAX(size).
 * Returns how many, in the section's order.
 */
size_t eh_frame_read(const uint8_t *data, uint64_t size, uint64_t vaddr, struct eh_function *out);

#endif
