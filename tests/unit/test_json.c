/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "user/output/json.h"

#define BYTES(s) (s), sizeof(s) - 1

static void written(struct json *j, const char *expected)
{
	int len = json_end(j);

	assert_int_equal(len, strlen(expected));
	assert_memory_equal(j->buf, expected, strlen(expected));
}

static void text(const char *s, size_t len, const char *expected)
{
	char buf[4096];
	struct json j;

	json_begin(&j, buf, sizeof(buf));
	json_text(&j, "k", s, len);
	written(&j, expected);
}

static void escaped(const char *s, size_t len, const char *expected)
{
	char buf[4096];
	struct json j;

	json_begin(&j, buf, sizeof(buf));
	json_escaped(&j, "k", s, len);
	written(&j, expected);
}

static void test_members(void **state)
{
	char buf[256];
	struct json j;

	(void)state;
	json_begin(&j, buf, sizeof(buf));
	written(&j, "{}");

	json_begin(&j, buf, sizeof(buf));
	json_text(&j, "a", BYTES("x"));
	json_u64(&j, "zero", 0);
	json_u64(&j, "ten", 10);
	json_u64(&j, "max", UINT64_MAX);
	json_bool(&j, "yes", true);
	json_bool(&j, "no", false);
	json_array_begin(&j, "none");
	json_array_end(&j);
	json_array_begin(&j, "list");
	json_item_text(&j, BYTES("1"));
	json_item_escaped(&j, BYTES("\xff"));
	json_item_text(&j, "", 0);
	json_array_end(&j);
	json_escaped(&j, "z", BYTES("y"));
	written(&j, "{\"a\":\"x\",\"zero\":0,\"ten\":10,\"max\":18446744073709551615,\"yes\":true,\"no\":false,"
		    "\"none\":[],\"list\":[\"1\",\"\\\\xff\",\"\"],\"z\":\"y\"}");
}

static void test_text(void **state)
{
	(void)state;
	text(BYTES(""), "{\"k\":\"\"}");
	text(BYTES("a\"b\\c/d"), "{\"k\":\"a\\\"b\\\\c/d\"}");
	text(BYTES("a\nb\rc\td"), "{\"k\":\"a\\nb\\rc\\td\"}");
	text(BYTES("\0\1\x1f\x7f\b"), "{\"k\":\"\\u0000\\u0001\\u001f\\u007f\\u0008\"}");
	text(BYTES("h\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80"), "{\"k\":\"h\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80\"}");
	/* CSI, which a terminal may obey, and the first character after the C1 controls. */
	text(BYTES("\xc2\x9b\x31m\xc2\x9f\xc2\xa0"), "{\"k\":\"\\u009b1m\\u009f\xc2\xa0\"}");
	text(BYTES("a\xff\xc3"), "{\"k\":\"a\xef\xbf\xbd\xef\xbf\xbd\"}");
}

static void test_escaped(void **state)
{
	(void)state;
	escaped(BYTES(""), "{\"k\":\"\"}");
	escaped(BYTES("a\\b"), "{\"k\":\"a\\\\\\\\b\"}");
	escaped(BYTES("\"\n\x1f\x7f\x80\xff~ "), "{\"k\":\"\\\"\\\\x0a\\\\x1f\\\\x7f\\\\x80\\\\xff~ \"}");
	escaped(BYTES("h\xc3\xa9\0"), "{\"k\":\"h\\\\xc3\\\\xa9\\\\x00\"}");
}

/*
 * A special byte at each position of strings of each length, so that both the words of eight and the bytes after them
 * have it.
 */
static void test_every_position(void **state)
{
	char s[40], expected[128];

	(void)state;
	for (int c = 0; c < 128; c++) {
		for (size_t len = 1; len < sizeof(s); len++) {
			for (size_t at = 0; at < len; at++) {
				const char *form = c == '"'    ? "\\\""
						   : c == '\\' ? "\\\\"
						   : c == '\n' ? "\\n"
						   : c == '\r' ? "\\r"
						   : c == '\t' ? "\\t"
							       : NULL;
				char unicode[8], plain[2] = { (char)c, 0 };

				snprintf(unicode, sizeof(unicode), "\\u%04x", (unsigned int)c);
				if (!form)
					form = c < 0x20 || c == 0x7f ? unicode : plain;
				memset(s, 'a', len);
				s[at] = (char)c;
				snprintf(expected, sizeof(expected), "{\"k\":\"%.*s%s%.*s\"}", (int)at, s, form,
					 (int)(len - at - 1), s + at + 1);
				text(s, len, expected);
			}
		}
	}
}

/* For every size of buffer: the whole text or an error, and never a byte past the end. */
static void test_overflow(void **state)
{
	static const char whole[] = "{\"k\":\"ab\\u0001\\\"\",\"n\":12,\"b\":true,\"l\":[\"x\",\"\\\\xff\"]}";
	struct json j;

	(void)state;
	for (size_t size = 0; size <= sizeof(whole); size++) {
		char *buf = malloc(size + 1);

		buf[size] = '!';
		json_begin(&j, buf, size);
		json_text(&j, "k", BYTES("ab\1\""));
		json_u64(&j, "n", 12);
		json_bool(&j, "b", true);
		json_array_begin(&j, "l");
		json_item_text(&j, "x", 1);
		json_item_escaped(&j, "\xff", 1);
		json_array_end(&j);
		if (size < sizeof(whole) - 1)
			assert_int_equal(json_end(&j), -ENOBUFS);
		else
			written(&j, whole);
		assert_int_equal(buf[size], '!');
		free(buf);
	}
}

/* After the first item that does not fit, nothing is written, even where it would fit. */
static void test_overflow_sticks(void **state)
{
	char buf[16];
	struct json j;

	(void)state;
	json_begin(&j, buf, sizeof(buf));
	json_text(&j, "k", BYTES("aaaaaaaaaaaaaaaaaaaa"));
	json_text(&j, "k", "", 0);
	assert_int_equal(json_end(&j), -ENOBUFS);
}

/* Decodes by the definition: slow, and unlike the code under test. */
static bool valid_by_decoding(const unsigned char *p, size_t len)
{
	static const uint32_t least[] = { 0, 0x80, 0x800, 0x10000 };

	for (size_t i = 0; i < len;) {
		uint32_t c = p[i];
		size_t more = c < 0x80 ? 0 : c >> 5 == 6 ? 1 : c >> 4 == 14 ? 2 : c >> 3 == 30 ? 3 : 9;

		if (more == 9 || len - i <= more)
			return false;
		c &= more ? 0x3fu >> more : 0x7f;
		for (size_t n = 1; n <= more; n++) {
			if (p[i + n] >> 6 != 2)
				return false;
			c = c << 6 | (p[i + n] & 0x3f);
		}
		if (c < least[more] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
			return false;
		i += more + 1;
	}
	return true;
}

/* All sequences of up to two bytes, and all of three and four whose bytes are near a limit of some rule. */
static void test_utf8(void **state)
{
	static const unsigned char edges[] = { 0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0,
					       0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec, 0xed, 0xee, 0xef, 0xf0,
					       0xf1, 0xf3, 0xf4, 0xf5, 0xf7, 0xf8, 0xfe, 0xff };
	const size_t n = sizeof(edges);
	unsigned char s[16];

	(void)state;
	for (unsigned int i = 0; i < 65536; i++) {
		s[0] = (unsigned char)(i >> 8);
		s[1] = (unsigned char)i;
		assert_int_equal(utf8_valid((char *)s, 1), valid_by_decoding(s, 1));
		assert_int_equal(utf8_valid((char *)s, 2), valid_by_decoding(s, 2));
	}
	for (size_t i = 0; i < n * n * n * n; i++) {
		/* A character across the end of the first word of eight. */
		memset(s, 'a', sizeof(s));
		s[5] = edges[i % n];
		s[6] = edges[i / n % n];
		s[7] = edges[i / n / n % n];
		s[8] = edges[i / n / n / n];
		assert_int_equal(utf8_valid((char *)s + 5, 3), valid_by_decoding(s + 5, 3));
		assert_int_equal(utf8_valid((char *)s + 5, 4), valid_by_decoding(s + 5, 4));
		assert_int_equal(utf8_valid((char *)s, sizeof(s)), valid_by_decoding(s, sizeof(s)));
	}
}

static void test_utf8_floor(void **state)
{
	static const char s[] = "a\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80z";
	static const size_t floors[] = { 0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 11 };

	(void)state;
	for (size_t i = 0; i < sizeof(floors) / sizeof(floors[0]); i++)
		assert_int_equal(utf8_floor(s, i), floors[i]);
	/* These bytes are no characters, so there is nothing to keep whole. */
	assert_int_equal(utf8_floor("\x80\x80\x80\x80\x80", 5), 5);
	assert_int_equal(utf8_floor("\x80", 1), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_members),  cmocka_unit_test(test_text),
		cmocka_unit_test(test_escaped),  cmocka_unit_test(test_every_position),
		cmocka_unit_test(test_overflow), cmocka_unit_test(test_overflow_sticks),
		cmocka_unit_test(test_utf8),     cmocka_unit_test(test_utf8_floor),
	};

	return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
