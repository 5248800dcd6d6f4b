/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * From outside: does the server's struct client prove that a connection's replies and commands are in step? Looks at what
 * BPF has counted, at the struct, twice, and at the counters again: with unchanged counters nothing was read or written
 * in between, and a struct that changes while it is read is not the same twice (bpf/server/proof.h has the conditions).
 */
#ifndef REPLYLOG_USER_SESSION_VERIFY_H
#define REPLYLOG_USER_SESSION_VERIFY_H

#include <linux/types.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "bpf/abi/layout.h"
#include "bpf/abi/shared.h"

/* A BPF map of arrays, as memory. */
struct mapped {
	char *entries; /* NULL: there is none */
	size_t stride; /* from one entry to the next */
	__u32 count;
};

struct verifier {
	struct mapped connections;
	const volatile struct engine_state *state;
};

struct verifier_setup {
	pid_t server;
	const struct client_layout *layout;        /* copied */
	int connections_fd;                        /* the BPF map of connections, */
	__u32 connections;                         /* which has so many */
	int dispatches_fd;                         /* and that of their executions; -1: they are not observed */
	const volatile struct engine_state *state; /* the caller's: nothing is proven while the probes don't act */
};

enum verify_verdict {
	VERIFY_IN_STEP,     /* as many replies as commands, and no doubt */
	VERIFY_DOUBT,       /* as many, but something may have been answered never, and something else twice */
	VERIFY_NOT_YET,     /* something is outstanding, or it can't be told */
	VERIFY_OUT_OF_STEP, /* the server has nothing outstanding, and we have, for as long as it takes to look */
};

/*
 * One server at a time, and the maps are its own. 0, or -errno when they can't be mapped; either way verifier_close()
 * gives back what it holds.
 */
int verifier_open(struct verifier *v, const struct verifier_setup *setup);
void verifier_close(struct verifier *v);

/*
 * The present state of rec's connection, unless BPF has sent a verdict on its held records since rec; and with
 * VERIFY_IN_STEP, whether the records' executions are proven, too. Takes some microseconds.
 */
enum verify_verdict verify_connection(const struct verifier *v, const struct reply_record *rec, bool *executions);

/* Tells BPF that the connection is out of step: it joins it anew at its next read, and says EVENT_CHECKED. */
void verify_refute(const struct verifier *v, __u32 number, __u32 generation);

#endif
