/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Where a server's connection functions are. Distributions strip the symbols of
 * static functions, but each connection type is a table of pointers to them, and
 * each of them calls the one library function it is named after.
 */
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "elf_image.h"
#include "insn.h"
#include "sites.h"

#define BIT(n) (1u << (n))
#define WORD 8

/* Library functions that tell the connection functions apart. */
enum callee {
	CALLS_READ,
	CALLS_WRITE,
	CALLS_WRITEV,
	CALLS_CLOSE,
	CALLS_SSL_READ,
	CALLS_SSL_WRITE,
	CALLEES
};

static const char *const callee_name[CALLEES] = {
	"read", "write", "writev", "close", "SSL_read", "SSL_write",
};

static const enum callee kind_calls[SITE_KINDS] = {
	[SITE_READ] = CALLS_READ,
	[SITE_WRITE] = CALLS_WRITE,
	[SITE_WRITEV] = CALLS_WRITEV,
	[SITE_CLOSE] = CALLS_CLOSE,
};

/* valkey 9.1.2 src/socket.c, redis 7.0.15 src/connection.c; the same names since Redis 6.0. */
static const char *const kind_symbol[SITE_KINDS] = {
	[SITE_READ] = "connSocketRead",
	[SITE_WRITE] = "connSocketWrite",
	[SITE_WRITEV] = "connSocketWritev",
	[SITE_CLOSE] = "connSocketClose",
};

/*
 * Slots of the table relative to write. Redis 7.2 and Valkey: shutdown close connect
 * blocking_connect accept write writev read (valkey 9.1.2 src/connection.h). Redis
 * 7.0: ae_handler connect write writev read close. Redis 6: the same without writev.
 */
#define CLOSE_BEFORE_WRITE (-4 * WORD)
#define CLOSE_AFTER_READ WORD

/* A function (one .eh_frame entry) and the callees it calls or jumps to. */
struct caller {
	uint64_t start;
	unsigned int calls;	/* BIT(enum callee) */
};

struct search {
	struct elf_image *img;
	struct elf_import import[CALLEES];
	struct caller *caller;	/* ordered by start, each start once */
	size_t callers;
	char *why;
	size_t why_size;
};

/* The functions of a connection type, by vaddr; 0 when absent. */
struct answer {
	uint64_t func[SITE_KINDS];
};

static int fail(const struct search *search, int err, const char *format, ...)
	__attribute__((format(printf, 3, 4)));

static int fail(const struct search *search, int err, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(search->why, search->why_size, format, args);
	va_end(args);
	return err;
}

static int32_t load_rel32(const uint8_t *p)
{
	uint32_t raw = (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 |
		       (uint32_t)p[3] << 24;

	return (int32_t)raw;
}

/* ---- who calls what ---- */

static bool contains(const uint64_t *list, size_t count, uint64_t value)
{
	for (size_t i = 0; i < count; i++)
		if (list[i] == value)
			return true;
	return false;
}

/* The callee whose stub (direct) or GOT word (indirect) is at target; CALLEES when none. */
static enum callee callee_at(const struct search *search, uint64_t target, bool indirect)
{
	int callee;

	for (callee = 0; callee < CALLEES; callee++) {
		const struct elf_import *import = &search->import[callee];

		if (indirect ? contains(import->slot, import->slots, target) :
			       contains(import->stub, import->stubs, target))
			break;
	}
	return (enum callee)callee;
}

static int add_caller(struct search *search, uint64_t start, enum callee callee)
{
	struct caller *last = search->callers ? &search->caller[search->callers - 1] : NULL;

	if (last && last->start == start) {
		last->calls |= BIT(callee);
		return 0;
	}
	/* Grows by doubling: at each power of two. */
	if (!(search->callers & (search->callers - 1))) {
		size_t room = search->callers ? 2 * search->callers : 1;
		struct caller *grown = realloc(search->caller, room * sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		search->caller = grown;
	}
	search->caller[search->callers++] = (struct caller){ start, BIT(callee) };
	return 0;
}

/*
 * Is the instruction at p, of at most len bytes, a call, jmp or jcc rel32, or
 * (-fno-plt) a call or jmp *[rip + disp]? Then *target is where to, or the GOT word.
 */
static bool branch_target(const uint8_t *p, uint64_t len, uint64_t vaddr, uint64_t *target, bool *indirect)
{
	unsigned int at = 2;

	if (len < 5)
		return false;
	*indirect = false;
	if (p[0] == 0xe8 || p[0] == 0xe9)
		at = 1;
	else if (p[0] == 0xff && (p[1] == 0x15 || p[1] == 0x25))
		*indirect = true;
	else if (p[0] != 0x0f || (p[1] & 0xf0) != 0x80)
		return false;
	if (len < at + 4)
		return false;
	*target = vaddr + at + 4 + (uint64_t)(int64_t)load_rel32(p + at);
	return true;
}

/*
 * Looks at every byte of a code section instead of disassembling it: a displacement
 * that hits one of a dozen addresses by chance is a matter of 1 in 10^4 binaries, and
 * then only makes an answer ambiguous.
 */
static int scan_section(struct search *search, const struct elf_range *text)
{
	const uint8_t *code = elf_image_bytes(search->img, text->offset, text->size);

	for (uint64_t at = 0; code && at < text->size; at++) {
		uint64_t target, start, end;
		enum callee callee;
		bool indirect;

		if (!branch_target(code + at, text->size - at, text->vaddr + at, &target, &indirect))
			continue;
		callee = callee_at(search, target, indirect);
		if (callee == CALLEES || elf_image_function(search->img, text->vaddr + at, &start, &end))
			continue;
		if (add_caller(search, start, callee))
			return -ENOMEM;
	}
	return 0;
}

static int compare_callers(const void *left, const void *right)
{
	const struct caller *a = left, *b = right;

	return a->start < b->start ? -1 : a->start > b->start;
}

/* Sections need not be in the order of their addresses: order and merge. */
static void sort_callers(struct search *search)
{
	size_t kept = 0;

	if (!search->callers)
		return;
	qsort(search->caller, search->callers, sizeof(*search->caller), compare_callers);
	for (size_t i = 1; i < search->callers; i++) {
		if (search->caller[i].start == search->caller[kept].start)
			search->caller[kept].calls |= search->caller[i].calls;
		else
			search->caller[++kept] = search->caller[i];
	}
	search->callers = kept + 1;
}

static int find_callers(struct search *search)
{
	const struct elf_range *text;
	size_t count = elf_image_text(search->img, &text);
	int ret;

	for (int callee = 0; callee < CALLEES; callee++)
		elf_image_import(search->img, callee_name[callee], &search->import[callee]);
	for (size_t i = 0; i < count; i++) {
		ret = scan_section(search, &text[i]);
		if (ret)
			return fail(search, ret, "out of memory while scanning the code");
	}
	sort_callers(search);
	return 0;
}

/* BIT mask of what the function starting at vaddr calls; 0 also when no function starts there. */
static unsigned int calls_of(const struct search *search, uint64_t vaddr)
{
	const struct caller key = { .start = vaddr }, *found = NULL;

	if (search->callers)
		found = bsearch(&key, search->caller, search->callers, sizeof(key), compare_callers);
	return found ? found->calls : 0;
}

static bool calls_only(const struct search *search, uint64_t vaddr, enum site_kind kind)
{
	return vaddr && calls_of(search, vaddr) == BIT(kind_calls[kind]);
}

/* ---- by symbol ---- */

struct symbol_search {
	struct answer answer;
	bool ambiguous[SITE_KINDS];
};

/*
 * The name itself, or with a suffix by which LTO keeps a static function's name apart
 * (gcc .lto_priv.N, clang .llvm.N). Not .isra, .constprop, .part, .cold: such a
 * function has other arguments or is only a piece.
 */
static bool names_function(const char *symbol, const char *name)
{
	size_t len = strlen(name);

	if (strncmp(symbol, name, len))
		return false;
	symbol += len;
	return !*symbol || !strncmp(symbol, ".lto_priv.", 10) || !strncmp(symbol, ".llvm.", 6);
}

static int match_symbol(const struct elf_symbol *sym, void *ctx)
{
	struct symbol_search *search = ctx;

	if (sym->type != STT_FUNC)
		return 0;
	for (int kind = 0; kind < SITE_KINDS; kind++) {
		uint64_t *func = &search->answer.func[kind];

		if (!names_function(sym->name, kind_symbol[kind]))
			continue;
		if (*func && *func != sym->vaddr)
			search->ambiguous[kind] = true;
		*func = sym->vaddr;
	}
	return 0;
}

/* Returns 0, -ENOENT to go on with the table, or another error. */
static int find_by_symbol(const struct search *search, struct answer *out)
{
	struct symbol_search found = { 0 };

	elf_image_each_symbol(search->img, match_symbol, &found);
	for (int kind = 0; kind < SITE_KINDS; kind++) {
		uint64_t func = found.answer.func[kind];

		if (found.ambiguous[kind])
			return fail(search, -ENOTUNIQ, "the symbol %s names two functions",
				    kind_symbol[kind]);
		if (!func && kind != SITE_WRITEV)
			return fail(search, -ENOENT, "no symbol %s", kind_symbol[kind]);
		if (func && elf_image_machine(search->img) == EM_X86_64 &&
		    !calls_only(search, func, kind))
			return fail(search, -ENOENT, "the symbol %s is at 0x%llx, which does not call %s",
				    kind_symbol[kind], (unsigned long long)func,
				    callee_name[kind_calls[kind]]);
	}
	*out = found.answer;
	return 0;
}

/* ---- by table ---- */

/*
 * Fills in close, before write or after read depending on the version. Returns false
 * when neither slot, or both (which is which then?), hold a function that calls close.
 */
static bool find_close(const struct search *search, uint64_t write_slot, uint64_t read_slot,
		       struct answer *out)
{
	uint64_t before = elf_image_pointer_at(search->img, write_slot + CLOSE_BEFORE_WRITE);
	uint64_t after = elf_image_pointer_at(search->img, read_slot + CLOSE_AFTER_READ);
	bool before_closes = calls_only(search, before, SITE_CLOSE);
	bool after_closes = calls_only(search, after, SITE_CLOSE);

	if (before_closes == after_closes)
		return false;
	out->func[SITE_CLOSE] = before_closes ? before : after;
	return true;
}

/* Is there a table whose write slot is at this address? */
static bool table_at(const struct search *search, uint64_t write_slot, bool has_writev,
		     struct answer *out)
{
	uint64_t slot = write_slot;

	memset(out, 0, sizeof(*out));
	out->func[SITE_WRITE] = elf_image_pointer_at(search->img, slot);
	if (!calls_only(search, out->func[SITE_WRITE], SITE_WRITE))
		return false;
	if (has_writev) {
		slot += WORD;
		out->func[SITE_WRITEV] = elf_image_pointer_at(search->img, slot);
		if (!calls_only(search, out->func[SITE_WRITEV], SITE_WRITEV))
			return false;
	}
	slot += WORD;
	out->func[SITE_READ] = elf_image_pointer_at(search->img, slot);
	if (!calls_only(search, out->func[SITE_READ], SITE_READ))
		return false;
	return find_close(search, write_slot, slot, out);
}

/* Where Redis before 7.2 exports its table, a pair found elsewhere is something else. */
static bool inside_exported_table(const struct search *search, uint64_t slot)
{
	struct elf_symbol table;

	if (elf_image_symbol(search->img, "CT_Socket", STT_OBJECT, &table) || !table.size)
		return true;
	return slot >= table.vaddr && slot - table.vaddr < table.size;
}

/* Tables may share their functions (a Unix socket's with TCP's); they must not differ. */
static int find_tables(const struct search *search, bool has_writev, struct answer *out)
{
	const struct elf_pointer *pointers;
	size_t count = elf_image_pointers(search->img, &pointers);
	uint64_t first_slot = 0;

	for (size_t i = 0; i < count; i++) {
		struct answer found;

		if (!table_at(search, pointers[i].slot, has_writev, &found) ||
		    !inside_exported_table(search, pointers[i].slot))
			continue;
		if (first_slot && memcmp(&found, out, sizeof(found)))
			return fail(search, -ENOTUNIQ,
				    "two different socket tables (write slots at 0x%llx and 0x%llx)",
				    (unsigned long long)first_slot,
				    (unsigned long long)pointers[i].slot);
		if (!first_slot)
			first_slot = pointers[i].slot;
		*out = found;
	}
	return first_slot ? 0 : -ENOENT;
}

static int find_by_table(const struct search *search, struct answer *out)
{
	const struct elf_pointer *pointers;
	size_t count = elf_image_pointers(search->img, &pointers);
	int ret;

	if (!elf_image_functions(search->img))
		return fail(search, -ENOENT, "no usable symbols and no usable .eh_frame: cannot tell functions apart");
	if (!count)
		return fail(search, -ENOENT, "no usable symbols and no pointers to code among the relocations");
	ret = find_tables(search, true, out);
	/* Redis 6 has no writev. */
	if (ret == -ENOENT)
		ret = find_tables(search, false, out);
	if (ret == -ENOENT)
		return fail(search, ret,
			    "no usable symbols, and none of %zu code pointers begins a table of functions that "
			    "call write, [writev,] read with one that calls close beside them "
			    "(%zu functions call any of these)", count, search->callers);
	return ret;
}

/* ---- where the fd is ---- */

/* What a straight-line walk through a function knows. */
struct walk {
	uint16_t holds_conn;	/* bit n: register n still holds the first argument */
	int fd_offset;		/* edi was loaded from [conn + fd_offset]; -1: it was not */
};

static bool is_reg_move(const struct insn *in, unsigned int *from, unsigned int *to)
{
	if (in->map || in->mod != 3 || !in->has_modrm || !(in->rex & 8))
		return false;
	*from = in->opcode == 0x89 ? in->reg : in->rm;
	*to = in->opcode == 0x89 ? in->rm : in->reg;
	return in->opcode == 0x89 || in->opcode == 0x8b;
}

/* mov r32, [conn + disp] into edi: 8B /r without REX.W. */
static bool loads_fd(const struct insn *in, const struct walk *walk)
{
	return !in->map && in->opcode == 0x8b && !(in->rex & 8) && in->simple_base &&
	       in->reg == INSN_RDI && (walk->holds_conn & BIT(in->rm)) && in->disp >= 0;
}

static void walk_step(struct walk *walk, const struct insn *in)
{
	bool fd_loaded = loads_fd(in, walk);
	unsigned int from, to;
	bool copied = is_reg_move(in, &from, &to) && (walk->holds_conn & BIT(from));

	if (in->writes & BIT(INSN_RDI))
		walk->fd_offset = fd_loaded ? in->disp : -1;
	walk->holds_conn &= (uint16_t)~in->writes;
	if (copied)
		walk->holds_conn |= (uint16_t)BIT(to);
	/* What follows a jump or a return is reached from elsewhere. */
	if (in->flow == INSN_JMP || in->flow == INSN_STOP)
		walk->fd_offset = -1;
}

/*
 * Offset of the fd in struct connection as the function's call to its callee takes it,
 * -1 when the code does not say so plainly.
 */
static int decode_fd_offset(const struct search *search, uint64_t func, enum site_kind kind)
{
	struct walk walk = { .holds_conn = BIT(INSN_RDI), .fd_offset = -1 };
	uint64_t start, end;
	const uint8_t *code;

	if (elf_image_function(search->img, func, &start, &end))
		return -1;
	code = elf_image_at(search->img, start, end - start);
	for (uint64_t at = 0; code && at < end - start;) {
		uint64_t target;
		struct insn in;
		bool indirect;

		if (insn_decode(code + at, end - start - at, &in))
			return -1;
		if (branch_target(code + at, end - start - at, start + at, &target, &indirect) &&
		    callee_at(search, target, indirect) == kind_calls[kind])
			return walk.fd_offset;
		walk_step(&walk, &in);
		at += in.len;
	}
	return -1;
}

static int find_fd_offset(const struct search *search, const struct answer *answer)
{
	static const enum site_kind io[] = { SITE_READ, SITE_WRITE, SITE_WRITEV };
	int agreed = -1;

	for (size_t i = 0; i < 3; i++) {
		uint64_t func = answer->func[io[i]];
		int offset;

		if (!func)
			continue;
		offset = decode_fd_offset(search, func, io[i]);
		if (offset < 0 || (agreed >= 0 && offset != agreed))
			return -1;
		agreed = offset;
	}
	return agreed;
}

/* ---- where to stand ---- */

/*
 * True when code outside the function (its cold part, say) may branch into
 * (func, probe]: the probe would fire without an entry.
 */
static bool branched_into(const struct search *search, uint64_t func, uint64_t probe)
{
	const struct elf_range *text;
	size_t count = elf_image_text(search->img, &text);

	for (size_t i = 0; i < count; i++) {
		const uint8_t *code = elf_image_bytes(search->img, text[i].offset, text[i].size);

		for (uint64_t at = 0; code && at < text[i].size; at++) {
			uint64_t target;
			bool indirect;

			if (branch_target(code + at, text[i].size - at, text[i].vaddr + at, &target,
					  &indirect) && !indirect && target > func && target <= probe)
				return true;
		}
	}
	return false;
}

static int place_site(const struct search *search, uint64_t func, enum site_kind kind, struct site *site)
{
	struct insn_probe probe;
	uint64_t start, end;
	const uint8_t *code;
	int ret;

	if (!elf_image_in_text(search->img, func) ||
	    elf_image_function(search->img, func, &start, &end) || start != func)
		return fail(search, -ENOENT, "no function begins at 0x%llx, taken for %s",
			    (unsigned long long)func, kind_symbol[kind]);
	code = elf_image_at(search->img, start, end - start);
	if (!code || elf_image_offset(search->img, func, &site->func_offset))
		return fail(search, -ENOENT, "the function at 0x%llx, taken for %s, is not in the file",
			    (unsigned long long)func, kind_symbol[kind]);
	ret = insn_choose_probe(elf_image_machine(search->img), code, end - start, &probe);
	if (ret)
		return fail(search, ret, "cannot decode the first instruction of %s at 0x%llx",
			    kind_symbol[kind], (unsigned long long)func);
	if (probe.offset && branched_into(search, func, func + probe.offset))
		probe = (struct insn_probe){ 0 };
	site->func_vaddr = func;
	site->probe_offset = site->func_offset + probe.offset;
	site->emulated = probe.emulated;
	site->present = true;
	return 0;
}

static int place_sites(const struct search *search, const struct answer *answer, struct conn_sites *out)
{
	for (int kind = 0; kind < SITE_KINDS; kind++) {
		int ret;

		if (!answer->func[kind])
			continue;
		for (int other = 0; other < kind; other++)
			if (answer->func[other] == answer->func[kind])
				return fail(search, -ENOTUNIQ, "%s and %s are the same function",
					    kind_symbol[other], kind_symbol[kind]);
		ret = place_site(search, answer->func[kind], kind, &out->site[kind]);
		if (ret)
			return ret;
	}
	return 0;
}

static int find_functions(const struct search *search, struct answer *answer, const char **found_by)
{
	int ret;

	*found_by = "symbol";
	ret = find_by_symbol(search, answer);
	if (ret != -ENOENT)
		return ret;
	/* The call scan knows x86-64 code only. */
	if (elf_image_machine(search->img) != EM_X86_64)
		return fail(search, -ENOTSUP, "no symbol %s, and stripped servers are searched on x86-64 only",
			    kind_symbol[SITE_READ]);
	*found_by = "table";
	return find_by_table(search, answer);
}

int sites_find_socket(struct elf_image *img, struct conn_sites *out, char *why, size_t why_size)
{
	struct search search = { .img = img, .why = why, .why_size = why_size };
	struct answer answer = { 0 };
	int ret;

	memset(out, 0, sizeof(*out));
	out->fd_offset = -1;
	ret = find_callers(&search);
	if (ret)
		goto cleanup;
	ret = find_functions(&search, &answer, &out->found_by);
	if (ret)
		goto cleanup;
	ret = place_sites(&search, &answer, out);
	if (ret)
		goto cleanup;
	if (elf_image_machine(img) == EM_X86_64)
		out->fd_offset = find_fd_offset(&search, &answer);
	/* The symbols' failure is no news once the table answered. */
	if (why_size)
		why[0] = '\0';
cleanup:
	free(search.caller);
	return ret;
}
