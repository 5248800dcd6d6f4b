/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include <stdbool.h>
#include <string.h>

#include "user/code/eh_frame.h"

static uint32_t load32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint64_t load64(const uint8_t *p)
{
	return load32(p) | (uint64_t)load32(p + 4) << 32;
}

/* DWARF exception header encodings, LSB Core "DWARF Exception Header Encoding". */
#define EH_ABSPTR 0x00
#define EH_UDATA2 0x02
#define EH_UDATA4 0x03
#define EH_UDATA8 0x04
#define EH_SDATA2 0x0a
#define EH_SDATA4 0x0b
#define EH_SDATA8 0x0c
#define EH_PCREL 0x10

struct eh_reader {
	const uint8_t *data; /* the section */
	uint64_t size;
	uint64_t vaddr;
	uint64_t cie;     /* offset of the CIE read last; UINT64_MAX: none */
	uint8_t encoding; /* of its FDEs' addresses */
	bool usable;
};

static unsigned int encoded_size(uint8_t encoding)
{
	switch (encoding & 0x0f) {
	case EH_UDATA2:
	case EH_SDATA2:
		return 2;
	case EH_UDATA4:
	case EH_SDATA4:
		return 4;
	case EH_ABSPTR:
	case EH_UDATA8:
	case EH_SDATA8:
		return 8;
	default:
		return 0;
	}
}

static uint64_t encoded_value(const uint8_t *p, uint8_t encoding)
{
	switch (encoding & 0x0f) {
	case EH_UDATA2:
		return (uint64_t)p[0] | (uint64_t)p[1] << 8;
	case EH_SDATA2:
		return (uint64_t)(int64_t)(int16_t)(p[0] | p[1] << 8);
	case EH_UDATA4:
		return load32(p);
	case EH_SDATA4:
		return (uint64_t)(int64_t)(int32_t)load32(p);
	default:
		return load64(p);
	}
}

static bool skip_leb128(const uint8_t *data, uint64_t end, uint64_t *at)
{
	while (*at < end)
		if (!(data[(*at)++] & 0x80))
			return true;
	return false;
}

/* Walks the augmentation data of a "z..." CIE up to 'R', the encoding of FDE addresses. */
static bool find_fde_encoding(struct eh_reader *eh, const char *augmentation, uint64_t at, uint64_t end)
{
	for (const char *a = augmentation + 1; *a; a++) {
		unsigned int size;

		if (at >= end)
			return false;
		switch (*a) {
		case 'R':
			eh->encoding = eh->data[at];
			return true;
		case 'L':
			at++;
			break;
		case 'P':
			size = encoded_size(eh->data[at]);
			if (!size)
				return false;
			at += 1 + size;
			break;
		case 'S':
		case 'B':
			break;
		default:
			return false;
		}
	}
	return true;
}

/* Body of a CIE after its id: version, augmentation, alignments, return register, ... */
static bool parse_cie(struct eh_reader *eh, uint64_t at, uint64_t end)
{
	const char *augmentation;
	uint8_t version;

	if (at >= end)
		return false;
	version = eh->data[at++];
	augmentation = (const char *)eh->data + at;
	if ((version != 1 && version != 3) || !memchr(augmentation, 0, end - at))
		return false;
	at += strlen(augmentation) + 1;
	/* NOLINTNEXTLINE(misc-redundant-expression): each call skips one */
	if (!skip_leb128(eh->data, end, &at) || !skip_leb128(eh->data, end, &at))
		return false;
	if (version == 1)
		at++;
	else if (!skip_leb128(eh->data, end, &at))
		return false;
	eh->encoding = EH_ABSPTR;
	if (!*augmentation)
		return true;
	if (*augmentation != 'z' || !skip_leb128(eh->data, end, &at))
		return false;
	return find_fde_encoding(eh, augmentation, at, end);
}

static bool record_end(const struct eh_reader *eh, uint64_t at, uint64_t *end)
{
	uint32_t length;

	if (eh->size - at < 8)
		return false;
	length = load32(eh->data + at);
	/* All ones announces a 64-bit length: no linker writes it for a program this size. */
	if (length == UINT32_MAX || length < 4 || length > eh->size - at - 4)
		return false;
	*end = at + 4 + length;
	return true;
}

/* Reads the CIE at offset at unless it is the one read last (it is, nearly always). */
static bool use_cie(struct eh_reader *eh, uint64_t at)
{
	uint64_t end;

	if (at == eh->cie)
		return eh->usable;
	eh->cie = at;
	eh->usable = record_end(eh, at, &end) && !load32(eh->data + at + 4) && parse_cie(eh, at + 8, end);
	return eh->usable;
}

/* An FDE whose address field is at offset at. Returns false when it is not understood. */
static bool parse_fde(const struct eh_reader *eh, uint64_t at, uint64_t end, struct eh_function *out)
{
	unsigned int size = encoded_size(eh->encoding);
	uint8_t base = eh->encoding & 0xf0;

	if (!size || (base && base != EH_PCREL) || end - at < 2 * size)
		return false;
	out->start = encoded_value(eh->data + at, eh->encoding);
	if (base == EH_PCREL)
		out->start += eh->vaddr + at;
	/* The range is a length: the same width, never relative, never negative. */
	out->end = out->start + encoded_value(eh->data + at + size, eh->encoding & 0x07);
	return out->end > out->start;
}

size_t eh_frame_read(const uint8_t *data, uint64_t size, uint64_t vaddr, struct eh_function *out)
{
	struct eh_reader eh = { .data = data, .size = size, .vaddr = vaddr, .cie = UINT64_MAX };
	size_t count = 0;
	uint64_t end;

	for (uint64_t at = 0; eh.size - at >= 4; at = end) {
		uint32_t id;

		/* A zero length ends the table; a linker may leave one between two inputs. */
		end = at + 4;
		if (!load32(eh.data + at))
			continue;
		if (!record_end(&eh, at, &end))
			break;
		id = load32(eh.data + at + 4);
		if (!id || id > at + 4 || !use_cie(&eh, at + 4 - id))
			continue;
		if (parse_fde(&eh, at + 8, end, &out[count]))
			count++;
	}
	return count;
}
