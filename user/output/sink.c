/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/output/sink.h"

#include <errno.h>
#include <poll.h>
#include <unistd.h>

void sink_init(struct sink *s, int fd)
{
	*s = (struct sink){ .fd = fd };
}

/*
 * Stdout may be non-blocking without our doing: the flag belongs to the open file, which a terminal or pipe
 * shares.
 */
static int wait_writable(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLOUT };

	return poll(&p, 1, -1) < 0 ? -errno : 0;
}

static int write_some(int fd, const char **p, size_t *len)
{
	ssize_t n = write(fd, *p, *len);

	if (n >= 0) {
		*p += n;
		*len -= (size_t)n;
		return 0;
	}
	if (errno == EAGAIN || errno == EWOULDBLOCK)
		return wait_writable(fd);
	return -errno;
}

static void interrupted(struct sink *s)
{
	if (s->interrupted)
		s->interrupted(s->ctx);
}

int sink_write(struct sink *s, const char *line, size_t len)
{
	while (len && !s->err) {
		int err = write_some(s->fd, &line, &len);

		if (err == -EINTR)
			interrupted(s);
		else
			s->err = err;
	}
	return s->err;
}
