/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef REPLYLOG_USER_CODE_ELF_IMAGE_H
#define REPLYLOG_USER_CODE_ELF_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * An executable, read whole into memory and never trusted: every offset, size and
 * address in it is checked against the bytes there are. "vaddr" is an address as
 * the ELF file states it (before relocation), "offset" a position in the file.
 * 64-bit little-endian ET_EXEC and ET_DYN only. Pointers returned live as long as
 * the image. Nothing here is thread-safe except for reading.
 */
struct elf_image;
struct isa;

/* A defined symbol; name is valid as long as the image. */
struct elf_symbol {
	const char *name;
	uint64_t vaddr;
	uint64_t size;      /* bytes; 0 when not stated */
	unsigned char type; /* STT_FUNC, STT_OBJECT, ... */
};

/* A range of bytes of the file that is mapped at vaddr. */
struct elf_range {
	uint64_t vaddr;
	uint64_t offset;
	uint64_t size;
};

/* A word of data that holds an address of executable code once the program is loaded. */
struct elf_pointer {
	uint64_t slot;  /* vaddr of the word */
	uint64_t value; /* vaddr it points at */
};

#define ELF_IMPORT_MAX 8

/* The ways this image reaches a function of another object. */
struct elf_import {
	uint64_t stub[ELF_IMPORT_MAX]; /* vaddr of PLT stubs, or of the function itself when linked in */
	size_t stubs;
	uint64_t slot[ELF_IMPORT_MAX]; /* vaddr of the GOT words, for calls through them */
	size_t slots;
};

/* Hex digits of the longest build id accepted (64 bytes), and the terminator. */
#define ELF_BUILD_ID_HEX 129

/*
 * Reads the ELF at path, normally "/proc/<pid>/exe". On success *out is owned by
 * the caller, to be given to elf_image_close(). Returns 0 or a negative errno
 * (-ENOEXEC: not an ELF of a kind supported, or malformed; -EFBIG: too large), with
 * one line in why.
 */
int elf_image_open(const char *path, struct elf_image **out, char *why, size_t why_size);

/* Frees the image; NULL is fine. */
void elf_image_close(struct elf_image *img);

/* e_machine: EM_X86_64, EM_AARCH64, ... */
uint16_t elf_image_machine(const struct elf_image *img);

/* What knows its code; NULL when that is neither x86-64 nor arm64. */
const struct isa *elf_image_isa(const struct elf_image *img);

/* len bytes at a file offset, or NULL when they are not all in the file. */
const uint8_t *elf_image_bytes(const struct elf_image *img, uint64_t offset, uint64_t len);

/* len bytes at a vaddr, or NULL when they do not lie in the file part of one segment. */
const uint8_t *elf_image_at(const struct elf_image *img, uint64_t vaddr, uint64_t len);

/* Translates between vaddr and file offset. Return 0, or -ENOENT when not mapped from the file. */
int elf_image_offset(const struct elf_image *img, uint64_t vaddr, uint64_t *offset);
int elf_image_vaddr(const struct elf_image *img, uint64_t offset, uint64_t *vaddr);

/* True when vaddr lies in an executable section that is not the PLT (.text and its parts). */
bool elf_image_in_text(const struct elf_image *img, uint64_t vaddr);

/*
 * The executable sections that hold functions, ordered as in the file; the PLT is
 * not among them. Returns their number and sets *ranges.
 */
size_t elf_image_text(const struct elf_image *img, const struct elf_range **ranges);

/* The build id in lower-case hex. Returns 0, or -ENOENT ("" in hex) when there is none. */
int elf_image_build_id(const struct elf_image *img, char hex[ELF_BUILD_ID_HEX]);

/*
 * Calls fn for every defined symbol of .symtab, then of .dynsym, until fn returns
 * non-zero; returns that value, or 0. The same symbol may be seen twice.
 */
int elf_image_each_symbol(const struct elf_image *img, int (*fn)(const struct elf_symbol *sym, void *ctx), void *ctx);

/* The defined symbol of that exact name and type (STT_*). Returns 0 or -ENOENT. */
int elf_image_symbol(const struct elf_image *img, const char *name, unsigned char type, struct elf_symbol *out);

/* True when the image has a dynamic symbol table, that is, is not statically linked. */
bool elf_image_is_dynamic(const struct elf_image *img);

/*
 * Where calls to the library function name go: PLT stubs (.plt, .plt.sec,
 * .plt.got; with and without CET or BTI) and GOT words, and the function itself
 * when it is defined in this image (static linking). Returns 0, or -ENOENT when the
 * image does not use it.
 */
int elf_image_import(const struct elf_image *img, const char *name, struct elf_import *out);

/*
 * The bounds [*start, *end) of the .eh_frame entry that covers vaddr. A function
 * that the compiler split has an entry for each part. Returns 0 or -ENOENT.
 */
int elf_image_function(const struct elf_image *img, uint64_t vaddr, uint64_t *start, uint64_t *end);

/* Number of functions .eh_frame describes; 0 means there is no usable .eh_frame. */
size_t elf_image_functions(const struct elf_image *img);

/*
 * All words of data that point at code, ordered by slot: from RELATIVE (and packed
 * RELR) relocations, or in a binary that is not position-independent from the data
 * itself. Returns their number and sets *pointers.
 */
size_t elf_image_pointers(const struct elf_image *img, const struct elf_pointer **pointers);

/* What the word at vaddr slot points at, or 0 when it is not a pointer to code. */
uint64_t elf_image_pointer_at(const struct elf_image *img, uint64_t slot);

/* True when a read-only or data section contains the bytes of text (no terminator). */
bool elf_image_has_string(const struct elf_image *img, const char *text);

#endif
