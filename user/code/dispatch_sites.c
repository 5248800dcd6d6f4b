/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/code/dispatch_sites.h"

#include <elf.h>
#include <stdio.h>
#include <string.h>

#include "user/code/elf_image.h"
#include "user/code/insn.h"

static const char *const names[DISPATCH_SITES] = { [DISPATCH_CALL] = "call" };

/* Executes a client's own commands by call(), in all versions (src/server.c). */
#define CALLER "processCommand"

const char *dispatch_site_name(enum dispatch_site site)
{
	return names[site];
}

/* A symbol may be there although the compiler put a copy of the function into its caller: then it is hardly ever hit. */
static bool is_called(struct elf_image *img, uint64_t func)
{
	struct elf_symbol caller;
	const struct isa *isa = elf_image_isa(img);
	const uint8_t *code;
	bool indirect;
	uint64_t target;

	if (!isa || elf_image_symbol(img, CALLER, STT_FUNC, &caller))
		return false;
	code = elf_image_at(img, caller.vaddr, caller.size);
	for (uint64_t at = 0; code && at < caller.size; at += isa->align)
		if (isa->branch(code + at, caller.size - at, caller.vaddr + at, &target, &indirect) && !indirect &&
		    target == func)
			return true;
	return false;
}

static void find_call(struct elf_image *img, struct site *site, char *why, size_t why_size)
{
	struct elf_symbol symbol;

	if (elf_image_symbol(img, names[DISPATCH_CALL], STT_FUNC, &symbol)) {
		snprintf(why, why_size, "the server's binary has no symbol %s", names[DISPATCH_CALL]);
		return;
	}
	if (!is_called(img, symbol.vaddr)) {
		snprintf(why, why_size, "%s does not call %s: the compiler merged the two functions", CALLER,
			 names[DISPATCH_CALL]);
		return;
	}
	sites_place(img, symbol.vaddr, names[DISPATCH_CALL], site, why, why_size);
}

void dispatch_sites_find(struct elf_image *img, struct dispatch_sites *out, char *why, size_t why_size)
{
	memset(out, 0, sizeof(*out));
	find_call(img, &out->site[DISPATCH_CALL], why, why_size);
}
