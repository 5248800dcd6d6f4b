/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Functions of our own binary, to try probes on before a server meets them. */
#ifndef REPLYLOG_USER_KERNEL_SELF_PROBE_H
#define REPLYLOG_USER_KERNEL_SELF_PROBE_H

#include "user/kernel/uprobe_link.h"

#define OWN_EXECUTABLE "/proc/self/exe"

/* The function at this address, as a place to probe in OWN_EXECUTABLE. Its cookie is its address: sessions want it. */
void own_function_place(uintptr_t address, struct uprobe_places *place);

#endif
