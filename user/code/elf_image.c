/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * libelf reads the headers; the contents of sections are read here, each access
 * bounds-checked, because the file belongs to whoever runs the observed process.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memmem */
#endif
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <gelf.h>
#include <libelf.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "user/code/eh_frame.h"
#include "user/code/elf_image.h"
#include "user/code/insn.h"

/* A server with full debug information is tens of MiB. */
#define MAX_FILE (1024ULL << 20)
/* A server has some ten thousand; packed relocations could claim 8 per byte of file. */
#define MAX_POINTERS (4UL << 20)

#ifndef SHT_RELR
#define SHT_RELR 19
#endif

#define SEGMENTS_MAX 64
#define PLT_MAX 8
#define TEXT_MAX 32

/* Relocation types by machine, from the x86-64 and AArch64 psABI. */
struct reloc_types {
	uint32_t relative;
	uint32_t absolute; /* symbol + addend, 64 bits */
	uint32_t glob_dat;
	uint32_t jump_slot;
};

static const struct reloc_types x86_64_relocs = {
	R_X86_64_RELATIVE,
	R_X86_64_64,
	R_X86_64_GLOB_DAT,
	R_X86_64_JUMP_SLOT,
};
static const struct reloc_types aarch64_relocs = {
	R_AARCH64_RELATIVE,
	R_AARCH64_ABS64,
	R_AARCH64_GLOB_DAT,
	R_AARCH64_JUMP_SLOT,
};

struct section {
	const char *name;
	uint32_t type;
	uint32_t link;
	uint64_t flags;
	uint64_t vaddr;
	uint64_t offset; /* and size: 0 for a section without bytes in the file */
	uint64_t size;
	uint32_t name_index;
};

struct elf_image {
	uint8_t *data;
	uint64_t size;
	uint16_t machine;
	uint16_t type;
	const struct reloc_types *relocs;
	struct section *section;
	size_t sections;
	GElf_Phdr *phdr;
	size_t phdrs;
	struct eh_function *function;
	size_t functions;
	struct elf_pointer *pointer;
	size_t pointers;
	struct elf_range text[TEXT_MAX];
	size_t texts;
	struct elf_range plt[PLT_MAX];
	size_t plts;
};

static int fail(int err, char *why, size_t size, const char *format, ...) __attribute__((format(printf, 4, 5)));

static int fail(int err, char *why, size_t size, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(why, size, format, args);
	va_end(args);
	return err;
}

static uint32_t load32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint64_t load64(const uint8_t *p)
{
	return load32(p) | (uint64_t)load32(p + 4) << 32;
}

/* ---- bytes and addresses ---- */

const uint8_t *elf_image_bytes(const struct elf_image *img, uint64_t offset, uint64_t len)
{
	if (offset > img->size || len > img->size - offset)
		return NULL;
	return img->data + offset;
}

int elf_image_offset(const struct elf_image *img, uint64_t vaddr, uint64_t *offset)
{
	for (size_t i = 0; i < img->phdrs; i++) {
		const GElf_Phdr *ph = &img->phdr[i];

		if (vaddr < ph->p_vaddr || vaddr - ph->p_vaddr >= ph->p_filesz)
			continue;
		*offset = ph->p_offset + (vaddr - ph->p_vaddr);
		return 0;
	}
	return -ENOENT;
}

int elf_image_vaddr(const struct elf_image *img, uint64_t offset, uint64_t *vaddr)
{
	for (size_t i = 0; i < img->phdrs; i++) {
		const GElf_Phdr *ph = &img->phdr[i];

		if (offset < ph->p_offset || offset - ph->p_offset >= ph->p_filesz)
			continue;
		*vaddr = ph->p_vaddr + (offset - ph->p_offset);
		return 0;
	}
	return -ENOENT;
}

const uint8_t *elf_image_at(const struct elf_image *img, uint64_t vaddr, uint64_t len)
{
	for (size_t i = 0; i < img->phdrs; i++) {
		const GElf_Phdr *ph = &img->phdr[i];
		uint64_t into = vaddr - ph->p_vaddr;

		if (vaddr < ph->p_vaddr || into >= ph->p_filesz)
			continue;
		if (len > ph->p_filesz - into)
			return NULL;
		return elf_image_bytes(img, ph->p_offset + into, len);
	}
	return NULL;
}

bool elf_image_in_text(const struct elf_image *img, uint64_t vaddr)
{
	for (size_t i = 0; i < img->texts; i++)
		if (vaddr >= img->text[i].vaddr && vaddr - img->text[i].vaddr < img->text[i].size)
			return true;
	return false;
}

size_t elf_image_text(const struct elf_image *img, const struct elf_range **ranges)
{
	*ranges = img->text;
	return img->texts;
}

uint16_t elf_image_machine(const struct elf_image *img)
{
	return img->machine;
}

const struct isa *elf_image_isa(const struct elf_image *img)
{
	return isa_of(img->machine);
}

/* ---- headers ---- */

static int read_all(int fd, struct elf_image *img)
{
	uint64_t done = 0;

	while (done < img->size) {
		ssize_t n = read(fd, img->data + done, img->size - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			return -ENOEXEC;
		done += (uint64_t)n;
	}
	return 0;
}

static int read_file(struct elf_image *img, const char *path, char *why, size_t why_size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	int ret;

	if (fd < 0)
		return fail(-errno, why, why_size, "cannot open %s: %s", path, strerror(errno));
	if (fstat(fd, &st)) {
		ret = fail(-errno, why, why_size, "cannot stat %s: %s", path, strerror(errno));
		goto cleanup;
	}
	if (!S_ISREG(st.st_mode) || st.st_size <= 0) {
		ret = fail(-ENOEXEC, why, why_size, "%s is empty or not a regular file", path);
		goto cleanup;
	}
	if ((uint64_t)st.st_size > MAX_FILE) {
		ret = fail(-EFBIG, why, why_size, "%s is larger than %llu bytes", path, MAX_FILE);
		goto cleanup;
	}
	img->size = (uint64_t)st.st_size;
	img->data = malloc(img->size);
	ret = img->data ? read_all(fd, img) : -ENOMEM;
	if (ret)
		fail(ret, why, why_size, "cannot read %s: %s", path, strerror(-ret));
cleanup:
	close(fd);
	return ret;
}

static int load_header(struct elf_image *img, Elf *elf)
{
	GElf_Ehdr eh;

	if (elf_kind(elf) != ELF_K_ELF || gelf_getclass(elf) != ELFCLASS64 || !gelf_getehdr(elf, &eh))
		return -ENOEXEC;
	if (eh.e_ident[EI_DATA] != ELFDATA2LSB || (eh.e_type != ET_EXEC && eh.e_type != ET_DYN))
		return -ENOEXEC;
	img->machine = eh.e_machine;
	img->type = eh.e_type;
	img->relocs = eh.e_machine == EM_AARCH64 ? &aarch64_relocs : &x86_64_relocs;
	return 0;
}

/* Keeps the PT_LOAD headers whose file part is really in the file. */
static int load_segments(struct elf_image *img, Elf *elf)
{
	size_t count;

	if (elf_getphdrnum(elf, &count) || !count || count > img->size / sizeof(Elf64_Phdr))
		return -ENOEXEC;
	img->phdr = calloc(SEGMENTS_MAX, sizeof(*img->phdr));
	if (!img->phdr)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		GElf_Phdr ph;

		if (!gelf_getphdr(elf, (int)i, &ph))
			return -ENOEXEC;
		if (ph.p_type != PT_LOAD || !elf_image_bytes(img, ph.p_offset, ph.p_filesz))
			continue;
		if (ph.p_vaddr + ph.p_filesz < ph.p_vaddr || img->phdrs == SEGMENTS_MAX)
			return -ENOEXEC;
		img->phdr[img->phdrs++] = ph;
	}
	return img->phdrs ? 0 : -ENOEXEC;
}

/* The string at index of a string table, or "" when it is not inside. */
static const char *table_string(const struct elf_image *img, uint32_t table, uint64_t index)
{
	const struct section *s;
	const char *text;

	if (table >= img->sections)
		return "";
	s = &img->section[table];
	text = (const char *)img->data + s->offset;
	if (index >= s->size || text[s->size - 1])
		return "";
	return text + index;
}

static int load_section(struct elf_image *img, Elf *elf, size_t index, uint64_t *total)
{
	struct section *s = &img->section[index];
	GElf_Shdr sh;

	if (!gelf_getshdr(elf_getscn(elf, index), &sh))
		return -ENOEXEC;
	*s = (struct section){
		.type = sh.sh_type, .link = sh.sh_link, .flags = sh.sh_flags, .vaddr = sh.sh_addr, .name_index = sh.sh_name
	};
	if (sh.sh_type == SHT_NOBITS || sh.sh_type == SHT_NULL)
		return 0;
	if (!elf_image_bytes(img, sh.sh_offset, sh.sh_size))
		return 0;
	s->offset = sh.sh_offset;
	s->size = sh.sh_size;
	/* Sections do not overlap in honest files; so no reader's work exceeds the file's size. */
	*total += s->size;
	return *total <= img->size ? 0 : -ENOEXEC;
}

static int load_sections(struct elf_image *img, Elf *elf)
{
	uint64_t total = 0;
	size_t count, names;
	int ret;

	if (elf_getshdrnum(elf, &count) || !count || count > img->size / sizeof(Elf64_Shdr))
		return -ENOEXEC;
	if (elf_getshdrstrndx(elf, &names) || names >= count)
		return -ENOEXEC;
	img->section = calloc(count, sizeof(*img->section));
	if (!img->section)
		return -ENOMEM;
	img->sections = count;
	for (size_t i = 0; i < count; i++) {
		ret = load_section(img, elf, i, &total);
		if (ret)
			return ret;
	}
	for (size_t i = 0; i < count; i++)
		img->section[i].name = table_string(img, (uint32_t)names, img->section[i].name_index);
	return 0;
}

/* Is the whole section mapped where it says, from the bytes it says? */
static bool section_mapped(const struct elf_image *img, const struct section *s)
{
	return s->size && elf_image_at(img, s->vaddr, s->size) == img->data + s->offset;
}

static void add_range(struct elf_range *ranges, size_t max, size_t *count, const struct section *s)
{
	if (*count < max)
		ranges[(*count)++] = (struct elf_range){ s->vaddr, s->offset, s->size };
}

static void load_code(struct elf_image *img)
{
	for (size_t i = 0; i < img->sections; i++) {
		const struct section *s = &img->section[i];

		if (!(s->flags & SHF_EXECINSTR) || !section_mapped(img, s))
			continue;
		if (!strncmp(s->name, ".text", 5))
			add_range(img->text, TEXT_MAX, &img->texts, s);
		else if (!strncmp(s->name, ".plt", 4))
			add_range(img->plt, PLT_MAX, &img->plts, s);
	}
}

/* ---- symbols ---- */

static int each_symbol_of(const struct elf_image *img, const struct section *table,
			  int (*fn)(const struct elf_symbol *sym, void *ctx), void *ctx)
{
	for (uint64_t at = 0; table->size - at >= sizeof(Elf64_Sym); at += sizeof(Elf64_Sym)) {
		struct elf_symbol out;
		Elf64_Sym sym;
		int ret;

		memcpy(&sym, img->data + table->offset + at, sizeof(sym));
		if (sym.st_shndx == SHN_UNDEF || sym.st_shndx == SHN_ABS || !sym.st_value)
			continue;
		out = (struct elf_symbol){ .name = table_string(img, table->link, sym.st_name),
					   .vaddr = sym.st_value,
					   .size = sym.st_size,
					   .type = ELF64_ST_TYPE(sym.st_info) };
		ret = fn(&out, ctx);
		if (ret)
			return ret;
	}
	return 0;
}

int elf_image_each_symbol(const struct elf_image *img, int (*fn)(const struct elf_symbol *sym, void *ctx), void *ctx)
{
	static const uint32_t order[] = { SHT_SYMTAB, SHT_DYNSYM };

	for (size_t pass = 0; pass < 2; pass++) {
		for (size_t i = 0; i < img->sections; i++) {
			int ret;

			if (img->section[i].type != order[pass])
				continue;
			ret = each_symbol_of(img, &img->section[i], fn, ctx);
			if (ret)
				return ret;
		}
	}
	return 0;
}

struct symbol_query {
	const char *name;
	unsigned char type;
	struct elf_symbol *out;
};

static int match_symbol(const struct elf_symbol *sym, void *ctx)
{
	const struct symbol_query *query = ctx;

	if (sym->type != query->type || strcmp(sym->name, query->name))
		return 0;
	*query->out = *sym;
	return 1;
}

int elf_image_symbol(const struct elf_image *img, const char *name, unsigned char type, struct elf_symbol *out)
{
	struct symbol_query query = { .name = name, .type = type, .out = out };

	return elf_image_each_symbol(img, match_symbol, &query) ? 0 : -ENOENT;
}

bool elf_image_is_dynamic(const struct elf_image *img)
{
	for (size_t i = 0; i < img->sections; i++)
		if (img->section[i].type == SHT_DYNSYM && img->section[i].size)
			return true;
	return false;
}

/* ---- relocations ---- */

/* The symbol a relocation of section rela refers to. */
static bool reloc_symbol(const struct elf_image *img, const struct section *rela, uint64_t info, Elf64_Sym *sym,
			 const char **name)
{
	uint64_t index = ELF64_R_SYM(info);
	const struct section *table;

	if (rela->link >= img->sections)
		return false;
	table = &img->section[rela->link];
	if (index >= table->size / sizeof(*sym))
		return false;
	memcpy(sym, img->data + table->offset + index * sizeof(*sym), sizeof(*sym));
	*name = table_string(img, table->link, sym->st_name);
	return true;
}

static bool is_rela(const struct section *s)
{
	return s->type == SHT_RELA && (s->flags & SHF_ALLOC);
}

static int add_pointer(struct elf_image *img, uint64_t slot, uint64_t value)
{
	if (!elf_image_in_text(img, value))
		return 0;
	if (img->pointers == MAX_POINTERS)
		return -ENOEXEC;
	/* Grows by doubling: at each power of two. */
	if (!(img->pointers & (img->pointers - 1))) {
		size_t room = img->pointers ? 2 * img->pointers : 1;
		struct elf_pointer *grown = realloc(img->pointer, room * sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		img->pointer = grown;
	}
	img->pointer[img->pointers++] = (struct elf_pointer){ slot, value };
	return 0;
}

static int load_rela(struct elf_image *img, const struct section *s)
{
	for (uint64_t at = 0; s->size - at >= sizeof(Elf64_Rela); at += sizeof(Elf64_Rela)) {
		const char *name;
		Elf64_Rela rela;
		Elf64_Sym sym;
		uint32_t type;
		int ret = 0;

		memcpy(&rela, img->data + s->offset + at, sizeof(rela));
		type = (uint32_t)ELF64_R_TYPE(rela.r_info);
		if (type == img->relocs->relative)
			ret = add_pointer(img, rela.r_offset, (uint64_t)rela.r_addend);
		else if (type == img->relocs->absolute && reloc_symbol(img, s, rela.r_info, &sym, &name) && sym.st_value)
			ret = add_pointer(img, rela.r_offset, sym.st_value + (uint64_t)rela.r_addend);
		if (ret)
			return ret;
	}
	return 0;
}

/* A RELR relocation keeps its addend in the word itself. */
static int add_relr(struct elf_image *img, uint64_t slot)
{
	const uint8_t *word = elf_image_at(img, slot, 8);

	return word ? add_pointer(img, slot, load64(word)) : 0;
}

/*
 * Packed relative relocations (generic ABI, SHT_RELR): an even entry is an address to
 * relocate; an odd one is a bitmap of which of the 63 words after the last follow.
 */
static int load_relr(struct elf_image *img, const struct section *s)
{
	uint64_t where = 0;

	for (uint64_t at = 0; s->size - at >= 8; at += 8) {
		uint64_t entry = load64(img->data + s->offset + at);
		int ret = 0;

		if (!(entry & 1)) {
			ret = add_relr(img, entry);
			where = entry + 8;
		} else {
			for (unsigned int bit = 1; bit < 64 && !ret; bit++)
				if (entry >> bit & 1)
					ret = add_relr(img, where + 8 * (bit - 1));
			where += 63 * 8;
		}
		if (ret)
			return ret;
	}
	return 0;
}

/* Not position-independent: the linker wrote final addresses, and nothing marks them. */
static int load_plain(struct elf_image *img, const struct section *s)
{
	uint64_t skew = -s->vaddr & 7;

	for (uint64_t at = skew; at < s->size && s->size - at >= 8; at += 8) {
		int ret = add_pointer(img, s->vaddr + at, load64(img->data + s->offset + at));

		if (ret)
			return ret;
	}
	return 0;
}

static int compare_slots(const void *left, const void *right)
{
	const struct elf_pointer *a = left, *b = right;

	return a->slot < b->slot ? -1 : a->slot > b->slot;
}

static int load_pointers(struct elf_image *img)
{
	for (size_t i = 0; i < img->sections; i++) {
		const struct section *s = &img->section[i];
		int ret = 0;

		if (is_rela(s))
			ret = load_rela(img, s);
		else if (s->type == SHT_RELR)
			ret = load_relr(img, s);
		else if (img->type == ET_EXEC && s->type == SHT_PROGBITS &&
			 (s->flags & (SHF_ALLOC | SHF_EXECINSTR)) == SHF_ALLOC)
			ret = load_plain(img, s);
		if (ret)
			return ret;
	}
	if (img->pointers)
		qsort(img->pointer, img->pointers, sizeof(*img->pointer), compare_slots);
	return 0;
}

size_t elf_image_pointers(const struct elf_image *img, const struct elf_pointer **pointers)
{
	*pointers = img->pointer;
	return img->pointers;
}

uint64_t elf_image_pointer_at(const struct elf_image *img, uint64_t slot)
{
	const struct elf_pointer key = { .slot = slot }, *found = NULL;

	if (img->pointers)
		found = bsearch(&key, img->pointer, img->pointers, sizeof(key), compare_slots);
	return found ? found->value : 0;
}

/* ---- imports ---- */

static void add_once(uint64_t *list, size_t *count, uint64_t value)
{
	for (size_t i = 0; i < *count; i++)
		if (list[i] == value)
			return;
	if (*count < ELF_IMPORT_MAX)
		list[(*count)++] = value;
}

static void find_slots(const struct elf_image *img, const struct section *s, const char *name, struct elf_import *out)
{
	for (uint64_t at = 0; s->size - at >= sizeof(Elf64_Rela); at += sizeof(Elf64_Rela)) {
		const char *symbol;
		Elf64_Rela rela;
		Elf64_Sym sym;
		uint32_t type;

		memcpy(&rela, img->data + s->offset + at, sizeof(rela));
		type = (uint32_t)ELF64_R_TYPE(rela.r_info);
		if (type != img->relocs->jump_slot && type != img->relocs->glob_dat)
			continue;
		if (reloc_symbol(img, s, rela.r_info, &sym, &symbol) && !strcmp(symbol, name))
			add_once(out->slot, &out->slots, rela.r_offset);
	}
}

static void find_stubs(const struct elf_image *img, const struct elf_range *plt, struct elf_import *out)
{
	const struct isa *isa = elf_image_isa(img);

	for (uint64_t at = 0; at < plt->size; at += isa->stub_align) {
		uint64_t slot;

		if (!isa->stub_slot(img->data + plt->offset + at, plt->size - at, plt->vaddr + at, &slot))
			continue;
		for (size_t i = 0; i < out->slots; i++)
			if (out->slot[i] == slot)
				add_once(out->stub, &out->stubs, plt->vaddr + at);
	}
}

int elf_image_import(const struct elf_image *img, const char *name, struct elf_import *out)
{
	struct elf_symbol sym;

	memset(out, 0, sizeof(*out));
	for (size_t i = 0; i < img->sections; i++)
		if (is_rela(&img->section[i]))
			find_slots(img, &img->section[i], name, out);
	if (elf_image_isa(img))
		for (size_t i = 0; i < img->plts; i++)
			find_stubs(img, &img->plt[i], out);
	if (!elf_image_symbol(img, name, STT_FUNC, &sym) && elf_image_in_text(img, sym.vaddr))
		add_once(out->stub, &out->stubs, sym.vaddr);
	return out->stubs || out->slots ? 0 : -ENOENT;
}

/* ---- functions ---- */

static int compare_functions(const void *left, const void *right)
{
	const struct eh_function *a = left, *b = right;

	if (a->start != b->start)
		return a->start < b->start ? -1 : 1;
	return a->end < b->end ? -1 : a->end > b->end;
}

/* Keeps those in the code sections, in order. */
static void load_eh_frame(struct elf_image *img, const struct section *s)
{
	size_t count = eh_frame_read(img->data + s->offset, s->size, s->vaddr, img->function);

	for (size_t i = 0; i < count; i++)
		if (elf_image_in_text(img, img->function[i].start))
			img->function[img->functions++] = img->function[i];
	qsort(img->function, img->functions, sizeof(*img->function), compare_functions);
}

static int load_functions(struct elf_image *img)
{
	for (size_t i = 0; i < img->sections; i++) {
		const struct section *s = &img->section[i];

		if (strcmp(s->name, ".eh_frame") || !section_mapped(img, s))
			continue;
		img->function = calloc(EH_FUNCTIONS_MAX(s->size), sizeof(*img->function));
		if (!img->function)
			return -ENOMEM;
		load_eh_frame(img, s);
		return 0;
	}
	return 0;
}

int elf_image_function(const struct elf_image *img, uint64_t vaddr, uint64_t *start, uint64_t *end)
{
	size_t low = 0, high = img->functions;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (img->function[middle].start <= vaddr)
			low = middle + 1;
		else
			high = middle;
	}
	if (!low || vaddr >= img->function[low - 1].end)
		return -ENOENT;
	*start = img->function[low - 1].start;
	*end = img->function[low - 1].end;
	return 0;
}

size_t elf_image_functions(const struct elf_image *img)
{
	return img->functions;
}

/* ---- the rest ---- */

static bool note_build_id(const uint8_t *data, uint64_t size, const uint8_t **id, uint32_t *id_size)
{
	while (size >= sizeof(Elf64_Nhdr)) {
		uint64_t name = load32(data), desc = load32(data + 4);
		uint64_t name_end = sizeof(Elf64_Nhdr) + ((name + 3) & ~3ULL);
		uint64_t end = name_end + ((desc + 3) & ~3ULL);

		if (end > size)
			return false;
		if (load32(data + 8) == NT_GNU_BUILD_ID && name == 4 && !memcmp(data + sizeof(Elf64_Nhdr), "GNU", 4)) {
			*id = data + name_end;
			*id_size = (uint32_t)desc;
			return true;
		}
		data += end;
		size -= end;
	}
	return false;
}

int elf_image_build_id(const struct elf_image *img, char hex[ELF_BUILD_ID_HEX])
{
	hex[0] = '\0';
	for (size_t i = 0; i < img->sections; i++) {
		const struct section *s = &img->section[i];
		uint32_t size;
		const uint8_t *id;

		if (s->type != SHT_NOTE || !note_build_id(img->data + s->offset, s->size, &id, &size))
			continue;
		if (!size || size > (ELF_BUILD_ID_HEX - 1) / 2)
			return -ENOENT;
		for (uint32_t byte = 0; byte < size; byte++)
			snprintf(hex + 2 * byte, 3, "%02x", id[byte]);
		return 0;
	}
	return -ENOENT;
}

bool elf_image_has_string(const struct elf_image *img, const char *text)
{
	for (size_t i = 0; i < img->sections; i++) {
		const struct section *s = &img->section[i];

		if (s->type != SHT_PROGBITS || (s->flags & (SHF_ALLOC | SHF_EXECINSTR)) != SHF_ALLOC)
			continue;
		if (s->size && memmem(img->data + s->offset, s->size, text, strlen(text)))
			return true;
	}
	return false;
}

static int load_image(struct elf_image *img)
{
	Elf *elf;
	int ret;

	if (elf_version(EV_CURRENT) == EV_NONE)
		return -ENOTSUP;
	elf = elf_memory((char *)img->data, img->size);
	if (!elf)
		return -ENOEXEC;
	ret = load_header(img, elf);
	if (!ret)
		ret = load_segments(img, elf);
	if (!ret)
		ret = load_sections(img, elf);
	elf_end(elf);
	if (ret)
		return ret;
	load_code(img);
	ret = load_functions(img);
	return ret ? ret : load_pointers(img);
}

int elf_image_open(const char *path, struct elf_image **out, char *why, size_t why_size)
{
	struct elf_image *img = calloc(1, sizeof(*img));
	int ret;

	if (!img)
		return fail(-ENOMEM, why, why_size, "%s: out of memory", path);
	ret = read_file(img, path, why, why_size);
	if (ret)
		goto cleanup;
	ret = load_image(img);
	if (ret) {
		fail(ret, why, why_size, "%s: %s", path,
		     ret == -ENOMEM ? "out of memory"
				    : "not a well-formed 64-bit little-endian ELF executable with section headers");
		goto cleanup;
	}
	*out = img;
	return 0;
cleanup:
	elf_image_close(img);
	return ret;
}

void elf_image_close(struct elf_image *img)
{
	if (!img)
		return;
	free(img->data);
	free(img->section);
	free(img->phdr);
	free(img->function);
	free(img->pointer);
	free(img);
}
