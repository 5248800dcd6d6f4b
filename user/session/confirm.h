/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Writes records as soon as it is known whether they are paired rightly, and not before: see bpf/conn/pairing.h. What waits
 * for longer than --verify-wait is written as what it is: ambiguous.
 */
#ifndef REPLYLOG_USER_SESSION_CONFIRM_H
#define REPLYLOG_USER_SESSION_CONFIRM_H

#include "user/session/held.h"
#include "user/output/stream.h"
#include "user/session/verify.h"

/* How long records have waited: a count for each of these lengths, an eighth of an octave of microseconds wide. */
#define WAIT_STEPS 8
#define WAIT_OCTAVES 40

struct waits {
	uint64_t count[WAIT_OCTAVES * WAIT_STEPS];
	uint64_t records, max_us;
};

struct confirm {
	struct held held;
	struct verifier verifier;
	struct stream *stream;
	struct client_identities *identities;
	uint64_t wait_ns;     /* --verify-wait */
	uint64_t told_by_bpf; /* losses out_of_step that EVENT_CHECKED has already reported */
	struct waits waits;
};

struct confirm_setup {
	struct stream *stream;
	struct client_identities *identities;
	struct verifier_setup verify;
	uint64_t wait_ns;
};

/*
 * Begins with nothing held, for one run. stream and identities are the caller's. 0, or -errno; either way confirm_close()
 * gives back what it holds.
 */
int confirm_init(struct confirm *p, const struct confirm_setup *setup);
void confirm_close(struct confirm *p);

/* A record of BPF's, of size bytes, at this moment: written, held or learnt from. 0 or the error of the stream. */
int confirm_take(struct confirm *p, const struct reply_record *rec, size_t size, uint64_t now_ns);

/* Looks at the connections whose turn it is. 0 or the error of the stream. */
int confirm_look(struct confirm *p, uint64_t now_ns);

/* When confirm_look() is to be called next; UINT64_MAX: nothing waits. */
uint64_t confirm_next_ns(const struct confirm *p);

/* Nothing will be known any more: what waits is written as ambiguous. 0 or the error of the stream. */
int confirm_give_up(struct confirm *p, uint64_t now_ns);

/* Of all records that have waited, half waited for at most this long, to a ninth. Microseconds; 0 when none has. */
uint64_t waits_median_us(const struct waits *waits);

#endif
