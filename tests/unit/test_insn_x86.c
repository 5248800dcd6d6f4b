/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "user/code/insn_x86.h"

#define BYTES(...) (const uint8_t[]){ __VA_ARGS__ }, sizeof((const uint8_t[]){ __VA_ARGS__ })
#define WRITES(n) (1u << (n))

/* Lengths are those objdump (binutils 2.40) prints for the same bytes. */
static const struct decode_case {
	const char *text;
	const uint8_t *code;
	size_t size;
	int len; /* 0: refused */
	bool emulated;
	unsigned int writes;
	bool writes_mem;
	enum insn_flow flow;
} decode_cases[] = {
	{ "endbr64", BYTES(0xf3, 0x0f, 0x1e, 0xfa), 4, false, 0, false, INSN_NEXT },
	{ "rdsspq rax", BYTES(0xf3, 0x48, 0x0f, 0x1e, 0xc8), 0, false, 0, false, INSN_NEXT },
	{ "nop", BYTES(0x90), 1, true, 0, false, INSN_NEXT },
	{ "xchg ax,ax", BYTES(0x66, 0x90), 2, true, 0, false, INSN_NEXT },
	{ "pause", BYTES(0xf3, 0x90), 2, false, 0, false, INSN_NEXT },
	{ "xchg r8,rax", BYTES(0x49, 0x90), 0, false, 0, false, INSN_NEXT },
	{ "nopl 0(rax)", BYTES(0x0f, 0x1f, 0x40, 0x00), 4, false, 0, false, INSN_NEXT },
	{ "nopw cs:0(rax,rax,1)", BYTES(0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0), 10, false, 0, false, INSN_NEXT },
	{ "push rbp", BYTES(0x55), 1, true, WRITES(X86_RSP), true, INSN_NEXT },
	{ "push r12", BYTES(0x41, 0x54), 2, true, WRITES(X86_RSP), true, INSN_NEXT },
	{ "rex.W push rbx", BYTES(0x48, 0x53), 2, false, WRITES(X86_RSP), true, INSN_NEXT },
	{ "push 8", BYTES(0x6a, 0x08), 2, false, WRITES(X86_RSP), true, INSN_NEXT },
	{ "pop r12", BYTES(0x41, 0x5c), 2, false, WRITES(X86_RSP) | WRITES(12), false, INSN_NEXT },
	{ "mov rbx,rdi", BYTES(0x48, 0x89, 0xfb), 3, false, WRITES(X86_RBX), false, INSN_NEXT },
	{ "mov rdi,rbx", BYTES(0x48, 0x89, 0xdf), 3, false, WRITES(X86_RDI), false, INSN_NEXT },
	{ "mov edi,[rbx+16]", BYTES(0x8b, 0x7b, 0x10), 3, false, WRITES(X86_RDI), false, INSN_NEXT },
	{ "mov edi,[r12+56]", BYTES(0x41, 0x8b, 0x7c, 0x24, 0x38), 5, false, WRITES(X86_RDI), false, INSN_NEXT },
	{ "mov [rsp+8],rax", BYTES(0x48, 0x89, 0x44, 0x24, 0x08), 5, false, 0, true, INSN_NEXT },
	{ "mov dh,1", BYTES(0xb6, 0x01), 2, false, WRITES(X86_RDX), false, INSN_NEXT },
	{ "mov sil,1", BYTES(0x40, 0xb6, 0x01), 3, false, WRITES(X86_RSI), false, INSN_NEXT },
	{ "movabs rax,imm64", BYTES(0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8), 10, false, WRITES(X86_RAX), false, INSN_NEXT },
	{ "mov ax,imm16", BYTES(0x66, 0xb8, 1, 2), 4, false, WRITES(X86_RAX), false, INSN_NEXT },
	{ "sub rsp,0x18", BYTES(0x48, 0x83, 0xec, 0x18), 4, false, WRITES(X86_RSP), false, INSN_NEXT },
	{ "lea rsi,[rip+1]", BYTES(0x48, 0x8d, 0x35, 1, 0, 0, 0), 7, false, WRITES(X86_RSI), false, INSN_NEXT },
	{ "test rdi,rdi", BYTES(0x48, 0x85, 0xff), 3, false, 0, false, INSN_NEXT },
	{ "cmp dword [rdi+8],3", BYTES(0x83, 0x7f, 0x08, 0x03), 4, false, 0, false, INSN_NEXT },
	{ "cmp dword [rip+1],3", BYTES(0x83, 0x3d, 1, 0, 0, 0, 0x03), 7, false, 0, false, INSN_NEXT },
	{ "xor eax,eax", BYTES(0x31, 0xc0), 2, false, WRITES(X86_RAX), false, INSN_NEXT },
	{ "div rcx", BYTES(0x48, 0xf7, 0xf1), 3, false, WRITES(X86_RAX) | WRITES(X86_RDX), false, INSN_NEXT },
	{ "jne +2", BYTES(0x75, 0x02), 2, true, 0, false, INSN_JCC },
	{ "jne rel32", BYTES(0x0f, 0x85, 0, 1, 0, 0), 6, true, 0, false, INSN_JCC },
	{ "jmp rel8", BYTES(0xeb, 0xfe), 2, true, 0, false, INSN_JMP },
	{ "jmp rel32", BYTES(0xe9, 0, 0, 0, 0), 5, true, 0, false, INSN_JMP },
	{ "bnd jmp rel32", BYTES(0xf2, 0xe9, 0, 0, 0, 0), 6, false, 0, false, INSN_JMP },
	{ "jmpw rel16", BYTES(0x66, 0xe9, 0, 0, 0, 0), 0, false, 0, false, INSN_NEXT },
	{ "jmp [rip+x]", BYTES(0xff, 0x25, 0, 0, 0, 0), 6, false, 0, false, INSN_JMP },
	{ "notrack jmp rax", BYTES(0x3e, 0xff, 0xe0), 3, false, 0, false, INSN_JMP },
	{ "ret", BYTES(0xc3), 1, false, 0, false, INSN_STOP },
	{ "ud2", BYTES(0x0f, 0x0b), 2, false, 0, false, INSN_STOP },
	{ "pxor xmm0,xmm0", BYTES(0x66, 0x0f, 0xef, 0xc0), 4, false, 0, false, INSN_NEXT },
	{ "movups [rsp],xmm0", BYTES(0x0f, 0x11, 0x04, 0x24), 4, false, 0, true, INSN_NEXT },
	{ "movq rsi,xmm0", BYTES(0x66, 0x48, 0x0f, 0x7e, 0xc6), 5, false, WRITES(X86_RSI), false, INSN_NEXT },
	{ "mov rax,fs:0x28", BYTES(0x64, 0x48, 0x8b, 0x04, 0x25, 0x28, 0, 0, 0), 9, false, WRITES(X86_RAX), false,
	  INSN_NEXT },
	{ "lock inc [rdi]", BYTES(0xf0, 0xff, 0x07), 3, false, 0, true, INSN_NEXT },
	{ "vzeroupper", BYTES(0xc5, 0xf8, 0x77), 0, false, 0, false, INSN_NEXT },
	{ "syscall", BYTES(0x0f, 0x05), 0, false, 0, false, INSN_NEXT },
	{ "rep stosq", BYTES(0xf3, 0x48, 0xab), 0, false, 0, false, INSN_NEXT },
	{ "push es (not in 64-bit mode)", BYTES(0x06), 0, false, 0, false, INSN_NEXT },
	{ "cut short: jne rel32", BYTES(0x0f, 0x85, 0, 1, 0), 0, false, 0, false, INSN_NEXT },
	{ "cut short: REX alone", BYTES(0x48), 0, false, 0, false, INSN_NEXT },
};

static void test_decode(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(decode_cases) / sizeof(decode_cases[0]); i++) {
		const struct decode_case *c = &decode_cases[i];
		struct x86_insn in;
		int ret = x86_decode(c->code, c->size, &in);

		print_message("%s\n", c->text);
		assert_int_equal(ret, c->len ? 0 : -EILSEQ);
		assert_int_equal(isa_x86_64.emulated(c->code, c->size), c->emulated);
		if (ret)
			continue;
		assert_int_equal(in.len, c->len);
		assert_int_equal(in.writes, c->writes);
		assert_int_equal(in.writes_mem, c->writes_mem);
		assert_int_equal(in.flow, c->flow);
	}
}

static void test_branch_targets(void **state)
{
	struct x86_insn in;

	(void)state;
	assert_int_equal(x86_decode(BYTES(0xeb, 0xfe), &in), 0);
	assert_true(in.has_target);
	assert_int_equal(in.target, 0);
	assert_int_equal(x86_decode(BYTES(0xe8, 0xfb, 0xff, 0xff, 0xff), &in), 0);
	assert_int_equal(in.target, 0);
	assert_true(in.writes & WRITES(X86_RDI));
	assert_false(in.writes & WRITES(X86_RBX));
	assert_int_equal(x86_decode(BYTES(0xff, 0xd0), &in), 0);
	assert_false(in.has_target);
}

/* Which memory operands count as [register + displacement], the form in which functions read the fd. */
static void test_memory_operands(void **state)
{
	struct x86_insn in;

	(void)state;
	assert_int_equal(x86_decode(BYTES(0x41, 0x8b, 0x7c, 0x24, 0x38), &in), 0);
	assert_true(in.simple_base);
	assert_int_equal(in.reg, X86_RDI);
	assert_int_equal(in.rm, 12);
	assert_int_equal(in.disp, 0x38);
	assert_int_equal(x86_decode(BYTES(0x8b, 0x3c, 0xc3), &in), 0);
	assert_false(in.simple_base);
	assert_int_equal(x86_decode(BYTES(0x8b, 0x3d, 1, 0, 0, 0), &in), 0);
	assert_false(in.simple_base);
	assert_true(in.rip_relative);
	assert_int_equal(x86_decode(BYTES(0x64, 0x8b, 0x7b, 0x10), &in), 0);
	assert_false(in.simple_base);
}

static const struct choose_case {
	const char *text;
	const uint8_t *code;
	size_t size;
	int ret;
	uint32_t offset;
	bool emulated;
} choose_cases[] = {
	{ "push at the entry", BYTES(0x55, 0x53, 0xc3), 0, 0, true },
	{ "endbr64; push r12", BYTES(0xf3, 0x0f, 0x1e, 0xfa, 0x41, 0x54, 0xc3), 0, 4, true },
	/* Debian's TLS read and write begin like this. */
	{ "endbr64; cmp dword [rdi+8],3; jne; ret",
	  BYTES(0xf3, 0x0f, 0x1e, 0xfa, 0x83, 0x7f, 0x08, 0x03, 0x75, 0x01, 0xc3, 0xc3), 0, 8, true },
	{ "mov rax,rdi; push", BYTES(0x48, 0x89, 0xf8, 0x55, 0xc3), 0, 3, true },
	{ "sub rsp first: the return address is elsewhere",
	  BYTES(0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x83, 0xec, 0x08, 0x55, 0xc3), 0, 0, false },
	{ "mov edi first: an argument is gone", BYTES(0x8b, 0x7f, 0x10, 0xe9, 0, 0, 0, 0), 0, 0, false },
	{ "mov rsi first", BYTES(0x48, 0x89, 0xd6, 0x55, 0xc3), 0, 0, false },
	{ "a store first", BYTES(0x48, 0x89, 0x07, 0x55, 0xc3), 0, 0, false },
	{ "a long nop is skipped", BYTES(0x0f, 0x1f, 0x40, 0x00, 0x53, 0xc3), 0, 4, true },
	{ "ret at once", BYTES(0xc3), 0, 0, false },
	{ "a call is passed over for the entry", BYTES(0x31, 0xc0, 0xe8, 0, 0, 0, 0, 0xc3), 0, 0, false },
	/* The loop jumps back to the push. */
	{ "the push is a branch target", BYTES(0x31, 0xc0, 0x55, 0x75, 0xfd, 0xc3), 0, 0, false },
	/* The loop jumps back to the entry, which counts as a call. */
	{ "the entry is a branch target", BYTES(0x55, 0x75, 0xfd, 0xc3), 0, 0, true },
	/* The decoder does not know vzeroupper, but must still see the jump behind it. */
	{ "a branch target behind unknown code", BYTES(0x31, 0xc0, 0x55, 0xc5, 0xf8, 0x77, 0x75, 0xfa, 0xc3), 0, 0, false },
	{ "unknown code after the push does not matter", BYTES(0x31, 0xc0, 0x55, 0xc5, 0xf8, 0x77, 0xc3), 0, 2, true },
	{ "unknown code between: the entry", BYTES(0x31, 0xc0, 0xc5, 0xf8, 0x77, 0x55, 0xc3), 0, 0, false },
	{ "unknown at the entry: refused", BYTES(0xc5, 0xf8, 0x77, 0x55), -EILSEQ, 0, false },
};

static void test_choose(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(choose_cases) / sizeof(choose_cases[0]); i++) {
		const struct choose_case *c = &choose_cases[i];
		struct insn_probe probe;
		int ret = insn_choose_probe(&isa_x86_64, c->code, c->size, &probe);

		print_message("%s\n", c->text);
		assert_int_equal(ret, c->ret);
		if (ret)
			continue;
		assert_int_equal(probe.offset, c->offset);
		assert_int_equal(probe.emulated, c->emulated);
	}
}

/* Random bytes, in an allocation of their exact size, so that ASan sees a read past them. */
static void test_random_bytes(void **state)
{
	unsigned int seed = 1;

	(void)state;
	for (int round = 0; round < 200000; round++) {
		size_t size = (size_t)(rand_r(&seed) % 20);
		uint8_t *code = malloc(size ? size : 1);
		struct insn_probe probe;
		struct x86_insn in;

		assert_non_null(code);
		for (size_t i = 0; i < size; i++)
			code[i] = (uint8_t)(rand_r(&seed) >> 8);
		if (!x86_decode(code, size, &in))
			assert_in_range(in.len, 1, size < 15 ? size : 15);
		if (!insn_choose_probe(&isa_x86_64, code, size, &probe))
			assert_true(probe.offset < size);
		free(code);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_decode), cmocka_unit_test(test_branch_targets), cmocka_unit_test(test_memory_operands),
		cmocka_unit_test(test_choose), cmocka_unit_test(test_random_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
