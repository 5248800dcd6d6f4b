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

#include "user/code/callees.h"
#include "user/code/elf_image.h"
#include "user/code/insn.h"
#include "user/code/sites.h"

#define BIT(n) (1u << (n))
#define NO_ISA "its code is for ELF machine %u; replylog supports only x86-64 and arm64"
#define WORD 8

/* What is known of a connection type's functions; a kind without a name is not probed. */
struct conn_functions {
	const char *table;             /* the symbol of its table of functions in Redis before 7.2 */
	const char *name[SITE_KINDS];  /* the same since Redis 6.0 */
	enum callee calls[SITE_KINDS]; /* the one library function it calls; CALLEES: none that tells */
};

/* valkey 9.1.2 src/socket.c and src/tls.c, redis 7.0.15 src/connection.c and src/tls.c. */
static const struct conn_functions functions[CONN_TYPES] = {
	[CONN_SOCKET] = {
		.table = "CT_Socket",
		.name = { "connSocketRead", "connSocketWrite", "connSocketWritev", "connSocketClose",
			  "connSocketAccept" },
		.calls = { CALLS_READ, CALLS_WRITE, CALLS_WRITEV, CALLS_CLOSE, CALLEES },
	},
	[CONN_TLS] = {
		.table = "CT_TLS",
		.name = { "connTLSRead", "connTLSWrite", "connTLSWritev", NULL, "connTLSAccept" },
		.calls = { CALLS_SSL_READ, CALLS_SSL_WRITE, CALLS_SSL_WRITE, CALLS_SSL_FREE, CALLEES },
	},
};

/*
 * Slots of the table. Redis 7.2 and Valkey: close connect blocking_connect accept
 * write writev read (valkey 9.1.2 src/connection.h). Redis 7.0: ae_handler connect
 * write writev read close accept. Redis 6: the same without writev.
 */
#define CLOSE_BEFORE_WRITE (-4 * WORD)
#define ACCEPT_BEFORE_WRITE (-1 * WORD)
#define CLOSE_AFTER_READ WORD
#define ACCEPT_AFTER_READ (2 * WORD)

/* struct connection begins with its type and its state in all versions; src/connection.h. */
#define STATE_OFFSET 8
#define CONN_STATE_ACCEPTING 2

struct search {
	struct elf_image *img;
	const struct isa *isa;
	const struct conn_functions *functions;
	struct callees *callees;
	char *why;
	size_t why_size;
};

/* The functions of a connection type, by vaddr; 0 when absent. */
struct answer {
	uint64_t func[SITE_KINDS];
};

static int fail(const struct search *search, int err, const char *format, ...) __attribute__((format(printf, 3, 4)));

static int fail(const struct search *search, int err, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(search->why, search->why_size, format, args);
	va_end(args);
	return err;
}

const char *site_name(enum conn_type type, enum site_kind kind)
{
	return functions[type].name[kind];
}

bool sites_has_tls(const struct elf_image *img)
{
	struct elf_import import;

	return !elf_image_import(img, callee_name(CALLS_SSL_WRITE), &import);
}

/* ---- is it this function? ---- */

/* What a straight-line walk through a function knows. */
struct walk {
	const struct isa *isa;
	uint32_t holds_conn;  /* bit n: register n still holds the first argument */
	uint32_t holds_state; /* and this one its connection's state */
	int fd_offset;        /* the first argument's register was loaded from [conn + fd_offset]; -1: it was not */
};

static struct walk begin_walk(const struct isa *isa)
{
	return (struct walk){ .isa = isa, .holds_conn = BIT(isa->argument), .fd_offset = -1 };
}

static bool loads_from_conn(const struct walk *walk, const struct insn *in)
{
	return in->effect == INSN_LOADS32 && walk->holds_conn & BIT(in->from) && in->disp >= 0;
}

static void walk_step(struct walk *walk, const struct insn *in)
{
	bool loaded = loads_from_conn(walk, in);
	bool copied = in->effect == INSN_MOVES && walk->holds_conn & BIT(in->from);

	if (in->writes & BIT(walk->isa->argument))
		walk->fd_offset = loaded && in->to == walk->isa->argument ? in->disp : -1;
	walk->holds_conn &= ~in->writes;
	walk->holds_state &= ~in->writes;
	if (copied)
		walk->holds_conn |= BIT(in->to);
	if (loaded && in->disp == STATE_OFFSET)
		walk->holds_state |= BIT(in->to);
	/* What follows a jump or a return is reached from elsewhere. */
	if (in->flow == INSN_JMP || in->flow == INSN_STOP)
		walk->fd_offset = -1;
}

/* Is the connection's state compared with CONN_STATE_ACCEPTING? */
static bool compares_state(const struct walk *walk, const struct insn *in)
{
	if (in->value != CONN_STATE_ACCEPTING)
		return false;
	if (in->effect == INSN_COMPARES32)
		return walk->holds_state & BIT(in->from);
	return in->effect == INSN_COMPARES32_MEMORY && walk->holds_conn & BIT(in->from) && in->disp == STATE_OFFSET;
}

/*
 * Does the function begin by asking whether its connection is being accepted, as
 * accept functions do in all versions? No library function that all of them call tells them.
 */
static bool is_accept(const struct search *search, uint64_t func)
{
	struct walk walk = begin_walk(search->isa);
	struct insn in = { .flow = INSN_NEXT };
	uint64_t start, end;
	const uint8_t *code;

	if (elf_image_function(search->img, func, &start, &end) || start != func)
		return false;
	code = elf_image_at(search->img, start, end - start);
	for (uint64_t at = 0; code && at < end - start && in.flow == INSN_NEXT; at += in.len) {
		if (search->isa->decode(code + at, end - start - at, &in))
			return false;
		if (compares_state(&walk, &in))
			return true;
		walk_step(&walk, &in);
	}
	return false;
}

/* Can the function at vaddr be this one, by what it calls or compares? */
static bool is_function(const struct search *search, uint64_t vaddr, enum site_kind kind)
{
	enum callee callee = search->functions->calls[kind];
	unsigned int calls;

	if (!vaddr)
		return false;
	if (kind == SITE_ACCEPT)
		return is_accept(search, vaddr);
	calls = callees_of(search->callees, vaddr);
	/* connTLSWritev calls connTLSWrite, which may be inlined or not. */
	if (callee == CALLS_SSL_WRITE && kind == SITE_WRITEV && !calls)
		return true;
	return calls == CALLEE_BIT(callee);
}

/* ---- by symbol ---- */

struct symbol_search {
	const struct conn_functions *functions;
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

		const char *name = search->functions->name[kind];

		if (!name || !names_function(sym->name, name))
			continue;
		if (*func && *func != sym->vaddr)
			search->ambiguous[kind] = true;
		*func = sym->vaddr;
	}
	return 0;
}

/* Is a function without a symbol an older version's, or a sign that the symbols are no good? */
static bool may_lack(const struct conn_functions *functions, int kind)
{
	return !functions->name[kind] || kind == SITE_WRITEV || kind == SITE_ACCEPT;
}

/* Returns 0, -ENOENT to go on with the table, or another error. */
static int find_by_symbol(const struct search *search, struct answer *out)
{
	struct symbol_search found = { .functions = search->functions };

	elf_image_each_symbol(search->img, match_symbol, &found);
	for (int kind = 0; kind < SITE_KINDS; kind++) {
		const char *name = search->functions->name[kind];
		uint64_t func = found.answer.func[kind];

		if (found.ambiguous[kind])
			return fail(search, -ENOTUNIQ, "the symbol %s names two functions", name);
		if (!func && !may_lack(search->functions, kind))
			return fail(search, -ENOENT, "no symbol %s", name);
		/* No call tells an accept function, and a compiler that does not optimize hides its comparison: trusted. */
		if (func && kind != SITE_ACCEPT && !is_function(search, func, kind))
			return fail(search, -ENOENT,
				    "the symbol %s is at 0x%llx, but the code there does not look like that function", name,
				    (unsigned long long)func);
	}
	*out = found.answer;
	return 0;
}

/* ---- by table ---- */

/*
 * Fills in close and accept, before write or after read depending on the version. Returns
 * false when neither slot, or both (which is which then?), hold a function that closes.
 */
static bool find_close(const struct search *search, uint64_t write_slot, uint64_t read_slot, struct answer *out)
{
	uint64_t before = elf_image_pointer_at(search->img, write_slot + CLOSE_BEFORE_WRITE);
	uint64_t after = elf_image_pointer_at(search->img, read_slot + CLOSE_AFTER_READ);
	bool before_closes = is_function(search, before, SITE_CLOSE);
	bool after_closes = is_function(search, after, SITE_CLOSE);
	uint64_t accept;

	if (before_closes == after_closes)
		return false;
	out->func[SITE_CLOSE] = before_closes ? before : after;
	accept = elf_image_pointer_at(search->img,
				      before_closes ? write_slot + ACCEPT_BEFORE_WRITE : read_slot + ACCEPT_AFTER_READ);
	if (is_function(search, accept, SITE_ACCEPT))
		out->func[SITE_ACCEPT] = accept;
	return true;
}

/* Is there a table whose write slot is at this address? */
static bool table_at(const struct search *search, uint64_t write_slot, bool has_writev, struct answer *out)
{
	uint64_t slot = write_slot;

	memset(out, 0, sizeof(*out));
	out->func[SITE_WRITE] = elf_image_pointer_at(search->img, slot);
	if (!is_function(search, out->func[SITE_WRITE], SITE_WRITE))
		return false;
	if (has_writev) {
		slot += WORD;
		out->func[SITE_WRITEV] = elf_image_pointer_at(search->img, slot);
		if (!is_function(search, out->func[SITE_WRITEV], SITE_WRITEV))
			return false;
	} else if (is_function(search, elf_image_pointer_at(search->img, slot - WORD), SITE_WRITE)) {
		/* write, writev, read, where writev ends in what write ends in: TLS. */
		return false;
	}
	slot += WORD;
	out->func[SITE_READ] = elf_image_pointer_at(search->img, slot);
	if (!is_function(search, out->func[SITE_READ], SITE_READ))
		return false;
	return find_close(search, write_slot, slot, out);
}

/* Where Redis before 7.2 exports its table, a pair found elsewhere is something else. */
static bool inside_exported_table(const struct search *search, uint64_t slot)
{
	struct elf_symbol table;

	if (elf_image_symbol(search->img, search->functions->table, STT_OBJECT, &table) || !table.size)
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
			return fail(search, -ENOTUNIQ, "found two different tables of %s (write slots at 0x%llx and 0x%llx)",
				    search->functions->name[SITE_WRITE], (unsigned long long)first_slot,
				    (unsigned long long)pointers[i].slot);
		if (!first_slot)
			first_slot = pointers[i].slot;
		*out = found;
	}
	return first_slot ? 0 : -ENOENT;
}

static const char *callee_of(const struct search *search, enum site_kind kind)
{
	return callee_name(search->functions->calls[kind]);
}

static int find_by_table(const struct search *search, struct answer *out)
{
	const struct elf_pointer *pointers;
	size_t count = elf_image_pointers(search->img, &pointers);
	int ret;

	if (!elf_image_functions(search->img))
		return fail(search, -ENOENT,
			    "the binary has no usable symbols and no usable .eh_frame: cannot tell functions apart");
	if (!count)
		return fail(search, -ENOENT,
			    "the binary has no usable symbols, and its relocations hold no pointers to code");
	ret = find_tables(search, true, out);
	/* Redis 6 has no writev. */
	if (ret == -ENOENT)
		ret = find_tables(search, false, out);
	if (ret == -ENOENT)
		return fail(
			search, ret,
			"the binary has no usable symbols, and none of its %zu code pointers begins a table of functions that "
			"call %s, [%s,] %s next to one that calls %s (%zu functions call any of these)",
			count, callee_of(search, SITE_WRITE), callee_of(search, SITE_WRITEV), callee_of(search, SITE_READ),
			callee_of(search, SITE_CLOSE), callees_count_callers(search->callees));
	return ret;
}

/* ---- where the fd is ---- */

/*
 * Offset of the fd in struct connection as the function's call to its callee takes it,
 * -1 when the code does not say so plainly.
 */
static int decode_fd_offset(const struct search *search, uint64_t func, enum site_kind kind)
{
	struct walk walk = begin_walk(search->isa);
	uint64_t start, end;
	const uint8_t *code;

	if (elf_image_function(search->img, func, &start, &end))
		return -1;
	code = elf_image_at(search->img, start, end - start);
	for (uint64_t at = 0; code && at < end - start;) {
		uint64_t target;
		struct insn in;
		bool indirect;

		if (search->isa->decode(code + at, end - start - at, &in))
			return -1;
		if (search->isa->branch(code + at, end - start - at, start + at, &target, &indirect) &&
		    callees_target(search->callees, target, indirect) == search->functions->calls[kind])
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

		for (uint64_t at = 0; code && at < text[i].size; at += search->isa->align) {
			uint64_t target;
			bool indirect;

			if (search->isa->branch(code + at, text[i].size - at, text[i].vaddr + at, &target, &indirect) &&
			    !indirect && target > func && target <= probe)
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

	if (!elf_image_in_text(search->img, func) || elf_image_function(search->img, func, &start, &end) || start != func)
		return fail(search, -ENOENT, "no function begins at 0x%llx, where %s should be", (unsigned long long)func,
			    search->functions->name[kind]);
	code = elf_image_at(search->img, start, end - start);
	if (!code || elf_image_offset(search->img, func, &site->func_offset))
		return fail(search, -ENOENT, "the function at 0x%llx, which should be %s, is not in the file",
			    (unsigned long long)func, search->functions->name[kind]);
	ret = insn_choose_probe(search->isa, code, end - start, &probe);
	if (ret)
		return fail(search, ret, "cannot decode the first instruction of %s at 0x%llx",
			    search->functions->name[kind], (unsigned long long)func);
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

		if (!answer->func[kind] || !search->functions->name[kind])
			continue;
		for (int other = 0; other < kind; other++)
			if (answer->func[other] == answer->func[kind])
				return fail(search, -ENOTUNIQ, "%s and %s are the same function",
					    search->functions->name[other], search->functions->name[kind]);
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
	*found_by = "table";
	return find_by_table(search, answer);
}

int sites_find(struct elf_image *img, enum conn_type type, struct conn_sites *out, char *why, size_t why_size)
{
	struct search search = {
		.img = img, .isa = elf_image_isa(img), .functions = &functions[type], .why = why, .why_size = why_size
	};
	struct answer answer = { 0 };
	int ret;

	memset(out, 0, sizeof(*out));
	out->fd_offset = -1;
	if (!search.isa)
		return fail(&search, -ENOTSUP, NO_ISA, elf_image_machine(img));
	search.callees = callees_find(img);
	if (!search.callees)
		return fail(&search, -ENOMEM, "out of memory while scanning the code");
	ret = find_functions(&search, &answer, &out->found_by);
	if (ret)
		goto cleanup;
	ret = place_sites(&search, &answer, out);
	if (ret)
		goto cleanup;
	if (type == CONN_SOCKET)
		out->fd_offset = find_fd_offset(&search, &answer);
	/* The symbols' failure is no news once the table answered. */
	if (why_size)
		why[0] = '\0';
cleanup:
	callees_free(search.callees);
	return ret;
}

int sites_place(struct elf_image *img, uint64_t func, const char *name, struct site *site, char *why, size_t why_size)
{
	const struct conn_functions named = { .name = { [0] = name } };
	const struct search search = {
		.img = img, .isa = elf_image_isa(img), .functions = &named, .why = why, .why_size = why_size
	};

	if (!search.isa)
		return fail(&search, -ENOTSUP, NO_ISA, elf_image_machine(img));
	return place_site(&search, func, 0, site);
}
