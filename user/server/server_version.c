/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include <elf.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>

#include "user/code/elf_image.h"
#include "user/server/server_version.h"
#include "user/code/insn.h"

/* A function that returns a constant is this long at most, frame pointer and all. */
#define RETURN_CONSTANT_MAX 24

/* The constant that a function returns which does nothing else, 0 when it is no such function. */
static uint32_t returned_constant(const struct elf_image *img, uint64_t vaddr)
{
	const struct isa *isa = elf_image_isa(img);
	uint64_t value = 0;
	uint64_t start, end;
	const uint8_t *code;
	size_t len;

	if (!isa || elf_image_function(img, vaddr, &start, &end) || start != vaddr || end - start > RETURN_CONSTANT_MAX)
		return 0;
	len = end - start;
	code = elf_image_at(img, start, len);
	for (size_t at = 0; code && at < len;) {
		struct insn in;

		if (isa->decode(code + at, len - at, &in))
			return 0;
		if (in.flow != INSN_NEXT)
			return in.returns ? (uint32_t)value : 0;
		if (in.effect == INSN_SETS && in.to == isa->result)
			value = (value & ~in.mask) | in.value;
		else if (in.writes & 1U << isa->result)
			return 0;
		at += in.len;
	}
	return 0;
}

/*
 * The module API reports the server's own version, 0x00090102 for 9.1.2 (valkey 9.1.2
 * src/module.c VM_GetServerVersion, Redis since 6.0.9 RM_GetServerVersion), and
 * -rdynamic keeps its name in a stripped binary. Strings alone would not do: a server
 * contains dozens of version numbers, one for each command's "since".
 */
static uint32_t version_number(const struct elf_image *img)
{
	static const char *const function[] = { "VM_GetServerVersion", "RM_GetServerVersion" };
	struct elf_symbol sym;

	for (size_t i = 0; i < 2; i++)
		if (!elf_image_symbol(img, function[i], STT_FUNC, &sym))
			return returned_constant(img, sym.vaddr);
	return 0;
}

/*
 * The templates of INFO (src/server.c genValkeyInfoString). redis-cli and
 * redis-benchmark know some field names too, but not with their formats.
 */
static bool has_info_template(const struct elf_image *img)
{
	return elf_image_has_string(img, "redis_version:%s") && elf_image_has_string(img, "used_memory_peak_human:%s");
}

int identify_server(struct elf_image *img, char *name_version, size_t size)
{
	struct elf_symbol sym;
	const char *name;
	char literal[16];
	uint32_t version;

	if (size)
		name_version[0] = '\0';
	if (!has_info_template(img))
		return -ENOENT;
	/* Exported by every dynamically linked server; a C++ fork exports a mangled name. */
	if (elf_image_is_dynamic(img) && elf_image_symbol(img, "processCommand", STT_FUNC, &sym))
		return -ENOENT;
	name = elf_image_has_string(img, "valkey_version:%s") ? "valkey" : "redis";
	version = version_number(img);
	snprintf(literal, sizeof(literal), "%u.%u.%u", version >> 16 & 0xff, version >> 8 & 0xff, version & 0xff);
	/* The same number must be there in words, as INFO and --version print it. */
	if (version && !(version >> 24) && elf_image_has_string(img, literal))
		snprintf(name_version, size, "%s %s", name, literal);
	else
		snprintf(name_version, size, "%s", name);
	return 0;
}
