/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Preloaded into a server by test_ledger.py: when what it reads holds STRAY, it writes a line of its own to the same socket,
 * past its connection layer. No server does; it stands for bytes that can't be framed, and for a write that is not seen.
 */
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char stray[] = "?stray\r\n";

ssize_t read(int fd, void *buffer, size_t len)
{
	ssize_t got = syscall(SYS_read, fd, buffer, len);

	if (got > 0 && memmem(buffer, (size_t)got, "STRAY", 5))
		syscall(SYS_write, fd, stray, sizeof(stray) - 1);
	return got;
}
