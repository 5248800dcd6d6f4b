/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/complain.h"

#include <stdarg.h>
#include <stdio.h>

/* Paths and other people's messages may hold anything; a line stays a line, and no terminal takes orders from it. */
static void one_line(char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < ' ' || (unsigned char)*text >= 0x7f)
			*text = ' ';
}

static char text[1024];

const char *complain_last(void)
{
	return text;
}

int complain(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	one_line(text);
	fprintf(stderr, "replylog: %s\n", text);
	return -1;
}
