/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * x86-64 instructions, as far as it takes to place a breakpoint safely. The
 * kernel does not check that a uprobe sits on an instruction boundary; a wrong
 * one corrupts the server. Opcode facts: Intel SDM volume 2, appendix A.
 */
#include <elf.h>
#include <errno.h>
#include <string.h>

#include "user/code/insn_x86.h"

#define BIT(n) ((uint16_t)(1u << (n)))
#define REX_B 1
#define REX_X 2
#define REX_R 4
#define REX_W 8

#define MAX_INSN 15

/* What System V passes in registers to (connection *, buf, len), and the return address. */
#define ENTRY_STATE (BIT(X86_RDI) | BIT(X86_RSI) | BIT(X86_RDX) | BIT(X86_RSP))
/* What a call may change, the psABI's caller-saved registers. */
#define CALL_CLOBBERS \
	(BIT(X86_RAX) | BIT(X86_RCX) | BIT(X86_RDX) | BIT(X86_RSI) | BIT(X86_RDI) | BIT(8) | BIT(9) | BIT(10) | BIT(11))

struct cursor {
	const uint8_t *code;
	size_t len;
	size_t pos;
	bool opsize;  /* 66 */
	bool rep;     /* F3 */
	bool segment; /* fs or gs: the address has another base */
};

static bool take(struct cursor *c, uint8_t *byte)
{
	if (c->pos >= c->len)
		return false;
	*byte = c->code[c->pos++];
	return true;
}

/* A sign-extended little-endian field of 1, 2 or 4 bytes. */
static bool take_signed(struct cursor *c, unsigned int size, int32_t *value)
{
	uint32_t raw = 0;

	if (c->len - c->pos < size)
		return false;
	for (unsigned int i = 0; i < size; i++)
		raw |= (uint32_t)c->code[c->pos + i] << (8 * i);
	c->pos += size;
	if (size == 1)
		/* NOLINTNEXTLINE(bugprone-signed-char-misuse): it is a number, and its sign is wanted */
		*value = (int8_t)raw;
	else if (size == 2)
		*value = (int16_t)raw;
	else
		*value = (int32_t)raw;
	return true;
}

static bool skip(struct cursor *c, size_t size)
{
	if (c->len - c->pos < size)
		return false;
	c->pos += size;
	return true;
}

/* Width of the immediate that follows the operand size; 8 bytes only for mov reg, imm64. */
static size_t imm_z(const struct cursor *c)
{
	return c->opsize ? 2 : 4;
}

static bool take_sib(struct cursor *c, struct x86_insn *in)
{
	uint8_t sib, index, base;

	if (!take(c, &sib))
		return false;
	index = ((sib >> 3) & 7) | (in->rex & REX_X ? 8 : 0);
	base = sib & 7;
	if (base == 5 && in->mod == 0)
		return take_signed(c, 4, &in->disp);
	in->rm = base | (in->rex & REX_B ? 8 : 0);
	in->simple_base = index == X86_RSP;
	return true;
}

static bool take_modrm(struct cursor *c, struct x86_insn *in)
{
	uint8_t byte, rm;

	if (!take(c, &byte))
		return false;
	in->has_modrm = true;
	in->mod = byte >> 6;
	in->reg = ((byte >> 3) & 7) | (in->rex & REX_R ? 8 : 0);
	rm = byte & 7;
	in->rm = rm | (in->rex & REX_B ? 8 : 0);
	if (in->mod == 3)
		return true;
	if (in->mod == 0 && rm == 5) {
		in->rip_relative = true;
		return take_signed(c, 4, &in->disp);
	}
	if (rm == 4) {
		if (!take_sib(c, in))
			return false;
	} else {
		in->simple_base = true;
	}
	if (in->mod == 1)
		return take_signed(c, 1, &in->disp);
	if (in->mod == 2)
		return take_signed(c, 4, &in->disp);
	return true;
}

/* Byte registers 4-7 without REX are ah, ch, dh, bh: parts of registers 0-3. */
static uint16_t reg_bit(const struct x86_insn *in, uint8_t reg, bool byte_operand)
{
	if (byte_operand && !in->rex && reg >= 4 && reg <= 7)
		return BIT(reg - 4);
	return BIT(reg);
}

static void write_rm(struct x86_insn *in, bool byte_operand)
{
	if (in->mod == 3)
		in->writes |= reg_bit(in, in->rm, byte_operand);
	else
		in->writes_mem = true;
}

static void write_reg(struct x86_insn *in, bool byte_operand)
{
	in->writes |= reg_bit(in, in->reg, byte_operand);
}

static bool take_branch(struct cursor *c, struct x86_insn *in, unsigned int size, enum insn_flow flow)
{
	int32_t rel;

	/* 66 on a near branch means different things to Intel and AMD. */
	if (c->opsize || !take_signed(c, size, &rel))
		return false;
	in->flow = flow;
	in->has_target = true;
	in->target = (int64_t)c->pos + rel;
	if (flow == INSN_CALL) {
		in->writes |= CALL_CLOBBERS;
		in->writes_mem = true;
	}
	return true;
}

static void write_push(struct x86_insn *in)
{
	in->writes |= BIT(X86_RSP);
	in->writes_mem = true;
}

/* 00-3F: add or adc sbb and sub xor cmp in their six operand forms. */
static bool decode_alu(struct cursor *c, struct x86_insn *in)
{
	unsigned int form = in->opcode & 7;
	bool compares = (in->opcode >> 3) == 7;
	bool byte_operand = !(form & 1);

	switch (form) {
	case 0:
	case 1:
		if (!take_modrm(c, in))
			return false;
		if (!compares)
			write_rm(in, byte_operand);
		return true;
	case 2:
	case 3:
		if (!take_modrm(c, in))
			return false;
		if (!compares)
			write_reg(in, byte_operand);
		return true;
	case 4:
	case 5:
		if (!compares)
			in->writes |= BIT(X86_RAX);
		return skip(c, form == 4 ? 1 : imm_z(c));
	default:
		return false;
	}
}

/* F6 and F7: test, not, neg, mul, imul, div, idiv. */
static bool decode_group3(struct cursor *c, struct x86_insn *in)
{
	bool byte_operand = in->opcode == 0xf6;

	if (!take_modrm(c, in))
		return false;
	switch (in->reg & 7) {
	case 0:
		return skip(c, byte_operand ? 1 : imm_z(c));
	case 2:
	case 3:
		write_rm(in, byte_operand);
		return true;
	case 4:
	case 5:
	case 6:
	case 7:
		in->writes |= BIT(X86_RAX) | BIT(X86_RDX);
		return true;
	default:
		return false;
	}
}

/* FE and FF: inc, dec, and for FF call, jmp and push through r/m. */
static bool decode_group5(struct cursor *c, struct x86_insn *in)
{
	if (!take_modrm(c, in))
		return false;
	switch (in->reg & 7) {
	case 0:
	case 1:
		write_rm(in, in->opcode == 0xfe);
		return true;
	case 2:
		in->flow = INSN_CALL;
		in->writes |= CALL_CLOBBERS;
		in->writes_mem = true;
		return in->opcode == 0xff;
	case 4:
		in->flow = INSN_JMP;
		return in->opcode == 0xff;
	case 6:
		write_push(in);
		return in->opcode == 0xff;
	default:
		return false;
	}
}

static bool decode_shift(struct cursor *c, struct x86_insn *in)
{
	if (!take_modrm(c, in))
		return false;
	write_rm(in, !(in->opcode & 1));
	return in->opcode >= 0xd0 || skip(c, 1);
}

static bool decode_group1(struct cursor *c, struct x86_insn *in)
{
	if (!take_modrm(c, in))
		return false;
	if ((in->reg & 7) != 7)
		write_rm(in, in->opcode == 0x80);
	return skip(c, in->opcode == 0x81 ? imm_z(c) : 1);
}

static bool decode_mov_imm(struct cursor *c, struct x86_insn *in)
{
	uint8_t reg = (in->opcode & 7) | (in->rex & REX_B ? 8 : 0);

	if (in->opcode < 0xb8) {
		in->writes |= reg_bit(in, reg, true);
		return skip(c, 1);
	}
	in->writes |= BIT(reg);
	return skip(c, in->rex & REX_W ? 8 : imm_z(c));
}

static bool decode_one_byte(struct cursor *c, struct x86_insn *in)
{
	uint8_t op = in->opcode;
	uint8_t low_reg = (op & 7) | (in->rex & REX_B ? 8 : 0);

	if (op < 0x40)
		return decode_alu(c, in);
	switch (op) {
	case 0x50 ... 0x57:
		write_push(in);
		return true;
	case 0x58 ... 0x5f:
		in->writes |= BIT(low_reg) | BIT(X86_RSP);
		return true;
	case 0x68:
		write_push(in);
		return skip(c, imm_z(c));
	case 0x6a:
		write_push(in);
		return skip(c, 1);
	case 0x70 ... 0x7f:
		return take_branch(c, in, 1, INSN_JCC);
	case 0x80:
	case 0x81:
	case 0x83:
		return decode_group1(c, in);
	case 0x84:
	case 0x85:
		return take_modrm(c, in);
	case 0x86:
	case 0x87:
		if (!take_modrm(c, in))
			return false;
		write_rm(in, op == 0x86);
		write_reg(in, op == 0x86);
		return true;
	case 0x88:
	case 0x89:
		if (!take_modrm(c, in))
			return false;
		write_rm(in, op == 0x88);
		return true;
	case 0x63:
	case 0x8a:
	case 0x8b:
		if (!take_modrm(c, in))
			return false;
		write_reg(in, op == 0x8a);
		return true;
	case 0x8d:
		if (!take_modrm(c, in) || in->mod == 3)
			return false;
		write_reg(in, false);
		return true;
	case 0x69:
	case 0x6b:
		if (!take_modrm(c, in))
			return false;
		write_reg(in, false);
		return skip(c, op == 0x69 ? imm_z(c) : 1);
	case 0x90:
		/* With REX.B it is xchg r8, rax. */
		return !(in->rex & REX_B);
	case 0x98:
		in->writes |= BIT(X86_RAX);
		return true;
	case 0x99:
		in->writes |= BIT(X86_RDX);
		return true;
	case 0xa8:
		return skip(c, 1);
	case 0xa9:
		return skip(c, imm_z(c));
	case 0xb0 ... 0xbf:
		return decode_mov_imm(c, in);
	case 0xc0:
	case 0xc1:
	case 0xd0 ... 0xd3:
		return decode_shift(c, in);
	case 0xc3:
	case 0xcc:
	case 0xf4:
		in->flow = INSN_STOP;
		return true;
	case 0xc6:
	case 0xc7:
		if (!take_modrm(c, in) || (in->reg & 7))
			return false;
		write_rm(in, op == 0xc6);
		return skip(c, op == 0xc6 ? 1 : imm_z(c));
	case 0xc9:
		in->writes |= BIT(X86_RSP) | BIT(X86_RBP);
		return true;
	case 0xe8:
		return take_branch(c, in, 4, INSN_CALL);
	case 0xe9:
		return take_branch(c, in, 4, INSN_JMP);
	case 0xeb:
		return take_branch(c, in, 1, INSN_JMP);
	case 0xf6:
	case 0xf7:
		return decode_group3(c, in);
	case 0xfe:
	case 0xff:
		return decode_group5(c, in);
	default:
		return false;
	}
}

/* SSE and SSE2: registers and memory of the vector unit, no immediate. */
static bool decode_sse(struct cursor *c, struct x86_insn *in)
{
	if (!take_modrm(c, in))
		return false;
	switch (in->opcode) {
	case 0x2c:
	case 0x2d:
	case 0x50:
	case 0xd7:
		write_reg(in, false);
		return true;
	case 0x7e:
		/* F3 0F 7E loads a vector register; otherwise it stores one. */
		if (!c->rep)
			write_rm(in, false);
		return true;
	case 0x11:
	case 0x13:
	case 0x17:
	case 0x29:
	case 0x7f:
	case 0xd6:
	case 0xe7:
		if (in->mod != 3)
			in->writes_mem = true;
		return true;
	default:
		return true;
	}
}

static bool decode_two_byte(struct cursor *c, struct x86_insn *in)
{
	uint8_t op = in->opcode;

	switch (op) {
	case 0x0b:
		in->flow = INSN_STOP;
		return true;
	case 0x18:
	case 0x1e:
	case 0x1f:
		/* Prefetch, endbr64 and the long nops. F3 0F 1E /1 is rdssp, which writes. */
		return take_modrm(c, in) && !(op == 0x1e && c->rep && in->reg != 7);
	case 0x40 ... 0x4f:
	case 0xaf:
	case 0xb6:
	case 0xb7:
	case 0xbc ... 0xbf:
		if (!take_modrm(c, in))
			return false;
		write_reg(in, false);
		return true;
	case 0x80 ... 0x8f:
		return take_branch(c, in, 4, INSN_JCC);
	case 0x90 ... 0x9f:
		if (!take_modrm(c, in))
			return false;
		write_rm(in, true);
		return true;
	case 0xa3:
		return take_modrm(c, in);
	case 0xab:
	case 0xb3:
	case 0xbb:
		if (!take_modrm(c, in))
			return false;
		write_rm(in, false);
		return true;
	case 0xb0:
	case 0xb1:
	case 0xc0:
	case 0xc1:
		if (!take_modrm(c, in))
			return false;
		write_rm(in, !(op & 1));
		write_reg(in, !(op & 1));
		in->writes |= BIT(X86_RAX);
		return true;
	case 0xba:
		if (!take_modrm(c, in) || (in->reg & 7) < 4)
			return false;
		if ((in->reg & 7) != 4)
			write_rm(in, false);
		return skip(c, 1);
	case 0xc8 ... 0xcf:
		in->writes |= BIT((op & 7) | (in->rex & REX_B ? 8 : 0));
		return true;
	case 0x70:
	case 0xc6:
		return take_modrm(c, in) && skip(c, 1);
	case 0x10 ... 0x17:
	case 0x28 ... 0x2f:
	case 0x50 ... 0x6f:
	case 0x74 ... 0x76:
	case 0x7e:
	case 0x7f:
	case 0xd4:
	case 0xd6:
	case 0xd7:
	case 0xda:
	case 0xdb:
	case 0xde:
	case 0xdf:
	case 0xe6:
	case 0xe7:
	case 0xeb:
	case 0xef:
	case 0xfa ... 0xfe:
		return decode_sse(c, in);
	default:
		return false;
	}
}

/* Legacy prefixes, then REX. The address-size prefix is refused. */
static bool take_prefixes(struct cursor *c, struct x86_insn *in, uint8_t *opcode)
{
	for (;;) {
		if (!take(c, opcode))
			return false;
		switch (*opcode) {
		case 0x66:
			c->opsize = true;
			continue;
		case 0xf3:
			c->rep = true;
			continue;
		case 0x64:
		case 0x65:
			c->segment = true;
			continue;
		case 0x2e:
		case 0x3e:
		case 0xf0:
		case 0xf2:
			/* cs in long nops, ds as notrack, lock, bnd: without effect on what we tell. */
			continue;
		}
		break;
	}
	if ((*opcode & 0xf0) != 0x40)
		return true;
	in->rex = *opcode;
	return take(c, opcode) && (*opcode & 0xf0) != 0x40;
}

int x86_decode(const uint8_t *code, size_t len, struct x86_insn *out)
{
	struct cursor c = { .code = code, .len = len < MAX_INSN ? len : MAX_INSN };
	bool known;

	memset(out, 0, sizeof(*out));
	if (!take_prefixes(&c, out, &out->opcode))
		return -EILSEQ;
	if (out->opcode == 0x0f) {
		out->map = 1;
		known = take(&c, &out->opcode) && decode_two_byte(&c, out);
	} else {
		known = decode_one_byte(&c, out);
	}
	if (!known)
		return -EILSEQ;
	if (c.segment)
		out->simple_base = false;
	out->opsize = c.opsize;
	out->len = (uint8_t)c.pos;
	return 0;
}

static bool x86_branch(const uint8_t *p, size_t len, uint64_t vaddr, uint64_t *target, bool *indirect)
{
	struct cursor c = { .code = p, .len = len, .pos = 2 };
	int32_t rel;

	if (len < 5)
		return false;
	*indirect = false;
	if (p[0] == 0xe8 || p[0] == 0xe9)
		c.pos = 1;
	else if (p[0] == 0xff && (p[1] == 0x15 || p[1] == 0x25))
		*indirect = true;
	else if (p[0] != 0x0f || (p[1] & 0xf0) != 0x80)
		return false;
	if (!take_signed(&c, 4, &rel))
		return false;
	*target = vaddr + c.pos + (uint64_t)(int64_t)rel;
	return true;
}

static bool is_endbr64(const uint8_t *code, size_t len)
{
	static const uint8_t endbr64[] = { 0xf3, 0x0f, 0x1e, 0xfa };

	return len >= sizeof(endbr64) && !memcmp(code, endbr64, sizeof(endbr64));
}

/*
 * The rules of branch_setup_xol_ops and push_setup_xol_ops in
 * arch/x86/kernel/uprobes.c, kernel 5.10.223. Multi-byte nops (0F 1F) are
 * emulated only since 6.16, so they do not count. Prefixes other than those named
 * here are not emulated, or not alike on all kernels.
 */
bool x86_emulated(const uint8_t *code, size_t len)
{
	struct x86_insn in;

	if (x86_decode(code, len, &in))
		return false;
	if (in.len == 2 && code[0] == 0x66 && code[1] == 0x90)
		return true;
	if (in.len == 2 && code[0] == 0x41)
		return code[1] >= 0x50 && code[1] <= 0x57;
	switch (code[0]) {
	case 0x50 ... 0x57:
	case 0x70 ... 0x7f:
	case 0x90:
	case 0xe8:
	case 0xe9:
	case 0xeb:
		return true;
	case 0x0f:
		return in.flow == INSN_JCC;
	default:
		return false;
	}
}

/* What discovery asks of any instruction. Of an unconditional operand size: 66 changes what a load or a mov means. */
static void describe(const struct x86_insn *in, const uint8_t *code, struct insn *out)
{
	bool wide = in->rex & REX_W, plain = !in->map && !in->opsize;

	if (plain && wide && in->has_modrm && in->mod == 3 && (in->opcode == 0x89 || in->opcode == 0x8b)) {
		out->effect = INSN_MOVES;
		out->from = in->opcode == 0x89 ? in->reg : in->rm;
		out->to = in->opcode == 0x89 ? in->rm : in->reg;
	} else if (plain && !wide && in->opcode == 0x8b && in->simple_base) {
		out->effect = INSN_LOADS32;
		out->to = in->reg;
		out->from = in->rm;
		out->disp = in->disp;
	} else if (plain && !wide && in->opcode == 0x83 && (in->reg & 7) == 7 && in->simple_base) {
		out->effect = INSN_COMPARES32_MEMORY;
		out->from = in->rm;
		out->disp = in->disp;
		out->value = (uint32_t)(int8_t)code[in->len - 1];
	} else if (plain && !in->rex && in->opcode >= 0xb8 && in->opcode <= 0xbf && in->len == 5) {
		out->effect = INSN_SETS;
		out->to = in->opcode - 0xb8;
		out->value = (uint32_t)code[1] | (uint32_t)code[2] << 8 | (uint32_t)code[3] << 16 | (uint32_t)code[4] << 24;
		out->mask = UINT64_MAX;
	}
}

static int decode(const uint8_t *code, size_t len, struct insn *out)
{
	struct x86_insn in;

	memset(out, 0, sizeof(*out));
	if (x86_decode(code, len, &in))
		return -EILSEQ;
	*out = (struct insn){ .len = in.len,
			      .flow = in.flow,
			      .has_target = in.has_target,
			      .target = in.target,
			      .returns = !in.map && in.opcode == 0xc3,
			      .writes = in.writes,
			      .writes_memory = in.writes_mem };
	describe(&in, code, out);
	return 0;
}

/*
 * [endbr64] [bnd] jmp *[rip + disp]. The lazy stubs of a CET binary's .plt and PLT0 begin otherwise and are not the
 * callers' targets.
 */
static bool stub_slot(const uint8_t *p, size_t len, uint64_t vaddr, uint64_t *slot)
{
	struct cursor c = { .code = p, .len = len, .pos = is_endbr64(p, len) ? 4 : 0 };
	int32_t disp;

	if (c.pos < len && p[c.pos] == 0xf2)
		c.pos++;
	if (len - c.pos < 2 || p[c.pos] != 0xff || p[c.pos + 1] != 0x25)
		return false;
	c.pos += 2;
	if (!take_signed(&c, 4, &disp))
		return false;
	*slot = vaddr + c.pos + (uint64_t)(int64_t)disp;
	return true;
}

const struct isa isa_x86_64 = {
	.machine = EM_X86_64,
	.align = 1,
	/* Stubs are 16 bytes long, in .plt.got without CET 8; all are aligned to their size. */
	.stub_align = 8,
	.argument = X86_RDI,
	.result = X86_RAX,
	.entry_state = ENTRY_STATE,
	.decode = decode,
	.branch = x86_branch,
	.stub_slot = stub_slot,
	.emulated = x86_emulated,
};
