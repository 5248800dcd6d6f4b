/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/output/json.h"

#include <errno.h>
#include <string.h>

#define BYTES(b) (0x0101010101010101ULL * (uint64_t)(b))

static const char hex[] = "0123456789abcdef";

/*
 * Length of the well-formed UTF-8 character at p (RFC 3629, section 4), 0 when there is none in these left
 * bytes.
 */
static size_t utf8_char(const unsigned char *p, size_t left)
{
	unsigned char low = 0x80, high = 0xbf;
	size_t len, i;

	if (p[0] < 0x80)
		return 1;
	if (p[0] < 0xc2 || p[0] > 0xf4)
		return 0;
	len = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
	if (len > left)
		return 0;
	/* Only the second byte's range depends on the first: overlong forms, surrogates, beyond U+10FFFF. */
	if (p[0] == 0xe0)
		low = 0xa0;
	else if (p[0] == 0xed)
		high = 0x9f;
	else if (p[0] == 0xf0)
		low = 0x90;
	else if (p[0] == 0xf4)
		high = 0x8f;
	if (p[1] < low || p[1] > high)
		return 0;
	for (i = 2; i < len; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	return len;
}

bool utf8_valid(const char *s, size_t len)
{
	const unsigned char *p = (const unsigned char *)s;
	size_t i = 0, n;
	uint64_t word;

	while (i < len) {
		if (len - i >= sizeof(word)) {
			memcpy(&word, p + i, sizeof(word));
			if (!(word & BYTES(0x80))) {
				i += sizeof(word);
				continue;
			}
		}
		n = utf8_char(p + i, len - i);
		if (!n)
			return false;
		i += n;
	}
	return true;
}

size_t utf8_floor(const char *s, size_t len)
{
	const unsigned char *p = (const unsigned char *)s;
	size_t back, need;

	for (back = 1; back <= 3 && back <= len; back++) {
		if ((p[len - back] & 0xc0) == 0x80)
			continue;
		need = p[len - back] < 0xc0 ? 1 : p[len - back] < 0xe0 ? 2 : p[len - back] < 0xf0 ? 3 : 4;
		return need > back ? len - back : len;
	}
	return len;
}

static bool is_plain(unsigned char c)
{
	return c >= 0x20 && c < 0x7f && c != '"' && c != '\\';
}

/* Set in each byte of the result's top bits when word has a zero byte; exact as a whole, not byte by byte. */
static uint64_t zero_byte(uint64_t word)
{
	return (word - BYTES(1)) & ~word & BYTES(0x80);
}

/*
 * How many of s's first bytes are the same in JSON, eight at a time: most of what is logged is plain ASCII.
 */
static size_t plain_run(const char *s, size_t len)
{
	uint64_t word, special;
	size_t i = 0;

	for (; len - i >= sizeof(word); i += sizeof(word)) {
		memcpy(&word, s + i, sizeof(word));
		special = (word & BYTES(0x80)) | ((word - BYTES(0x20)) & ~word & BYTES(0x80)) |
			  zero_byte(word ^ BYTES('"')) | zero_byte(word ^ BYTES('\\')) | zero_byte(word ^ BYTES(0x7f));
		if (special)
			break;
	}
	while (i < len && is_plain((unsigned char)s[i]))
		i++;
	return i;
}

static void put(struct json *j, const char *s, size_t len)
{
	if (len > j->size - j->len) {
		j->overflow = true;
		return;
	}
	memcpy(j->buf + j->len, s, len);
	j->len += len;
}

static void put_char(struct json *j, char c)
{
	put(j, &c, 1);
}

static void put_control(struct json *j, unsigned char c)
{
	char text[6] = { '\\', 'u', '0', '0', hex[c >> 4], hex[c & 15] };

	if (c == '\n')
		put(j, "\\n", 2);
	else if (c == '\r')
		put(j, "\\r", 2);
	else if (c == '\t')
		put(j, "\\t", 2);
	else
		put(j, text, sizeof(text));
}

/* The byte or character at s that is not plain. Returns how many of the left bytes it took. */
static size_t put_special(struct json *j, const char *s, size_t left)
{
	const unsigned char *p = (const unsigned char *)s;
	char quoted[2] = { '\\', s[0] };
	size_t n;

	if (p[0] == '"' || p[0] == '\\') {
		put(j, quoted, sizeof(quoted));
		return 1;
	}
	if (p[0] < 0x80) {
		put_control(j, p[0]);
		return 1;
	}
	n = utf8_char(p, left);
	if (!n) {
		put(j, "\xef\xbf\xbd", 3);
		return 1;
	}
	/* C1 controls are commands to a terminal, as C0 are, and the stream is read on terminals too. */
	if (p[0] == 0xc2 && p[1] < 0xa0)
		put_control(j, p[1]);
	else
		put(j, s, n);
	return n;
}

static void put_special_escaped(struct json *j, unsigned char c)
{
	char text[5] = { '\\', '\\', 'x', hex[c >> 4], hex[c & 15] };

	if (c == '"')
		put(j, "\\\"", 2);
	else if (c == '\\')
		put(j, "\\\\\\\\", 4);
	else
		put(j, text, sizeof(text));
}

static void put_string(struct json *j, const char *s, size_t len, bool escaped)
{
	size_t i = 0, run;

	put_char(j, '"');
	while (i < len) {
		run = plain_run(s + i, len - i);
		put(j, s + i, run);
		i += run;
		if (i == len)
			break;
		if (escaped)
			put_special_escaped(j, (unsigned char)s[i++]);
		else
			i += put_special(j, s + i, len - i);
	}
	put_char(j, '"');
}

static void put_comma(struct json *j)
{
	if (j->comma)
		put_char(j, ',');
	j->comma = true;
}

static void put_key(struct json *j, const char *key)
{
	put_comma(j);
	put_char(j, '"');
	put(j, key, strlen(key));
	put(j, "\":", 2);
}

void json_begin(struct json *j, char *buf, size_t size)
{
	*j = (struct json){ .buf = buf, .size = size };
	put_char(j, '{');
}

void json_text(struct json *j, const char *key, const char *s, size_t len)
{
	put_key(j, key);
	put_string(j, s, len, false);
}

void json_escaped(struct json *j, const char *key, const char *s, size_t len)
{
	put_key(j, key);
	put_string(j, s, len, true);
}

void json_u64(struct json *j, const char *key, uint64_t value)
{
	char digits[20];
	size_t i = sizeof(digits);

	do
		digits[--i] = (char)('0' + value % 10);
	while (value /= 10);
	put_key(j, key);
	put(j, digits + i, sizeof(digits) - i);
}

void json_bool(struct json *j, const char *key, bool value)
{
	put_key(j, key);
	put(j, value ? "true" : "false", value ? 4 : 5);
}

void json_array_begin(struct json *j, const char *key)
{
	put_key(j, key);
	put_char(j, '[');
	j->comma = false;
}

void json_item_text(struct json *j, const char *s, size_t len)
{
	put_comma(j);
	put_string(j, s, len, false);
}

void json_item_escaped(struct json *j, const char *s, size_t len)
{
	put_comma(j);
	put_string(j, s, len, true);
}

void json_array_end(struct json *j)
{
	put_char(j, ']');
	j->comma = true;
}

int json_end(struct json *j)
{
	put_char(j, '}');
	return j->overflow ? -ENOBUFS : (int)j->len;
}
