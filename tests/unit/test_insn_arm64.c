/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include <elf.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "user/code/insn.h"

/* A64 code is little-endian, as both hosts are. */
#define CODE(...) (const uint8_t *)(const uint32_t[]){ __VA_ARGS__ }, sizeof((const uint32_t[]){ __VA_ARGS__ })
#define X(n) (1u << (n))
#define CALLED (0x3ffffu | X(30))

/* The words and their text are objdump's (binutils 2.40), most of them from Debian's servers. */
static const struct decode_case {
	const char *text;
	uint32_t word;
	bool known;
	bool emulated;
	uint32_t writes;
	bool writes_memory;
	enum insn_flow flow;
	int64_t target;
} decode_cases[] = {
	{ "bti c", 0xd503245f, true, false, 0, false, INSN_NEXT, 0 },
	{ "paciasp", 0xd503233f, true, false, X(30), false, INSN_NEXT, 0 },
	{ "autiasp", 0xd50323bf, true, false, X(30), false, INSN_NEXT, 0 },
	{ "nop", 0xd503201f, true, false, 0, false, INSN_NEXT, 0 },
	{ "hint #127", 0xd5032fff, false, false, 0, false, INSN_NEXT, 0 },
	{ "stp x29, x30, [sp, #-48]!", 0xa9bd7bfd, true, false, X(31), true, INSN_NEXT, 0 },
	{ "stp x19, x20, [sp, #16]", 0xa90153f3, true, false, 0, true, INSN_NEXT, 0 },
	{ "ldp x29, x30, [sp], #48", 0xa8c37bfd, true, false, X(29) | X(30) | X(31), false, INSN_NEXT, 0 },
	{ "ldp x1, x2, [x1]", 0xa9400821, true, false, X(1) | X(2), false, INSN_NEXT, 0 },
	{ "ldp q0, q1, [x1]", 0xad400420, true, false, 0, false, INSN_NEXT, 0 },
	{ "str x19, [sp, #16]", 0xf9000bf3, true, false, 0, true, INSN_NEXT, 0 },
	{ "str x0, [sp, #-16]!", 0xf81f0fe0, true, false, X(31), true, INSN_NEXT, 0 },
	{ "stur x2, [x29, #-8]", 0xf81f83a2, true, false, 0, true, INSN_NEXT, 0 },
	{ "str q0, [sp, #16]", 0x3d8007e0, true, false, 0, true, INSN_NEXT, 0 },
	{ "ldr w0, [x19, #16]", 0xb9401260, true, false, X(0), false, INSN_NEXT, 0 },
	{ "ldr x0, [x1], #8", 0xf8408420, true, false, X(0) | X(1), false, INSN_NEXT, 0 },
	{ "ldr x0, [x1, x2]", 0xf8626820, true, false, X(0), false, INSN_NEXT, 0 },
	{ "ldr xzr, [x0]", 0xf940001f, true, false, 0, false, INSN_NEXT, 0 },
	{ "ldr q0, [x1]", 0x3dc00020, true, false, 0, false, INSN_NEXT, 0 },
	{ "ldr x0, .+8", 0x58000040, true, false, X(0), false, INSN_NEXT, 0 },
	{ "ldrh w0, [x19, #20]", 0x79402a60, true, false, X(0), false, INSN_NEXT, 0 },
	{ "ldrsh w0, [x19, #22]", 0x79c02e60, true, false, X(0), false, INSN_NEXT, 0 },
	{ "prfm pldl1keep, [x0]", 0xf9800000, true, false, 0, false, INSN_NEXT, 0 },
	{ "ldaxr w0, [x1]", 0x885ffc20, false, false, 0, false, INSN_NEXT, 0 },
	{ "ldadd w0, w1, [x2]", 0xb8200041, false, false, 0, false, INSN_NEXT, 0 },
	{ "mov x29, sp", 0x910003fd, true, false, X(29), false, INSN_NEXT, 0 },
	{ "sub sp, sp, #0x90", 0xd10243ff, true, false, X(31), false, INSN_NEXT, 0 },
	{ "sub sp, sp, x16", 0xcb3063ff, true, false, X(31), false, INSN_NEXT, 0 },
	{ "mov x19, x0", 0xaa0003f3, true, false, X(19), false, INSN_NEXT, 0 },
	{ "mov w0, #0xffffffff", 0x12800000, true, false, X(0), false, INSN_NEXT, 0 },
	{ "movk w0, #0x9, lsl #16", 0x72a00120, true, false, X(0), false, INSN_NEXT, 0 },
	{ "cmp w0, #0x3", 0x71000c1f, true, false, 0, false, INSN_NEXT, 0 },
	{ "cmn w1, #0x1", 0x3100043f, true, false, 0, false, INSN_NEXT, 0 },
	{ "cmp x1, x2", 0xeb02003f, true, false, 0, false, INSN_NEXT, 0 },
	{ "ccmp w0, #3, #4, ne", 0x7a431804, true, false, 0, false, INSN_NEXT, 0 },
	{ "csel x0, x1, x2, eq", 0x9a820020, true, false, X(0), false, INSN_NEXT, 0 },
	{ "udiv x0, x1, x2", 0x9ac20820, true, false, X(0), false, INSN_NEXT, 0 },
	{ "madd x0, x1, x2, x3", 0x9b020c20, true, false, X(0), false, INSN_NEXT, 0 },
	{ "orr w0, w0, #0x1", 0x32000000, true, false, X(0), false, INSN_NEXT, 0 },
	{ "tst w0, #0x1", 0x7200001f, true, false, 0, false, INSN_NEXT, 0 },
	{ "sxth w3, w3", 0x13003c63, true, false, X(3), false, INSN_NEXT, 0 },
	{ "mrs x0, tpidr_el0", 0xd53bd040, true, false, X(0), false, INSN_NEXT, 0 },
	{ "fmov x2, d0", 0x9e660002, true, false, X(2), false, INSN_NEXT, 0 },
	{ "adrp x3, .+0xcf000", 0xf0000663, true, true, X(3), false, INSN_NEXT, 0 },
	{ "adr x0, .+8", 0x10000040, true, true, X(0), false, INSN_NEXT, 0 },
	{ "b .-0x1ec", 0x17ffff85, true, true, 0, false, INSN_JMP, -0x1ec },
	{ "bl .-0x8de00", 0x97fdc880, true, false, CALLED, true, INSN_CALL, -0x8de00 },
	{ "b.ne .+0x84", 0x54000421, true, true, 0, false, INSN_JCC, 0x84 },
	{ "cbz w0, .+12", 0x34000060, true, true, 0, false, INSN_JCC, 12 },
	{ "cbnz w0, .+28", 0x350000e0, true, true, 0, false, INSN_JCC, 28 },
	{ "tbnz w0, #31, .+52", 0x37f801a0, true, true, 0, false, INSN_JCC, 52 },
	{ "tbz w0, #2, .-4", 0x3617ffe0, true, true, 0, false, INSN_JCC, -4 },
	{ "br x17", 0xd61f0220, true, false, 0, false, INSN_JMP, 0 },
	{ "blr x1", 0xd63f0020, true, false, CALLED, true, INSN_CALL, 0 },
	{ "ret", 0xd65f03c0, true, false, 0, false, INSN_STOP, 0 },
	{ "retaa", 0xd65f0bff, true, false, 0, false, INSN_STOP, 0 },
	{ "brk #0x3e8", 0xd4207d00, true, false, 0, false, INSN_STOP, 0 },
	{ "svc #0", 0xd4000001, false, false, 0, false, INSN_NEXT, 0 },
	{ "udf #0", 0x00000000, false, false, 0, false, INSN_NEXT, 0 },
	{ "ptrue p0.b (SVE)", 0x2518e3e0, false, false, 0, false, INSN_NEXT, 0 },
};

static void test_decode(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(decode_cases) / sizeof(decode_cases[0]); i++) {
		const struct decode_case *c = &decode_cases[i];
		const uint8_t *code = (const uint8_t *)&c->word;
		struct insn in;
		int ret = isa_arm64.decode(code, 4, &in);

		print_message("%s\n", c->text);
		assert_int_equal(ret, c->known ? 0 : -EILSEQ);
		assert_int_equal(isa_arm64.emulated(code, 4), c->emulated);
		assert_int_equal(isa_arm64.decode(code, 3, &in), -EILSEQ);
		if (ret)
			continue;
		isa_arm64.decode(code, 4, &in);
		assert_int_equal(in.len, 4);
		assert_int_equal(in.writes, c->writes);
		assert_int_equal(in.writes_memory, c->writes_memory);
		assert_int_equal(in.flow, c->flow);
		assert_int_equal(in.target, c->target);
	}
}

static struct insn decoded(uint32_t word)
{
	struct insn in;

	assert_int_equal(isa_arm64.decode((const uint8_t *)&word, sizeof(word), &in), 0);
	return in;
}

/* What discovery follows: where a function keeps the connection, what it loads from it and compares, what it returns. */
static void test_effects(void **state)
{
	struct insn in = decoded(0xaa0003f3); /* mov x19, x0 */

	(void)state;
	assert_int_equal(in.effect, INSN_MOVES);
	assert_int_equal(in.to, 19);
	assert_int_equal(in.from, 0);
	in = decoded(0xaa1f03e0); /* mov x0, xzr */
	assert_int_equal(in.effect, INSN_OTHER);
	in = decoded(0x2a0003f4); /* mov w20, w0: half of the register */
	assert_int_equal(in.effect, INSN_OTHER);
	in = decoded(0xb9401260); /* ldr w0, [x19, #16] */
	assert_int_equal(in.effect, INSN_LOADS32);
	assert_int_equal(in.to, 0);
	assert_int_equal(in.from, 19);
	assert_int_equal(in.disp, 16);
	in = decoded(0xb9401be0); /* ldr w0, [sp, #24] */
	assert_int_equal(in.effect, INSN_OTHER);
	in = decoded(0xf9400260); /* ldr x0, [x19] */
	assert_int_equal(in.effect, INSN_OTHER);
	in = decoded(0x7100087f); /* cmp w3, #2 */
	assert_int_equal(in.effect, INSN_COMPARES32);
	assert_int_equal(in.from, 3);
	assert_int_equal(in.value, 2);
	in = decoded(0xf100087f); /* cmp x3, #2 */
	assert_int_equal(in.effect, INSN_OTHER);
	in = decoded(0x7140087f); /* cmp w3, #2, lsl #12 */
	assert_int_equal(in.effect, INSN_OTHER);
	in = decoded(0x52802040); /* mov w0, #0x102 */
	assert_int_equal(in.effect, INSN_SETS);
	assert_int_equal(in.value, 0x102);
	assert_true(in.mask == UINT64_MAX);
	in = decoded(0x72a00120); /* movk w0, #9, lsl #16 */
	assert_int_equal(in.effect, INSN_SETS);
	assert_int_equal(in.value, 0x90000);
	assert_true(in.mask == 0xffff0000);
	assert_true(decoded(0xd65f03c0).returns);
	assert_true(decoded(0xd65f0bff).returns);
	assert_false(decoded(0xd4207d00).returns);
}

static void test_branches(void **state)
{
	uint64_t target = 0;
	bool indirect = true;

	(void)state;
	/* valkey 9.1.2's connSocketWritev calls writev. */
	assert_true(isa_arm64.branch(CODE(0x97fb6906), 0x1a8c00, &target, &indirect));
	assert_int_equal(target, 0x83018);
	assert_false(indirect);
	/* connTLSWritev ends in connTLSWrite. */
	assert_true(isa_arm64.branch(CODE(0x17ffff55), 0x1e49b4, &target, &indirect));
	assert_int_equal(target, 0x1e4708);
	assert_true(isa_arm64.branch(CODE(0x54000421), 0x1a8b2c, &target, &indirect));
	assert_int_equal(target, 0x1a8bb0);
	assert_false(isa_arm64.branch(CODE(0xd63f0020), 0x1000, &target, &indirect));
	assert_false(isa_arm64.branch(CODE(0xb9401260), 0x1000, &target, &indirect));
}

static void test_stubs(void **state)
{
	uint64_t slot = 0;

	(void)state;
	/* redis 7.0.15: adrp x16, 0x20f000; ldr x17, [x16, #1016]; add x16, x16, #0x3f8; br x17 */
	assert_true(isa_arm64.stub_slot(CODE(0xf0000d70, 0xf941fe11, 0x910fe210, 0xd61f0220), 0x60b70, &slot));
	assert_int_equal(slot, 0x20f3f8);
	/* valkey 9.1.2: the same after bti c */
	assert_true(isa_arm64.stub_slot(CODE(0xd503245f, 0xb0001470, 0xf9427a11, 0x9113c210, 0xd61f0220), 0x82010, &slot));
	assert_int_equal(slot, 0x30f4f0);
	/* A GOT below the PLT. */
	assert_true(isa_arm64.stub_slot(CODE(0xf0fffff0, 0xf9400211), 0x60b70, &slot));
	assert_int_equal(slot, 0x5f000);
	/* The first entry's beginning, a load into another register, and a stub cut short. */
	assert_false(isa_arm64.stub_slot(CODE(0xa9bf7bf0, 0xf0000d70, 0xf941fa11), 0x60b50, &slot));
	assert_false(isa_arm64.stub_slot(CODE(0xf0000d70, 0xf941fe10), 0x60b70, &slot));
	assert_false(isa_arm64.stub_slot(CODE(0xf0000d70), 0x60b70, &slot));
	assert_false(isa_arm64.stub_slot(CODE(0xd503245f, 0xb0001470), 0x82010, &slot));
}

static const struct choose_case {
	const char *text;
	const uint8_t *code;
	size_t size;
	int ret;
	uint32_t offset;
	bool emulated;
} choose_cases[] = {
	/* connSocketRead of valkey 9.1.2: the return address is signed at once. */
	{ "paciasp; stp; mov", CODE(0xd503233f, 0xa9bd7bfd, 0x910003fd, 0xaa0003f3), 0, 0, false },
	/* and of redis 7.0.15 */
	{ "stp; mov", CODE(0xa9be7bfd, 0x910003fd, 0xa90153f3, 0xaa0003f4), 0, 0, false },
	/* call() of redis 7.0.15 */
	{ "sub sp; stp", CODE(0xd10243ff, 0xa9037bfd), 0, 0, false },
	/* connSocketAccept and connTLSWritev of valkey 9.1.2: nothing is signed or stored before the branch. */
	{ "bti c; ldr w3; cmp; b.ne; paciasp", CODE(0xd503245f, 0xb9400803, 0x7100087f, 0x54000421, 0xd503233f), 0, 12,
	  true },
	{ "bti c; cmp; b.eq", CODE(0xd503245f, 0x7100045f, 0x54000040, 0x17ffff85), 0, 8, true },
	{ "bti c; paciasp; cbz: the return address is signed", CODE(0xd503245f, 0xd503233f, 0x34000060, 0xd65f03c0), 0, 0,
	  false },
	{ "mov x30 first: the return address is elsewhere", CODE(0xaa0303fe, 0x34000060, 0xd65f03c0), 0, 0, false },
	{ "ldr w0 first: an argument is gone", CODE(0xb9401000, 0x34000060, 0xd65f03c0), 0, 0, false },
	{ "mov x1 first", CODE(0xaa0303e1, 0x34000060, 0xd65f03c0), 0, 0, false },
	{ "a store first", CODE(0xf9001801, 0x34000060, 0xd65f03c0), 0, 0, false },
	{ "adrp at the entry", CODE(0x90000e43, 0xd503233f), 0, 0, true },
	{ "ret at once", CODE(0xd65f03c0), 0, 0, false },
	{ "a call at the entry", CODE(0x97fb6906, 0xd65f03c0), 0, 0, false },
	/* A loop back to the branch that would be probed. */
	{ "the place is a branch target", CODE(0xd503245f, 0x34000060, 0x71000463, 0x17fffffe, 0xd65f03c0), 0, 0, false },
	/* The decoder does not know ldaxr, but must still see the jump behind it. */
	{ "a branch target behind unknown code", CODE(0xd503245f, 0x34000060, 0x885ffc20, 0x17fffffe), 0, 0, false },
	{ "unknown code between: the entry", CODE(0xd503245f, 0x885ffc20, 0x34000060), 0, 0, false },
	{ "unknown at the entry: refused", CODE(0x885ffc20, 0xd65f03c0), -EILSEQ, 0, false },
	{ "data at the entry: refused", CODE(0x00000000, 0xd65f03c0), -EILSEQ, 0, false },
};

static void test_choose(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(choose_cases) / sizeof(choose_cases[0]); i++) {
		const struct choose_case *c = &choose_cases[i];
		struct insn_probe probe;
		int ret = insn_choose_probe(&isa_arm64, c->code, c->size, &probe);

		print_message("%s\n", c->text);
		assert_int_equal(ret, c->ret);
		if (ret)
			continue;
		assert_int_equal(probe.offset, c->offset);
		assert_int_equal(probe.emulated, c->emulated);
	}
}

static void test_machines(void **state)
{
	(void)state;
	assert_ptr_equal(isa_of(EM_AARCH64), &isa_arm64);
	assert_ptr_equal(isa_of(EM_X86_64), &isa_x86_64);
	assert_null(isa_of(EM_RISCV));
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
		uint64_t target;
		bool indirect;
		struct insn in;

		assert_non_null(code);
		for (size_t i = 0; i < size; i++)
			code[i] = (uint8_t)(rand_r(&seed) >> 8);
		if (!isa_arm64.decode(code, size, &in))
			assert_true(in.len == 4 && size >= 4);
		if (isa_arm64.branch(code, size, 0, &target, &indirect))
			assert_int_equal(target % 4, 0);
		isa_arm64.stub_slot(code, size, 0, &target);
		if (!insn_choose_probe(&isa_arm64, code, size, &probe))
			assert_true(probe.offset < size);
		free(code);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_decode),       cmocka_unit_test(test_effects), cmocka_unit_test(test_branches),
		cmocka_unit_test(test_stubs),        cmocka_unit_test(test_choose),  cmocka_unit_test(test_machines),
		cmocka_unit_test(test_random_bytes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
