/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Who clients say they are: name, user, protocol and library, from the commands that say so and have succeeded
 * (EVENT_IDENTITY in bpf/abi/record.h). What is not certain is not known: absent, never wrong.
 */
#ifndef REPLYLOG_USER_OUTPUT_CLIENT_IDENTITY_H
#define REPLYLOG_USER_OUTPUT_CLIENT_IDENTITY_H

#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bpf/abi/record.h"

/* Longer ones are not kept whole on their way here. */
#define IDENTITY_WORD_MAX ARGV_MAX_ARG_BYTES
#define IDENTITY_WORDS CLIENT_WORDS

struct identity_word {
	uint8_t len; /* 0: none, or not known */
	char bytes[IDENTITY_WORD_MAX];
};

struct client_identity {
	uint32_t generation; /* of the connection whose identity this is; 0: none yet */
	bool lost;           /* and all below is empty */
	uint8_t resp;        /* version of the protocol: 2 or 3 */
	struct identity_word client_name, user, lib_name, lib_ver;
};

/* By connection number. */
struct client_identities {
	struct client_identity *of;
	uint32_t connections;
	bool hello_in_parts; /* options of a HELLO that fails may take effect: see quirk_hello_in_parts() */
};

/*
 * For connection numbers below connections, and a server whose HELLO is in parts, until that is changed. 0 or -ENOMEM;
 * either way client_identities_free() gives back what it holds.
 */
int client_identities_init(struct client_identities *all, uint32_t connections);
void client_identities_free(struct client_identities *all);

/*
 * What rec, of size bytes with its head and an EVENT_IDENTITY of some kind, says of its connection. 0, or -EBADMSG when
 * it is no record of ours.
 */
int client_identities_learn(struct client_identities *all, const struct reply_record *rec, size_t size);

/* What rec, which is ARGV_FROM_DISPATCH and whole, says itself of its client. */
void client_identity_from_dispatch(const struct reply_record *rec, struct client_identity *out);

/* Whose connection rec is about, as far as that was said before; NULL when it can't be known. */
const struct client_identity *client_identities_find(const struct client_identities *all, const struct reply_record *rec);

#endif
