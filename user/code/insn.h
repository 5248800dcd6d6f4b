/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Machine code, as far as it takes to recognise a server's functions and to place a breakpoint safely. What asks knows
 * no architecture: an isa answers.
 */
#ifndef REPLYLOG_USER_CODE_INSN_H
#define REPLYLOG_USER_CODE_INSN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum insn_flow {
	INSN_NEXT, /* falls through to the next instruction */
	INSN_CALL, /* direct, or through a register or memory */
	INSN_JMP,  /* unconditional; never falls through */
	INSN_JCC,  /* conditional jump */
	INSN_STOP, /* a return or a trap */
};

/* What else an instruction does, when it is one of these. Registers by the numbers that instructions name them by. */
enum insn_effect {
	INSN_OTHER,
	INSN_MOVES,             /* to = from, 64 bits */
	INSN_SETS,              /* to = (to & ~mask) | value */
	INSN_LOADS32,           /* to = 32 bits at [from + disp] */
	INSN_COMPARES32,        /* from with value, 32 bits */
	INSN_COMPARES32_MEMORY, /* 32 bits at [from + disp] with value */
};

/* One decoded instruction. */
struct insn {
	uint8_t len; /* bytes */
	enum insn_flow flow;
	bool returns;       /* of INSN_STOP: it is a return */
	bool has_target;    /* a direct branch: target is meaningful */
	bool writes_memory; /* the stack written by pushes and calls counts */
	int64_t target;     /* relative to the instruction's first byte */
	uint32_t writes;    /* bit n: general-purpose register n may change */
	enum insn_effect effect;
	uint8_t to, from;
	int32_t disp;
	uint64_t value, mask;
};

/* One architecture's code. The bytes given to its functions may be anything; none reads past len. */
struct isa {
	uint16_t machine;     /* e_machine of the ELF header */
	uint8_t align;        /* instructions begin at multiples of it */
	uint8_t stub_align;   /* and PLT stubs */
	uint8_t argument;     /* the register of a function's first argument, */
	uint8_t result;       /* and of what it returns */
	uint32_t entry_state; /* bit n: what a probe looks for at a function's entry is in register n */

	/*
	 * Decodes the instruction at code[0..len). Returns 0, or -EILSEQ for an instruction that is not known or does
	 * not fit: to refuse is safe, to misjudge is not.
	 */
	int (*decode)(const uint8_t *code, size_t len, struct insn *out);

	/*
	 * Do the bytes at p begin a branch of full reach to a fixed place, a call or not? Then *target is where to, or
	 * the GOT word that it goes through (*indirect). vaddr: of p. For looking at every place of a section without
	 * decoding what lies between.
	 */
	bool (*branch)(const uint8_t *p, size_t len, uint64_t vaddr, uint64_t *target, bool *indirect);

	/* Do the bytes at p begin a PLT stub? Then *slot is the vaddr of the GOT word that it jumps through. */
	bool (*stub_slot)(const uint8_t *p, size_t len, uint64_t vaddr, uint64_t *slot);

	/* Does every kernel since 5.10 emulate a uprobe on this instruction instead of single-stepping it? */
	bool (*emulated)(const uint8_t *code, size_t len);
};

extern const struct isa isa_x86_64, isa_arm64;

/* The isa of an ELF file's e_machine, NULL for a machine that is neither x86-64 nor arm64. */
const struct isa *isa_of(uint16_t machine);

/* Where to put the breakpoint of a function. */
struct insn_probe {
	uint32_t offset; /* bytes from the function's first byte */
	bool emulated;   /* the kernel emulates it; otherwise it single-steps */
};

/*
 * Chooses the probe address inside a function whose bytes are code[0..len): the first emulated instruction at which the
 * arguments, the stack pointer and the return address are still as on entry and which nothing but the entry leads to;
 * the entry itself, marked not emulated, when there is none. So the address serves a uprobe and a uretprobe.
 * Returns 0, or -EILSEQ when the first instruction is not understood: place no breakpoint.
 */
int insn_choose_probe(const struct isa *isa, const uint8_t *code, size_t len, struct insn_probe *out);

#endif
