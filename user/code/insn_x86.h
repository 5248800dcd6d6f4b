/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* x86-64 instructions in their own terms. What discovery needs of them is behind isa_x86_64 of insn.h. */
#ifndef REPLYLOG_USER_CODE_INSN_X86_H
#define REPLYLOG_USER_CODE_INSN_X86_H

#include "user/code/insn.h"

/* General-purpose registers by their x86-64 encoding number. */
enum x86_reg {
	X86_RAX,
	X86_RCX,
	X86_RDX,
	X86_RBX,
	X86_RSP,
	X86_RBP,
	X86_RSI,
	X86_RDI,
};

/* One decoded x86-64 instruction. */
struct x86_insn {
	uint8_t len; /* bytes, prefixes included */
	uint8_t map; /* 0: one-byte opcode; 1: 0F xx */
	uint8_t opcode;
	uint8_t rex; /* 0 when there is none */
	bool has_modrm;
	uint8_t mod;
	uint8_t reg;      /* ModRM.reg with REX.R */
	uint8_t rm;       /* ModRM.rm with REX.B; the SIB base when simple_base */
	bool simple_base; /* memory operand is [rm + disp]: no index, rip or segment */
	bool rip_relative;
	bool opsize; /* prefix 66 */
	int32_t disp;
	enum insn_flow flow;
	bool has_target; /* a direct branch: target is meaningful */
	int64_t target;  /* relative to the instruction's first byte */
	uint16_t writes; /* bit n: general-purpose register n may change */
	bool writes_mem; /* the stack written by push and call counts */
};

/*
 * Decodes the instruction at code[0..len). Returns 0, or -EILSEQ for an
 * instruction it does not know or that does not fit in len bytes. It knows what
 * compilers emit in plain integer and SSE2 code and refuses the rest (VEX, x87,
 * string operations, ...): to refuse is safe, to misjudge is not.
 */
int x86_decode(const uint8_t *code, size_t len, struct x86_insn *out);

#endif
