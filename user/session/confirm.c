/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/session/confirm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "user/debug.h"
#include "user/output/argv.h"
#include "user/session/reply_fits.h"
#include "user/output/debug_line.h"
#include "user/output/execution.h"

#define NS_PER_US 1000
#define NS_PER_MS 1000000

/* A connection is looked at after this long, and then less and less often. */
#define LOOK_FIRST_NS NS_PER_MS
#define LOOK_LAST_NS (32 * NS_PER_MS)

/* Connections looked at before records are read again. */
#define LOOKS_MAX 256

int confirm_init(struct confirm *p, const struct confirm_setup *setup)
{
	int err;

	memset(p, 0, sizeof(*p));
	p->stream = setup->stream;
	p->identities = setup->identities;
	p->wait_ns = setup->wait_ns;
	err = held_init(&p->held, setup->verify.connections);
	return err ? err : verifier_open(&p->verifier, &setup->verify);
}

void confirm_close(struct confirm *p)
{
	verifier_close(&p->verifier);
	held_free(&p->held);
}

/* ---- how long records wait ---- */

static size_t wait_bucket(uint64_t us)
{
	int octave;
	size_t bucket;

	if (us < WAIT_STEPS)
		return us;
	octave = 63 - __builtin_clzll(us);
	bucket = (size_t)(octave - 2) * WAIT_STEPS + (us >> (octave - 3)) % WAIT_STEPS;
	return bucket < WAIT_OCTAVES * WAIT_STEPS ? bucket : WAIT_OCTAVES * WAIT_STEPS - 1;
}

/* The longest wait that counts in a bucket. */
static uint64_t bucket_us(size_t bucket)
{
	uint64_t step = bucket % WAIT_STEPS, octave = bucket / WAIT_STEPS;

	if (octave < 1)
		return bucket;
	return ((WAIT_STEPS + step + 1) << (octave - 1)) - 1;
}

static void waits_note(struct waits *waits, uint64_t us)
{
	waits->count[wait_bucket(us)]++;
	waits->records++;
	if (us > waits->max_us)
		waits->max_us = us;
}

uint64_t waits_median_us(const struct waits *waits)
{
	uint64_t seen = 0;

	for (size_t i = 0; i < WAIT_OCTAVES * WAIT_STEPS; i++) {
		seen += waits->count[i];
		if (2 * seen >= waits->records)
			return waits->records && bucket_us(i) < waits->max_us ? bucket_us(i) : waits->max_us;
	}
	return 0;
}

/* ---- what becomes of a record ---- */

static int write_record(struct confirm *p, const struct reply_record *rec, size_t size)
{
	if (size >= sizeof(*rec) && rec->event != EVENT_REPLY)
		return client_identities_learn(p->identities, rec, size);
	return stream_reply(p->stream, rec, size);
}

/* Which command it answers is not proven; so it isn't either what earlier ones made of the client. A push answers none. */
static void make_ambiguous(struct reply_record *rec)
{
	if (rec->event != EVENT_REPLY)
		rec->event = EVENT_IDENTITY_LOST;
	if (rec->event == EVENT_REPLY && rec->kind == KIND_PUSH)
		return;
	rec->attribution = ATTRIBUTION_AMBIGUOUS;
	rec->from_start = 0;
	rec->db = -1;
	record_forget_execution(rec);
}

/* What is known of the records that wait. */
enum proof {
	PROOF_NONE,    /* they are ambiguous */
	PROOF_PAIRING, /* they are exact, but which execution they are of is not known */
	PROOF_ALL,
};

/* --debug: what becomes of the records that wait. */
static void explain(const struct reply_record *rec, const char *decision)
{
	char client[DEBUG_CLIENT_TEXT];

	if (!debug_on())
		return;
	debug_client(client, rec);
	debug_say("%s: %s", client, decision);
}

/* The first item is written, as what it is now known to be. */
static int settle_first(struct confirm *p, struct held_connection *conn, enum proof proof, uint64_t now_ns)
{
	struct held_item *item = held_take(&p->held, conn);
	int err;

	if (proof == PROOF_NONE)
		make_ambiguous(&item->rec);
	else if (proof == PROOF_PAIRING)
		record_forget_execution(&item->rec);
	if (item->rec.event == EVENT_REPLY)
		waits_note(&p->waits, (now_ns - item->since_ns) / NS_PER_US);
	err = write_record(p, &item->rec, item->size);
	free(item);
	return err;
}

static int settle(struct confirm *p, struct held_connection *conn, enum proof proof, uint64_t now_ns)
{
	int err = 0;

	while (conn->first && !err)
		err = settle_first(p, conn, proof, now_ns);
	return err;
}

/* The number belongs to another connection now: of the one before, nothing more will be known. */
static int forget_predecessor(struct confirm *p, const struct reply_record *rec, uint64_t now_ns)
{
	struct held_connection *conn = held_find(&p->held, rec);
	int err;

	if (!conn || conn->generation == rec->generation)
		return 0;
	err = settle(p, conn, PROOF_NONE, now_ns);
	held_close(&p->held, conn);
	return err;
}

static int hold(struct confirm *p, struct held_connection *conn, const struct reply_record *rec, size_t size,
		uint64_t now_ns)
{
	struct reply_record *copy;
	int err;

	if (!conn->first) {
		conn->pause_ns = LOOK_FIRST_NS;
		conn->look_ns = now_ns + conn->pause_ns;
	}
	if (!conn->refuted && !held_add(&p->held, conn, rec, size, now_ns))
		return 0;
	/* It can't wait: there is no memory, or it is known to be no use. */
	err = settle(p, conn, PROOF_NONE, now_ns);
	copy = malloc(size);
	if (!copy)
		return err ? err : -ENOMEM;
	memcpy(copy, rec, size);
	make_ambiguous(copy);
	err = err ? err : write_record(p, copy, size);
	free(copy);
	return err;
}

/* BPF has checked. What it finds out of step may be what user space has refuted: the stream says it once. */
static int on_checked(struct confirm *p, const struct reply_record *rec, uint64_t now_ns)
{
	struct held_connection *conn = held_find(&p->held, rec);
	enum proof proof = rec->attribution == ATTRIBUTION_AMBIGUOUS || (conn && conn->refuted) ? PROOF_NONE
			   : rec->executions                                                    ? PROOF_ALL
												: PROOF_PAIRING;
	int err = 0;

	explain(rec, proof == PROOF_NONE ? "BPF has checked: the records that wait are ambiguous"
					 : "BPF has checked: the records that wait are exact");
	if (rec->out_of_step) {
		p->told_by_bpf++;
		err = conn && conn->refuted ? 0 : stream_out_of_step(p->stream, rec);
	}
	if (!conn)
		return err;
	if (!err)
		err = settle(p, conn, proof, now_ns);
	held_close(&p->held, conn);
	return err;
}

/* A reply that its command can't have. PING is answered by an array to a subscriber of RESP2, and +QUEUED fits any. */
static bool is_misfit(const struct reply_record *rec)
{
	struct argv a;

	if (rec->event != EVENT_REPLY || rec->kind == KIND_PUSH || rec->attribution != ATTRIBUTION_EXACT ||
	    rec->argv_status != ARGV_KEPT || rec->reply_type == '-' || !rec->reply_type ||
	    (rec->kind == KIND_MULTI && rec->reply_type == '+'))
		return false;
	if (argv_decode(&a, rec + 1, rec->argv_len, rec->argv_cut) || !a.n ||
	    (rec->reply_type == '*' && argv_arg_reads(&a.arg[0], "ping")))
		return false;
	return !reply_fits_command(&a, rec->reply_type, 0);
}

/* It doesn't add up, and BPF does not know. */
static int refute(struct confirm *p, struct held_connection *conn, const struct reply_record *rec)
{
	if (conn->refuted)
		return 0;
	conn->refuted = true;
	verify_refute(&p->verifier, conn->number, conn->generation);
	return stream_out_of_step(p->stream, rec);
}

static bool is_whole(const struct reply_record *rec, size_t size)
{
	return size >= sizeof(*rec) && rec->argv_len <= size - sizeof(*rec);
}

int confirm_take(struct confirm *p, const struct reply_record *rec, size_t size, uint64_t now_ns)
{
	struct held_connection *conn;
	bool misfit;
	int err;

	if (!is_whole(rec, size))
		return -EBADMSG;
	err = forget_predecessor(p, rec, now_ns);
	if (err)
		return err;
	if (rec->event == EVENT_CHECKED)
		return on_checked(p, rec, now_ns);
	conn = held_find(&p->held, rec);
	misfit = is_misfit(rec);
	if (!conn && rec->check == CHECK_CERTAIN && !misfit)
		return write_record(p, rec, size);
	conn = held_open(&p->held, rec);
	if (!conn)
		return rec->connection < p->held.connections ? -ENOMEM : -EBADMSG;
	if (misfit) {
		explain(rec, "refuted: the command in this record cannot have such a reply (loss: out_of_step)");
		err = refute(p, conn, rec);
	}
	return err ? err : hold(p, conn, rec, size, now_ns);
}

/* What has waited for long enough is ambiguous. Should nothing be outstanding on the server's side, it is out of step. */
static int run_out(struct confirm *p, struct held_connection *conn, enum verify_verdict verdict, uint64_t now_ns)
{
	int err = 0;

	if (verdict == VERIFY_OUT_OF_STEP) {
		explain(&conn->first->rec, "refuted: the server has nothing outstanding, and BPF has (loss: out_of_step)");
		err = refute(p, conn, &conn->first->rec);
	}
	explain(&conn->first->rec, "no proof within --verify-wait: records that have waited so long are ambiguous");
	while (!err && conn->first && now_ns - conn->first->since_ns >= p->wait_ns)
		err = settle_first(p, conn, PROOF_NONE, now_ns);
	return err;
}

static int look_at(struct confirm *p, struct held_connection *conn, uint64_t now_ns)
{
	bool executions = false;
	enum verify_verdict verdict = verify_connection(&p->verifier, &conn->last->rec, &executions);
	int err = 0;

	if (verdict == VERIFY_IN_STEP && !conn->refuted) {
		explain(&conn->last->rec, "proof found in the server's structs: the records that wait are exact");
		err = settle(p, conn, executions ? PROOF_ALL : PROOF_PAIRING, now_ns);
	} else if (verdict == VERIFY_DOUBT) {
		explain(&conn->last->rec,
			"replies and commands are in step, but there is a doubt: the records that wait are ambiguous");
		err = settle(p, conn, PROOF_NONE, now_ns);
	} else if (now_ns - conn->first->since_ns >= p->wait_ns) {
		err = run_out(p, conn, verdict, now_ns);
	}
	if (!conn->first && !conn->refuted) {
		held_close(&p->held, conn);
		return err;
	}
	conn->pause_ns = conn->pause_ns < LOOK_LAST_NS ? 2 * conn->pause_ns : LOOK_LAST_NS;
	conn->look_ns = now_ns + conn->pause_ns;
	held_to_end(&p->held, conn);
	return err;
}

int confirm_look(struct confirm *p, uint64_t now_ns)
{
	struct held_connection *conn = p->held.all, *after;
	int err = 0, looks = 0;

	/* Who was looked at comes last, and is not due again. */
	for (; conn && !err && looks < LOOKS_MAX; conn = after) {
		after = conn->after;
		if (!conn->first || conn->look_ns > now_ns)
			continue;
		err = look_at(p, conn, now_ns);
		looks++;
	}
	return err;
}

uint64_t confirm_next_ns(const struct confirm *p)
{
	const struct held_connection *conn;
	uint64_t next = UINT64_MAX;

	for (conn = p->held.all; conn; conn = conn->after)
		if (conn->first && conn->look_ns < next)
			next = conn->look_ns;
	return next;
}

int confirm_give_up(struct confirm *p, uint64_t now_ns)
{
	int err = 0;

	while (p->held.all && !err) {
		err = settle(p, p->held.all, PROOF_NONE, now_ns);
		held_close(&p->held, p->held.all);
	}
	return err;
}
