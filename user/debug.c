/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/debug.h"

#include "user/clock.h"
#include "user/complain.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 1024

static int fd = -1;
static pid_t server;

int debug_open(const char *file)
{
	fd = file ? open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0600) : STDERR_FILENO;
	return fd < 0 ? complain("--debug=%s: cannot open the file: %s: name a file that can be written", file,
				 strerror(errno))
		      : 0;
}

bool debug_on(void)
{
	return fd >= 0;
}

void debug_server(pid_t pid)
{
	server = pid;
}

/* A line that can't be written ends --debug, and says so once; what replylog is there for goes on. */
static void write_line(const char *line, size_t len)
{
	ssize_t done;

	while (len) {
		done = write(fd, line, len);
		if (done < 0 && errno == EINTR)
			continue;
		if (done < 0) {
			fd = -1;
			complain("--debug: cannot write: %s: no more debug lines are written", strerror(errno));
			return;
		}
		line += done;
		len -= (size_t)done;
	}
}

/* As in the stream: the wall clock, UTC, with microseconds. */
static size_t put_time(char *to, size_t size, uint64_t monotonic)
{
	uint64_t passed = monotonic_ns() - monotonic;
	struct timespec wall;
	struct tm t;
	int64_t ns;
	time_t seconds;
	size_t len;

	clock_gettime(CLOCK_REALTIME, &wall);
	ns = (int64_t)wall.tv_sec * 1000000000 + wall.tv_nsec - (int64_t)passed;
	seconds = ns / 1000000000;
	gmtime_r(&seconds, &t);
	len = strftime(to, size, "%Y-%m-%dT%H:%M:%S", &t);
	return len + (size_t)snprintf(to + len, size - len, ".%06dZ", (int)(ns % 1000000000 / 1000));
}

static void say(uint64_t monotonic, const char *in_front, const char *text, size_t len)
{
	char line[LINE_MAX_BYTES], time[40], who[32] = "";
	int size;

	put_time(time, sizeof(time), monotonic);
	if (server)
		snprintf(who, sizeof(who), "server %d: ", server);
	size = snprintf(line, sizeof(line) - 1, "debug: %s %s%s%.*s", time, who, in_front, (int)len, text);
	if (size > (int)sizeof(line) - 2)
		size = sizeof(line) - 2;
	for (int i = 0; i < size; i++)
		if ((unsigned char)line[i] < ' ' || (unsigned char)line[i] >= 0x7f)
			line[i] = ' ';
	line[size] = '\n';
	write_line(line, (size_t)size + 1);
}

static __attribute__((format(printf, 2, 0))) void vsay(uint64_t monotonic, const char *format, va_list args)
{
	char text[LINE_MAX_BYTES];

	vsnprintf(text, sizeof(text), format, args);
	say(monotonic, "", text, strlen(text));
}

void debug_say(const char *format, ...)
{
	va_list args;

	if (!debug_on())
		return;
	va_start(args, format);
	vsay(monotonic_ns(), format, args);
	va_end(args);
}

void debug_say_at(uint64_t monotonic, const char *format, ...)
{
	va_list args;

	if (!debug_on())
		return;
	va_start(args, format);
	vsay(monotonic, format, args);
	va_end(args);
}

void debug_say_lines(const char *in_front, const char *format, va_list args)
{
	char *text = NULL, *line, *end;
	size_t len;

	if (!debug_on() || vasprintf(&text, format, args) < 0)
		return;
	for (line = text; *line && debug_on(); line = *end ? end + 1 : end) {
		len = strcspn(line, "\n");
		end = line + len;
		say(monotonic_ns(), in_front, line, len);
	}
	free(text);
}
