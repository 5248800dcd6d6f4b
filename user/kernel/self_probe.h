/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Functions of our own binary, to try probes on before they go into a server. */
#ifndef REPLYLOG_USER_KERNEL_SELF_PROBE_H
#define REPLYLOG_USER_KERNEL_SELF_PROBE_H

#include "user/kernel/uprobe_link.h"

#define SELF_EXECUTABLE "/proc/self/exe"

/* The function at this address, as a location to probe in SELF_EXECUTABLE. Its cookie is its address: sessions want it. */
void self_probe_location(uintptr_t address, struct uprobe_locations *location);

#endif
