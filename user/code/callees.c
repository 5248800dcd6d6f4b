/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include <stdlib.h>

#include "user/code/callees.h"
#include "user/code/elf_image.h"
#include "user/code/insn.h"

static const char *const name[CALLEES] = {
	"read", "write", "writev", "close", "SSL_read", "SSL_write", "SSL_free",
};

/* A function (one .eh_frame entry) and what it calls. */
struct caller {
	uint64_t start;
	unsigned int calls; /* CALLEE_BIT */
};

struct callees {
	struct elf_import import[CALLEES];
	struct caller *caller; /* ordered by start, each start once */
	size_t count;
};

const char *callee_name(enum callee callee)
{
	return name[callee];
}

static bool contains(const uint64_t *list, size_t count, uint64_t value)
{
	for (size_t i = 0; i < count; i++)
		if (list[i] == value)
			return true;
	return false;
}

enum callee callees_target(const struct callees *callees, uint64_t target, bool indirect)
{
	int callee;

	for (callee = 0; callee < CALLEES; callee++) {
		const struct elf_import *import = &callees->import[callee];

		if (indirect ? contains(import->slot, import->slots, target) : contains(import->stub, import->stubs, target))
			break;
	}
	return (enum callee)callee;
}

static bool add_caller(struct callees *callees, uint64_t start, enum callee callee)
{
	struct caller *last = callees->count ? &callees->caller[callees->count - 1] : NULL;

	if (last && last->start == start) {
		last->calls |= CALLEE_BIT(callee);
		return true;
	}
	/* Grows by doubling: at each power of two. */
	if (!(callees->count & (callees->count - 1))) {
		size_t room = callees->count ? 2 * callees->count : 1;
		struct caller *grown = realloc(callees->caller, room * sizeof(*grown));

		if (!grown)
			return false;
		callees->caller = grown;
	}
	/* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): a count above 0 has had room made for it */
	callees->caller[callees->count++] = (struct caller){ start, CALLEE_BIT(callee) };
	return true;
}

/*
 * Looks at every place of a code section instead of disassembling it: a displacement
 * that hits one of a dozen addresses by chance is a matter of 1 in 10^4 binaries, and
 * then only makes an answer ambiguous.
 */
static bool scan_section(struct callees *callees, const struct elf_image *img, const struct elf_range *text)
{
	const uint8_t *code = elf_image_bytes(img, text->offset, text->size);
	const struct isa *isa = elf_image_isa(img);

	for (uint64_t at = 0; code && at < text->size; at += isa->align) {
		uint64_t target, start, end;
		enum callee callee;
		bool indirect;

		if (!isa->branch(code + at, text->size - at, text->vaddr + at, &target, &indirect))
			continue;
		callee = callees_target(callees, target, indirect);
		if (callee == CALLEES || elf_image_function(img, text->vaddr + at, &start, &end))
			continue;
		if (!add_caller(callees, start, callee))
			return false;
	}
	return true;
}

static int compare_callers(const void *left, const void *right)
{
	const struct caller *a = left, *b = right;

	return a->start < b->start ? -1 : a->start > b->start;
}

/* Sections need not be in the order of their addresses: order and merge. */
static void sort_callers(struct callees *callees)
{
	size_t kept = 0;

	if (!callees->count)
		return;
	qsort(callees->caller, callees->count, sizeof(*callees->caller), compare_callers);
	for (size_t i = 1; i < callees->count; i++) {
		if (callees->caller[i].start == callees->caller[kept].start)
			callees->caller[kept].calls |= callees->caller[i].calls;
		else
			callees->caller[++kept] = callees->caller[i];
	}
	callees->count = kept + 1;
}

struct callees *callees_find(const struct elf_image *img)
{
	struct callees *callees = calloc(1, sizeof(*callees));
	const struct elf_range *text;
	size_t count = elf_image_text(img, &text);

	if (!callees)
		return NULL;
	for (int callee = 0; callee < CALLEES; callee++)
		elf_image_import(img, name[callee], &callees->import[callee]);
	for (size_t i = 0; i < count; i++) {
		if (!scan_section(callees, img, &text[i])) {
			callees_free(callees);
			return NULL;
		}
	}
	sort_callers(callees);
	return callees;
}

void callees_free(struct callees *callees)
{
	if (!callees)
		return;
	free(callees->caller);
	free(callees);
}

size_t callees_count_callers(const struct callees *callees)
{
	return callees->count;
}

unsigned int callees_of(const struct callees *callees, uint64_t vaddr)
{
	const struct caller key = { .start = vaddr }, *found = NULL;

	if (callees->count)
		found = bsearch(&key, callees->caller, callees->count, sizeof(key), compare_callers);
	return found ? found->calls : 0;
}
