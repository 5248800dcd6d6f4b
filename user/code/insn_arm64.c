/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A64 instructions: what they may change, and where they may lead. Encodings: Arm ARM (DDI 0487), C4.1 "A64 instruction
 * set encoding", whose order this follows. Exclusives, atomics, SVE, and what else compilers rarely emit at the
 * beginning of a function are refused.
 */
#include <elf.h>
#include <errno.h>
#include <string.h>

#include "user/code/insn.h"

#define BIT(n) (1U << (n))

/* Register 31 is the stack pointer or zero, as the instruction has it. */
#define SP 31
#define LINK 30

/* AAPCS64: what a call may change. */
#define CALL_CLOBBERS (0x3ffffU | BIT(LINK))

/* A stub's registers (AAPCS64: IP0 and IP1 are the linker's). */
#define IP0 16
#define IP1 17

static uint32_t load32(const uint8_t *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint32_t field(uint32_t word, unsigned int low, unsigned int bits)
{
	return word >> low & (BIT(bits) - 1);
}

static int64_t signed_field(uint32_t word, unsigned int low, unsigned int bits)
{
	return (int64_t)((uint64_t)field(word, low, bits) << (64 - bits)) >> (64 - bits);
}

static uint8_t rd(uint32_t word)
{
	return (uint8_t)field(word, 0, 5);
}

static uint8_t rn(uint32_t word)
{
	return (uint8_t)field(word, 5, 5);
}

/* Register 31 of these is zero: written to nowhere. */
static uint32_t write_or_zero(uint8_t reg)
{
	return reg == SP ? 0 : BIT(reg);
}

/* ---- data processing, immediate ---- */

/* add, sub, cmp, mov to or from sp. */
static bool decode_add_immediate(uint32_t word, struct insn *out)
{
	bool sets_flags = word & BIT(29);

	out->writes = sets_flags ? write_or_zero(rd(word)) : BIT(rd(word));
	/* subs wzr, wn, #imm12 */
	if ((word & 0xffc0001f) == 0x7100001f && rn(word) != SP) {
		out->effect = INSN_COMPARES32;
		out->from = rn(word);
		out->value = field(word, 10, 12);
	}
	return true;
}

/* movz and movk; movn is not asked for. */
static bool decode_move_wide(uint32_t word, struct insn *out)
{
	unsigned int opc = field(word, 29, 2), shift = 16 * field(word, 21, 2);

	out->writes = write_or_zero(rd(word));
	if (opc == 1 || (!(word & BIT(31)) && shift > 16))
		return false;
	if (opc) {
		out->effect = INSN_SETS;
		out->to = rd(word);
		out->value = (uint64_t)field(word, 5, 16) << shift;
		out->mask = opc == 2 ? UINT64_MAX : 0xffffULL << shift;
	}
	return true;
}

static bool decode_immediate(uint32_t word, struct insn *out)
{
	switch (field(word, 23, 3)) {
	case 0:
	case 1: /* adr, adrp */
	case 6:
	case 7: /* bit fields, extr */
		out->writes = write_or_zero(rd(word));
		return true;
	case 2:
		return decode_add_immediate(word, out);
	case 4: /* and, orr, eor; ands */
		out->writes = field(word, 29, 2) == 3 ? write_or_zero(rd(word)) : BIT(rd(word));
		return true;
	case 5:
		return decode_move_wide(word, out);
	default:
		return false;
	}
}

/* ---- branches and system ---- */

/* By CRm and op2. Those with numbers that have no meaning yet do nothing, but might one day. */
static bool decode_hint(uint32_t word, struct insn *out)
{
	switch (field(word, 5, 7)) {
	case 0:
	case 1:
	case 20:
	case 32:
	case 34:
	case 36:
	case 38: /* nop, yield, csdb, bti */
		return true;
	case 7:
	case 24 ... 31: /* xpaclri; paciasp, autiasp and their like: they sign or restore the return address */
		out->writes = BIT(LINK);
		return true;
	default:
		return false;
	}
}

static void branch_to(struct insn *out, enum insn_flow flow, int64_t words)
{
	out->flow = flow;
	out->has_target = true;
	out->target = 4 * words;
}

static void call(struct insn *out)
{
	out->flow = INSN_CALL;
	out->writes = CALL_CLOBBERS;
	out->writes_memory = true;
}

static bool decode_branch_register(uint32_t word, struct insn *out)
{
	switch (word & 0xfffffc1f) {
	case 0xd61f0000: /* br */
		out->flow = INSN_JMP;
		return true;
	case 0xd63f0000: /* blr */
		call(out);
		return true;
	case 0xd65f0000: /* ret */
		out->flow = INSN_STOP;
		out->returns = true;
		return true;
	default:
		/* retaa, retab */
		out->flow = INSN_STOP;
		out->returns = true;
		return (word & 0xfffffbff) == 0xd65f0bff;
	}
}

static bool decode_branch(uint32_t word, struct insn *out)
{
	if ((word & 0x7c000000) == 0x14000000) { /* b, bl */
		if (word & BIT(31))
			call(out);
		branch_to(out, word & BIT(31) ? INSN_CALL : INSN_JMP, signed_field(word, 0, 26));
		return true;
	}
	if ((word & 0x7e000000) == 0x34000000 || (word & 0xff000000) == 0x54000000) { /* cbz, cbnz; b.cond, bc.cond */
		branch_to(out, INSN_JCC, signed_field(word, 5, 19));
		return true;
	}
	if ((word & 0x7e000000) == 0x36000000) { /* tbz, tbnz */
		branch_to(out, INSN_JCC, signed_field(word, 5, 14));
		return true;
	}
	if ((word & 0xfffff01f) == 0xd503201f)
		return decode_hint(word, out);
	if ((word & 0xfff00000) == 0xd5300000) { /* mrs */
		out->writes = write_or_zero(rd(word));
		return true;
	}
	if ((word & 0xffe0001f) == 0xd4200000) { /* brk */
		out->flow = INSN_STOP;
		return true;
	}
	if ((word & 0xfffff01f) == 0xd503301f) /* dmb, dsb, isb */
		return true;
	return decode_branch_register(word, out);
}

/* ---- loads and stores ---- */

/* The base register moves before or after the access. */
static void write_back(uint32_t word, struct insn *out)
{
	out->writes |= BIT(rn(word));
}

/* ldp, stp, ldpsw, with general or vector registers. */
static bool decode_pair(uint32_t word, struct insn *out)
{
	bool load = word & BIT(22), vector = word & BIT(26);

	if (field(word, 30, 2) == 3)
		return false;
	if (!load)
		out->writes_memory = true;
	else if (!vector)
		out->writes = write_or_zero(rd(word)) | write_or_zero((uint8_t)field(word, 10, 5));
	if (word & BIT(23)) /* post- or pre-indexed */
		write_back(word, out);
	return true;
}

/* The access itself of ldr, str and their kind. */
static void access_register(uint32_t word, struct insn *out)
{
	unsigned int size = field(word, 30, 2), opc = field(word, 22, 2);
	bool vector = word & BIT(26);

	if (vector ? !(opc & 1) : !opc)
		out->writes_memory = true;
	else if (!vector && !(size == 3 && opc == 2)) /* that is prfm */
		out->writes |= write_or_zero(rd(word));
}

static bool decode_register(uint32_t word, struct insn *out)
{
	access_register(word, out);
	if (word & BIT(24)) { /* unsigned offset, in units of the size */
		if ((word & 0xffc00000) == 0xb9400000 && rn(word) != SP && rd(word) != SP) { /* ldr wt, [xn, #imm] */
			out->effect = INSN_LOADS32;
			out->to = rd(word);
			out->from = rn(word);
			out->disp = (int32_t)(4 * field(word, 10, 12));
		}
		return true;
	}
	if (word & BIT(21)) /* register offset; the others are atomics */
		return field(word, 10, 2) == 2;
	/* unscaled, post-indexed, unprivileged, pre-indexed */
	if (word & BIT(10))
		write_back(word, out);
	return field(word, 10, 2) != 2;
}

static bool decode_memory(uint32_t word, struct insn *out)
{
	switch (field(word, 27, 3)) {
	case 3: /* ldr of a literal, unless bit 24 */
		if (!(word & BIT(26)) && field(word, 30, 2) != 3)
			out->writes = write_or_zero(rd(word));
		return !(word & BIT(24));
	case 5:
		return decode_pair(word, out);
	case 7:
		return decode_register(word, out);
	default:
		return false;
	}
}

/* ---- data processing, register ---- */

static bool decode_data(uint32_t word, struct insn *out)
{
	unsigned int op = field(word, 24, 5);

	out->writes = write_or_zero(rd(word));
	if ((word & 0xffe0ffe0) == 0xaa0003e0 && rd(word) != SP) { /* orr xd, xzr, xm */
		out->effect = INSN_MOVES;
		out->to = rd(word);
		out->from = (uint8_t)field(word, 16, 5);
		if (out->from == SP)
			out->effect = INSN_OTHER;
	}
	/* add and sub of an extended register may be of sp, unless they set flags. */
	if (op == 0x0b && word & BIT(21) && !(word & BIT(29)))
		out->writes = BIT(rd(word));
	/* ccmp and ccmn write flags only: their low bits are these. */
	if (op == 0x1a && field(word, 21, 3) == 2)
		out->writes = 0;
	return op == 0x0a || op == 0x0b || op == 0x1b || (op == 0x1a && (field(word, 21, 3) % 2 == 0));
}

/* Some move to a general register; which ones is not looked at. */
static bool decode_vector(uint32_t word, struct insn *out)
{
	out->writes = write_or_zero(rd(word));
	return true;
}

static int decode(const uint8_t *code, size_t len, struct insn *out)
{
	uint32_t word;
	bool known;

	memset(out, 0, sizeof(*out));
	if (len < 4)
		return -EILSEQ;
	word = load32(code);
	out->len = 4;
	switch (field(word, 25, 4)) {
	case 8:
	case 9:
		known = decode_immediate(word, out);
		break;
	case 10:
	case 11:
		known = decode_branch(word, out);
		break;
	case 4:
	case 6:
	case 12:
	case 14:
		known = decode_memory(word, out);
		break;
	case 5:
	case 13:
		known = decode_data(word, out);
		break;
	case 7:
	case 15:
		known = decode_vector(word, out);
		break;
	default:
		known = false;
	}
	return known ? 0 : -EILSEQ;
}

/* Calls and jumps through a register are not looked at: where to is the work of several instructions. */
static bool branch(const uint8_t *p, size_t len, uint64_t vaddr, uint64_t *target, bool *indirect)
{
	struct insn in;

	if (decode(p, len, &in) || !in.has_target)
		return false;
	*indirect = false;
	*target = vaddr + (uint64_t)in.target;
	return true;
}

/*
 * [bti c] adrp x16, page; ldr x17, [x16, #offset], in all kinds of PLTs (binutils bfd/elfnn-aarch64.c, lld
 * ELF/Arch/AArch64.cpp).
 */
static bool stub_slot(const uint8_t *p, size_t len, uint64_t vaddr, uint64_t *slot)
{
	static const uint8_t bti_c[] = { 0x5f, 0x24, 0x03, 0xd5 };
	size_t at = len >= sizeof(bti_c) && !memcmp(p, bti_c, sizeof(bti_c)) ? sizeof(bti_c) : 0;
	uint32_t adrp, ldr;
	int64_t pages;

	if (len < at + 8)
		return false;
	adrp = load32(p + at);
	ldr = load32(p + at + 4);
	if ((adrp & 0x9f00001f) != (0x90000000 | IP0) || (ldr & 0xffc003ff) != (0xf9400000 | IP0 << 5 | IP1))
		return false;
	pages = (int64_t)((uint64_t)signed_field(adrp, 5, 19) << 2 | field(adrp, 29, 2));
	*slot = ((vaddr + at) & ~0xfffULL) + ((uint64_t)pages << 12) + 8 * field(ldr, 10, 12);
	return true;
}

/*
 * arm_probe_decode_insn() in arch/arm64/kernel/probes/decode-insn.c: b, b.cond, cbz, tbz, adr and adrp. It simulates bl,
 * br, ret and loads of literals, too, but nobody stands there; nop only since 6.13.
 */
static bool emulated(const uint8_t *code, size_t len)
{
	struct insn in;

	if (decode(code, len, &in))
		return false;
	return in.flow == INSN_JMP ? in.has_target : in.flow == INSN_JCC || (load32(code) & 0x1f000000) == 0x10000000;
}

/*
 * A return probe replaces the return address in x30 (arch_uretprobe_hijack_return_addr() in
 * arch/arm64/kernel/probes/uprobes.c): before it is signed by paciasp, and before it is stored.
 */
const struct isa isa_arm64 = {
	.machine = EM_AARCH64,
	.align = 4,
	/* 16 bytes, with BTI 24. */
	.stub_align = 8,
	.argument = 0,
	.result = 0,
	.entry_state = BIT(0) | BIT(1) | BIT(2) | BIT(LINK) | BIT(SP),
	.decode = decode,
	.branch = branch,
	.stub_slot = stub_slot,
	.emulated = emulated,
};
