/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * RESP headers: a type byte, a decimal number, CRLF. Read a machine word at a time, without a loop.
 */
#ifndef REPLYLOG_BPF_RESP_RESP_H
#define REPLYLOG_BPF_RESP_RESP_H

#include "bpf/env.h"

#define BYTES(b) ((__u64)(b)*0x0101010101010101ULL)
#define HIGH_BITS BYTES(0x80)

/* The longest header that is accepted: type, 16 digits, CRLF. What is longer is refused (RESP_BAD). */
#define RESP_HEADER_MAX 19

/* Results of resp_number() besides the header's size. */
enum {
	RESP_SHORT = 0,     /* the bytes end before the header does */
	RESP_BAD = -1,      /* not a number in at most 16 digits */
	RESP_NULL = -2,     /* "-1": RESP2's null bulk or null array */
	RESP_STREAMED = -3, /* "?": a length that is only known at the end; no server sends it */
};

/* The high bit of each byte of word that equals b; exact up to and including the lowest match. */
static __always_inline __u64 bytes_equal(__u64 word, __u8 b)
{
	__u64 x = word ^ BYTES(b);

	return (x - BYTES(1)) & ~x & HIGH_BITS;
}

/* A mask of all bytes below the lowest byte marked in marks (which is not 0). */
static __always_inline __u64 bytes_below(__u64 marks)
{
	return ((marks & -marks) >> 7) - 1;
}

/* How many bytes a mask made by bytes_below() covers: 0 to 7. */
static __always_inline __u32 bytes_count(__u64 below)
{
	return ((below & BYTES(1)) * BYTES(1)) >> 56;
}

/* The first n bytes of what env_load64() has loaded. */
static __always_inline __u64 first_bytes(__u64 word, __u32 n)
{
	return n >= 8 ? word : word & ((1ULL << 8 * n) - 1);
}

/* True when every byte of word is a decimal digit's value, 0 to 9. */
static __always_inline bool digits_valid(__u64 word)
{
	return !(((word + BYTES(0x76)) | word) & HIGH_BITS);
}

/* Eight digit values, the first in the lowest byte, to their number: pairs, then fours, then eight. */
static __always_inline __u64 digits_value(__u64 word)
{
	word = (word * 10 + (word >> 8)) & 0x00ff00ff00ff00ffULL;
	word = (word * 100 + (word >> 16)) & 0x0000ffff0000ffffULL;
	return (word * 10000 + (word >> 32)) & 0xffffffffULL;
}

/* The number in the low n (1 to 7) bytes of word, or -1. */
static __always_inline __s64 digits_parse(__u64 word, __u64 below, __u32 n)
{
	word = (word ^ BYTES('0')) & below;
	if (!digits_valid(word))
		return -1;
	return digits_value(word << (64 - 8 * n));
}

static __always_inline __u64 power_of_ten(__u32 n)
{
	__u64 p = 1;

	if (n & 1)
		p *= 10;
	if (n & 2)
		p *= 100;
	if (n & 4)
		p *= 10000;
	return p;
}

/* A header of 8 to 15 digits: values of 100 MB and more. */
static __always_inline int resp_long_number(const __u8 *header, __u32 avail, __u64 first, __u64 *value)
{
	__u64 word = env_load64(header + 9), cr = bytes_equal(word, '\r'), below;
	__s64 tail = 0;
	__u32 n;

	if (!cr)
		return avail < RESP_HEADER_MAX ? RESP_SHORT : RESP_BAD;
	below = bytes_below(cr);
	n = bytes_count(below);
	if (avail < 9 + n + 2)
		return RESP_SHORT;
	first ^= BYTES('0');
	if (n)
		tail = digits_parse(word, below, n);
	if (!digits_valid(first) || tail < 0)
		return RESP_BAD;
	*value = digits_value(first) * power_of_ten(n) + tail;
	return 9 + n + 2;
}

#define CRLF ('\r' | '\n' << 8)

/*
 * A header of one to three digits, which most are: its size, or 0 when it is not one (or begins with a needless zero).
 * May claim bytes that are not there yet: the caller compares. A call would cost more than it does (return thunks).
 */
static __always_inline int resp_short_number(const __u8 *header, __u64 *value)
{
	__u64 word = env_load64(header);
	__u32 first = (word >> 8 & 0xff) - '0', second = (word >> 16 & 0xff) - '0', third = (word >> 24 & 0xff) - '0';

	if ((word >> 16 & 0xffff) == CRLF && first <= 9) {
		*value = first;
		return 4;
	}
	if ((word >> 24 & 0xffff) == CRLF && first - 1 <= 8 && second <= 9) {
		*value = 10 * first + second;
		return 5;
	}
	if ((word >> 32 & 0xffff) == CRLF && first - 1 <= 8 && second <= 9 && third <= 9) {
		*value = 100 * first + 10 * second + third;
		return 6;
	}
	return 0;
}

/* What must be readable where a header is parsed: the longest one, and what word loads touch behind it. */
struct resp_header {
	__u8 bytes[32];
};

/*
 * The number in a header, of which avail bytes are there; what is behind them may be anything. Returns the header's
 * size and sets *value, or one of the results above. The byte after CR is not looked at, as the server does not
 * (processMultibulkBuffer in redis 7.0 src/networking.c; valkey 9.1 does).
 *
 * A global function: the verifier looks at it once, and not at each of its outcomes once more for every caller.
 */
env_global int resp_number(const struct resp_header *header, __u32 avail, __u64 *value)
{
	__u64 word, cr, below;
	__s64 number;
	__u32 n;

	if (!header || !value)
		return RESP_BAD;
	word = env_load64(header->bytes + 1);
	cr = bytes_equal(word, '\r');
	if (!cr)
		return resp_long_number(header->bytes, avail, word, value);
	below = bytes_below(cr);
	n = bytes_count(below);
	if (avail < 1 + n + 2)
		return RESP_SHORT;
	if (!n)
		return RESP_BAD;
	number = digits_parse(word, below, n);
	if (number < 0) {
		if (n == 2 && (word & 0xffff) == ('-' | '1' << 8))
			return RESP_NULL;
		if (n == 1 && (word & 0xff) == '?')
			return RESP_STREAMED;
		return RESP_BAD;
	}
	*value = number;
	return 1 + n + 2;
}

/* "*-9223372036854775808\r\n" */
#define RESP_NEGATIVE_MAX 23

/*
 * The size of a header with a number below 0, RESP_SHORT, or RESP_BAD for what string2ll() (src/util.c of every server)
 * does not take for one: it has no zero in front and is -2^63 at least. Behind it comes LF, which only valkey 9.1 asks for:
 * without it, it is bad here.
 */
env_global int resp_negative(const struct resp_header *header, __u32 avail)
{
	__u64 value = 0;
	bool bad = false;
	__u32 i, digit;

	if (!header)
		return RESP_BAD;
	for (i = 2; i < RESP_NEGATIVE_MAX - 1 && header->bytes[i] != '\r'; i++) {
		digit = header->bytes[i] - '0';
		bad |= digit > 9;
		value = 10 * value + digit;
	}
	if (i == RESP_NEGATIVE_MAX - 1)
		return avail < RESP_NEGATIVE_MAX ? RESP_SHORT : RESP_BAD;
	if (avail < i + 2)
		return RESP_SHORT;
	if (bad || i == 2 || header->bytes[2] == '0' || value > 1ULL << 63 || header->bytes[i + 1] != '\n')
		return RESP_BAD;
	return i + 2;
}

#endif
