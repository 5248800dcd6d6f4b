/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include <errno.h>

#include "user/code/insn.h"

const struct isa *isa_of(uint16_t machine)
{
	static const struct isa *const isas[] = { &isa_x86_64, &isa_arm64 };

	for (size_t i = 0; i < sizeof(isas) / sizeof(isas[0]); i++)
		if (isas[i]->machine == machine)
			return isas[i];
	return NULL;
}

/*
 * True when a direct branch of the function may land in (0, offset]: a probe there
 * would fire again without a new entry. Where the bytes cannot be decoded, every
 * position is taken for an instruction: that may see branches that are none, which
 * costs an emulated probe, but misses none.
 */
static bool branched_into(const struct isa *isa, const uint8_t *code, size_t len, uint32_t offset)
{
	bool in_step = true;

	for (size_t pos = 0; pos < len;) {
		struct insn in;
		int64_t target;

		if (isa->decode(code + pos, len - pos, &in)) {
			in_step = false;
			pos += isa->align;
			continue;
		}
		target = (int64_t)pos + in.target;
		if (in.has_target && target > 0 && target <= (int64_t)offset)
			return true;
		pos += in_step ? in.len : isa->align;
	}
	return false;
}

/* May the walk from the entry go past this instruction and find the entry state intact? */
static bool leaves_entry_state(const struct isa *isa, const struct insn *in)
{
	return in->flow == INSN_NEXT && !in->writes_memory && !(in->writes & isa->entry_state);
}

int insn_choose_probe(const struct isa *isa, const uint8_t *code, size_t len, struct insn_probe *out)
{
	struct insn in;
	size_t pos = 0;

	if (isa->decode(code, len, &in))
		return -EILSEQ;
	*out = (struct insn_probe){ 0 };
	while (pos < len && !isa->decode(code + pos, len - pos, &in)) {
		/* Before kernel 7.2 a probed call breaks a process with a shadow stack. */
		if (in.flow != INSN_CALL && isa->emulated(code + pos, len - pos)) {
			if (!branched_into(isa, code, len, (uint32_t)pos))
				*out = (struct insn_probe){ .offset = (uint32_t)pos, .emulated = true };
			return 0;
		}
		if (!leaves_entry_state(isa, &in))
			return 0;
		pos += in.len;
	}
	return 0;
}
