/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#ifndef REPLYLOG_INSN_H
#define REPLYLOG_INSN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* General-purpose registers by their x86-64 encoding number. */
enum insn_reg {
	INSN_RAX, INSN_RCX, INSN_RDX, INSN_RBX,
	INSN_RSP, INSN_RBP, INSN_RSI, INSN_RDI,
};

enum insn_flow {
	INSN_NEXT,	/* falls through to the next instruction */
	INSN_CALL,	/* call rel32 or through a register or memory */
	INSN_JMP,	/* unconditional; never falls through */
	INSN_JCC,	/* conditional jump rel8 or rel32 */
	INSN_STOP,	/* ret, ud2, int3, hlt */
};

/* One decoded x86-64 instruction. */
struct insn {
	uint8_t len;		/* bytes, prefixes included */
	uint8_t map;		/* 0: one-byte opcode; 1: 0F xx */
	uint8_t opcode;
	uint8_t rex;		/* 0 when there is none */
	bool has_modrm;
	uint8_t mod;
	uint8_t reg;		/* ModRM.reg with REX.R */
	uint8_t rm;		/* ModRM.rm with REX.B; the SIB base when simple_base */
	bool simple_base;	/* memory operand is [rm + disp]: no index, rip or segment */
	bool rip_relative;
	int32_t disp;
	enum insn_flow flow;
	bool has_target;	/* a direct branch: target is meaningful */
	int64_t target;		/* relative to the instruction's first byte */
	uint16_t writes;	/* bit n: general-purpose register n may change */
	bool writes_mem;	/* the stack written by push and call counts */
};

/* Where to put the breakpoint of a function. */
struct insn_probe {
	uint32_t offset;	/* bytes from the function's first byte */
	bool emulated;		/* the kernel emulates it; otherwise it single-steps */
};

/*
 * Decodes the instruction at code[0..len). Returns 0, or -EILSEQ for an
 * instruction it does not know or that does not fit in len bytes. It knows what
 * compilers emit in plain integer and SSE2 code and refuses the rest (VEX, x87,
 * string operations, ...): to refuse is safe, to misjudge is not.
 */
int insn_decode(const uint8_t *code, size_t len, struct insn *out);

/*
 * Do the bytes at p, len of them, begin a call, jmp or jcc rel32, or (-fno-plt) a call
 * or jmp *[rip + disp]? Then *target is where to, or the GOT word (*indirect). vaddr:
 * of p. For looking at every byte of a section without decoding what lies between.
 */
bool insn_branch32(const uint8_t *p, uint64_t len, uint64_t vaddr, uint64_t *target, bool *indirect);

/* True when code[0..len) begins with endbr64. */
bool insn_is_endbr64(const uint8_t *code, size_t len);

/*
 * True when every kernel since 5.10 emulates a uprobe on the x86-64 instruction
 * at code[0..len) instead of single-stepping it.
 */
bool insn_emulated(const uint8_t *code, size_t len);

/*
 * Chooses the probe address inside a function whose bytes are code[0..len):
 * the first emulated instruction at which rdi, rsi, rdx and rsp are still as on
 * entry and which nothing but the entry leads to; the entry itself, marked not
 * emulated, when there is none. So the address serves a uprobe and a uretprobe.
 * machine is e_machine of the ELF header.
 * Returns 0; -EILSEQ when the first instruction is not understood (place no
 * breakpoint); -ENOTSUP for a machine that is neither x86-64 nor arm64.
 */
int insn_choose_probe(uint16_t machine, const uint8_t *code, size_t len, struct insn_probe *out);

#endif
