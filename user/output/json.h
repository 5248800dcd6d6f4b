/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * One flat JSON object, written into the caller's buffer: no allocation, and nothing past its end. What no
 * longer fits is dropped and remembered, so that only json_end needs checking.
 *
 * Keys are literals of ours and written as they are. Values are bytes of any kind and length:
 *
 *   as text     valid UTF-8 stays as it is; a byte that is part of none becomes U+FFFD, so the line is always
 *               valid JSON; control characters (C0, DEL, C1) become \uXXXX, or \n \r \t
 *   escaped     printable ASCII stays, a backslash becomes two, every other byte becomes \xNN (lower case);
 *               that text is then the JSON string, where each of these backslashes is itself written twice
 */
#ifndef REPLYLOG_USER_OUTPUT_JSON_H
#define REPLYLOG_USER_OUTPUT_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The most bytes one byte of a value can become, in either form (\u0001). */
#define JSON_EXPANSION_MAX 6

struct json {
	char *buf;
	size_t size, len;
	bool comma, overflow;
};

/* Start an object in buf. The buffer stays the caller's; it is not NUL-terminated. */
void json_begin(struct json *j, char *buf, size_t size);

/* Add one member. key is NUL-terminated and needs no escaping; s has len bytes and may hold NULs. */
void json_text(struct json *j, const char *key, const char *s, size_t len);
void json_escaped(struct json *j, const char *key, const char *s, size_t len);
void json_u64(struct json *j, const char *key, uint64_t value);
void json_bool(struct json *j, const char *key, bool value);

/* An array of strings: begin, any number of items, end. */
void json_array_begin(struct json *j, const char *key);
void json_item_text(struct json *j, const char *s, size_t len);
void json_item_escaped(struct json *j, const char *s, size_t len);
void json_array_end(struct json *j);

/*
 * Close the object. Returns its length in bytes, or -ENOBUFS when it did not fit (then buf holds no valid
 * JSON).
 */
int json_end(struct json *j);

/* Whether s is UTF-8 as RFC 3629 has it: nothing overlong, no surrogates, nothing over U+10FFFF. */
bool utf8_valid(const char *s, size_t len);

/* The most of s's first len bytes that does not end inside a character. */
size_t utf8_floor(const char *s, size_t len);

#endif
