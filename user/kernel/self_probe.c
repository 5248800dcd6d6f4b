/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/kernel/self_probe.h"

#include <link.h>

/* Our own binary is the first of what is loaded. */
static int find_offset(struct dl_phdr_info *info, size_t size, void *data)
{
	struct uprobe_locations *location = data;
	uint64_t vaddr = location->cookie[0] - info->dlpi_addr;

	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *segment = &info->dlpi_phdr[i];

		if (segment->p_type == PT_LOAD && vaddr >= segment->p_vaddr && vaddr - segment->p_vaddr < segment->p_filesz)
			location->offset[0] = vaddr - segment->p_vaddr + segment->p_offset;
	}
	return 1;
}

void self_probe_location(uintptr_t address, struct uprobe_locations *location)
{
	*location = (struct uprobe_locations){ .cookie = { address }, .count = 1 };
	dl_iterate_phdr(find_offset, location);
}
