/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* A fuzzer's input: its front says what to generate, and its back where to cut and what to change. */
#ifndef REPLYLOG_TESTS_FUZZ_INPUT_H
#define REPLYLOG_TESTS_FUZZ_INPUT_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define CHECK(condition)                                                                        \
	do {                                                                                    \
		if (!(condition)) {                                                             \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
			show();                                                                 \
			abort();                                                                \
		}                                                                               \
	} while (0)

/* Prints to stderr what the input stands for. */
static void show(void);

struct input {
	const uint8_t *at, *end;
};

/* Behind its end an input continues with zeros. */
static unsigned int take(struct input *in)
{
	return in->at < in->end ? *in->at++ : 0;
}

static unsigned int take_back(struct input *in)
{
	return in->at < in->end ? *--in->end : 0;
}

static unsigned int take_back_wide(struct input *in)
{
	unsigned int high = take_back(in);

	return high << 8 | take_back(in);
}

/* Lengths around the framer's own boundaries: its word loads, its parse window, the kept size of an argument. */
static size_t take_length(struct input *in)
{
	static const uint16_t around[] = { 0, 7, 8, 127, 128, 129, 999, 1000, 2016, 2032, 2046, 2048, 2050, 4096 };
	unsigned int n = take(in);

	if (n < 200)
		return n % 50;
	return around[n % (sizeof(around) / sizeof(around[0]))] + take(in) % 8;
}

#endif
