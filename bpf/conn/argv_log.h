/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The heads of the commands whose replies are outstanding, per connection, in the order they were read. They stay until
 * the reply is complete, however long that takes and whatever other clients do in the meantime.
 *
 * What can't be kept is not forgotten: the command keeps its number, so later replies still find their own commands,
 * and a record without a head says why.
 */
#ifndef REPLYLOG_BPF_CONN_ARGV_LOG_H
#define REPLYLOG_BPF_CONN_ARGV_LOG_H

#include "bpf/conn/connection.h"
#include "bpf/port.h"

/* The block that is being written; NULL: the inline page is. */
static __always_inline struct argv_block *argv_block(const struct connection *conn)
{
	if (!conn->in_block)
		return NULL;
	return block_at(conn->block[(conn->blocks_to - 1) % CONNECTION_BLOCKS]);
}

static __always_inline struct argv_page *argv_page(struct connection *conn)
{
	struct argv_block *block = argv_block(conn);

	return block ? &block->page : &conn->argv.page;
}

static __always_inline void page_start(struct argv_page *page, __u64 first_seq)
{
	page->first_seq = first_seq;
	page->entries = 0;
	page->used = 0;
}

/*
 * n bytes at off of a page, 0 or -1 when they don't lie in it. Bounds are checked right where they are used and in 64
 * bits: the verifier of Linux 6.1 forgets them when the compiler keeps another copy of the number on the stack.
 */
static __always_inline int head_copy_part(__u8 *to, const __u8 *page, __u64 off, __u64 n, const __u64 limit,
					  const __u64 part)
{
	env_opaque(off);
	env_opaque(n);
	if (off > limit || n > part)
		return -1;
	return env_copy(to, n, page + off);
}

/*
 * Copies a head of len bytes out of a page, in two parts: 0, or -1 when it does not lie in the page. limit is the end
 * of what can be used in the page, part the room behind it.
 */
static __always_inline int head_copy(__u8 *to, const __u8 *page, __u32 off, __u32 len, const __u32 limit, const __u32 part)
{
	__u32 first = len < part ? len : part;

	if (head_copy_part(to, page, off, first, limit, part))
		return -1;
	if (first == len)
		return 0;
	return head_copy_part(to + part, page, off + part, len - first, limit, part);
}

static __always_inline int head_from_block(__u8 *to, const struct argv_block *block, __u32 off, __u32 len)
{
	return head_copy(to, block->bytes, off, len, BLOCK_LIMIT + BLOCK_RUN, BLOCK_PART);
}

static __always_inline int head_from_inline(__u8 *to, const struct argv_inline *argv, __u32 off, __u32 len)
{
	return head_copy(to, argv->bytes, off, len, INLINE_LIMIT + INLINE_RUN, INLINE_PART);
}

/* The heads of the current command and of those after it, until argv_make_room() finds a page again, are lost. */
static __always_inline void argv_lose(struct connection *conn, struct argv_page *page, __u8 reason)
{
	if (!conn->head_lost && conn->request.state != REQUEST_BOUNDARY && page->used > conn->request.head_off)
		page->used = conn->request.head_off;
	conn->head_lost = 1;
	conn->lost_reason = reason;
}

/* A block of the pool for this connection; NULL when it may have no more (reason: enum argv_status). */
static __always_inline struct argv_block *argv_take_block(const struct connection *conn, __u32 *index, __u8 *reason)
{
	*reason = ARGV_LOST_DEPTH;
	if (outstanding(conn) >= pipeline_limit() || conn->blocks_to - conn->blocks_from >= CONNECTION_BLOCKS)
		return NULL;
	*reason = ARGV_LOST_MEMORY;
	return block_take(index) ? NULL : block_at(*index);
}

/* Copies the first len bytes of the head that is not finished yet to a new block, out of the page old (NULL: inline). */
static __always_inline int argv_move_head(const struct connection *conn, struct argv_block *block,
					  const struct argv_block *old, __u32 len)
{
	if (!len)
		return 0;
	if (old)
		return head_from_block(block->bytes, old, conn->request.head_off, len);
	return head_from_inline(block->bytes, &conn->argv, conn->request.head_off, len);
}

/* Opens a new block for the current command, whose head so far (if any) moves there. */
env_noinline int argv_open_block(struct connection *conn)
{
	struct argv_block *old = argv_block(conn), *block;
	struct argv_page *page = old ? &old->page : &conn->argv.page;
	bool partial = conn->request.state != REQUEST_BOUNDARY && !conn->head_lost;
	__u32 len = partial ? page->used - conn->request.head_off : 0, index = 0;
	__u8 reason;

	block = argv_take_block(conn, &index, &reason);
	if (!block) {
		argv_lose(conn, page, reason);
		return -1;
	}
	page_start(&block->page, conn->read_seq);
	if (argv_move_head(conn, block, old, len)) {
		block_give(index);
		argv_lose(conn, page, ARGV_LOST_MEMORY);
		return -1;
	}
	block->page.used = len;
	if (partial)
		page->used = conn->request.head_off;
	conn->request.head_off = 0;
	conn->block[conn->blocks_to % CONNECTION_BLOCKS] = index;
	conn->blocks_to++;
	conn->in_block = 1;
	conn->head_lost = 0;
	return 0;
}

/* True when the page can take a run of at most len bytes and, at a boundary, one more command. */
static __always_inline bool argv_has_room(const struct connection *conn, __u32 len)
{
	const struct argv_block *block;

	if (conn->head_lost)
		return conn->request.state != REQUEST_BOUNDARY;
	block = argv_block(conn);
	if (block)
		return block->page.used <= BLOCK_LIMIT && block->page.entries < BLOCK_ENTRIES;
	return conn->argv.page.used <= INLINE_LIMIT && conn->argv.page.entries < INLINE_ENTRIES && len <= INLINE_RUN;
}

/* Before a run of len bytes is parsed: sees to a page that it can be appended to. */
static __always_inline void argv_make_room(struct connection *conn, __u32 len)
{
	if (!argv_has_room(conn, len))
		argv_open_block(conn);
}

static __always_inline int append_to_block(struct argv_block *block, const __u8 *from, __u32 n)
{
	__u32 off = block->page.used;

	env_opaque(off);
	env_opaque(n);
	if (off > BLOCK_LIMIT || n > BLOCK_RUN)
		return -1;
	block->page.used = off + n;
	return env_copy(block->bytes + off, n, from);
}

/* What most reads bring is less than this. */
#define SHORT_RUN 64

/* Eight words, whatever the length: a fraction of what the kernel's copy costs. What is too much gets overwritten. */
static __always_inline int copy_short_run(__u8 *to, const __u8 *from)
{
	__u32 i;

	for (i = 0; i < SHORT_RUN; i += 8)
		env_store64(to + i, env_load64(from + i));
	return 0;
}

static __always_inline int append_inline(struct argv_inline *argv, const __u8 *from, __u32 n)
{
	__u32 off = argv->page.used;

	env_opaque(off);
	env_opaque(n);
	if (off > INLINE_LIMIT || n > INLINE_RUN)
		return -1;
	argv->page.used = off + n;
	if (n <= SHORT_RUN)
		return copy_short_run(argv->bytes + off, from);
	return env_copy(argv->bytes + off, n, from);
}

/* Appends the window's bytes from..to to the page, which argv_make_room() has seen to. */
env_noinline int argv_append(struct connection *conn, const struct work *work, __u32 from, __u32 to)
{
	__u32 n = to - from;
	struct argv_block *block;
	int err;

	env_opaque(from);
	if (!n || conn->head_lost || from > WINDOW_END)
		return 0;
	block = argv_block(conn);
	if (block)
		err = append_to_block(block, work->bytes + from, n);
	else
		err = append_inline(&conn->argv, work->bytes + from, n);
	if (err)
		argv_lose(conn, argv_page(conn), ARGV_LOST_MEMORY);
	return err;
}

static __always_inline void entry_set(struct argv_entry *entry, __u64 now, __u64 bytes, __u32 off, __u32 len, bool pipelined)
{
	entry->pipelined = pipelined;
	entry->request_ns = now;
	entry->request_bytes = bytes < REQUEST_HUGE ? bytes : REQUEST_HUGE;
	entry->off = off;
	entry->len = len;
}

/* A command is complete: its head is, or will be when the run is appended, len bytes at off of the page. */
static __always_inline void argv_push(struct connection *conn, __u32 off, __u32 len, __u64 now, __u64 bytes)
{
	struct argv_block *block;
	__u32 i;

	if (conn->head_lost)
		return;
	if (bytes >= REQUEST_HUGE) {
		conn->huge.seq = conn->read_seq;
		conn->huge.bytes = bytes;
	}
	block = argv_block(conn);
	if (block) {
		i = block->page.entries;
		env_opaque(i);
		if (i >= BLOCK_ENTRIES) {
			argv_lose(conn, &block->page, ARGV_LOST_MEMORY);
			return;
		}
		entry_set(&block->entry[i], now, bytes, off, len, outstanding(conn));
		block->page.entries = i + 1;
		return;
	}
	i = conn->argv.page.entries;
	env_opaque(i);
	if (i >= INLINE_ENTRIES) {
		argv_lose(conn, &conn->argv.page, ARGV_LOST_MEMORY);
		return;
	}
	entry_set(&conn->argv.entry[i], now, bytes, off, len, outstanding(conn));
	conn->argv.page.entries = i + 1;
}

struct block_release {
	struct connection *conn;
	__u64 needed_seq; /* blocks whose commands are all below this are done */
	bool all;
};

static long block_release_step(__u32 i, void *data)
{
	struct block_release *release = data;
	struct connection *conn = release->conn;
	__u32 index;
	struct argv_block *block;

	if (conn->blocks_from == conn->blocks_to)
		return 1;
	index = conn->block[conn->blocks_from % CONNECTION_BLOCKS];
	block = block_at(index);
	if (!block)
		return 1;
	if (!release->all &&
	    (conn->blocks_from + 1 == conn->blocks_to || block->page.first_seq + block->page.entries > release->needed_seq))
		return 1;
	conn->blocks_from++;
	block_give(index);
	return 0;
}

static __always_inline void argv_release(struct connection *conn, bool all)
{
	struct block_release release = {
		.conn = conn,
		.needed_seq = conn->session.multi ? conn->session.first_queued : conn->reply_seq,
		.all = all,
	};

	if (conn->blocks_from == conn->blocks_to)
		return;
	env_loop(CONNECTION_BLOCKS, block_release_step, &release);
	if (all)
		conn->in_block = 0;
}

/* Does nothing that was read need its head any more? What is queued in a transaction does. */
static __always_inline bool argv_idle(const struct connection *conn)
{
	return !outstanding(conn) && conn->request.state == REQUEST_BOUNDARY && !conn->session.multi;
}

/* After replies were written: gives back what no outstanding command needs. */
static __always_inline void argv_after_write(struct connection *conn)
{
	if (conn->blocks_from == conn->blocks_to)
		return;
	argv_release(conn, argv_idle(conn));
}

/* Before a read is framed: with nothing outstanding and no command half read, everything starts afresh. */
static __always_inline void argv_before_read(struct connection *conn)
{
	if (!argv_idle(conn))
		return;
	argv_release(conn, true);
	page_start(&conn->argv.page, conn->read_seq);
	conn->head_lost = 0;
}

/* Where the head of one command is. */
struct argv_found {
	struct argv_entry entry;
	__u8 status;              /* enum argv_status */
	struct argv_block *block; /* NULL: in the inline page */
};

/* The request's size on the wire, 0 when it is not known any more. */
static __always_inline __u64 argv_request_bytes(const struct connection *conn, __u64 seq, const struct argv_found *found)
{
	if (found->entry.request_bytes < REQUEST_HUGE)
		return found->entry.request_bytes;
	return conn->huge.seq == seq ? conn->huge.bytes : 0;
}

/* Blocks are in the order of their commands: the last one that begins at or before seq is one of [n, n + count). */
struct block_search {
	struct connection *conn;
	__u64 seq;
	__u32 n;
	__u32 count;
};

#define SEARCH_STEPS 8

_Static_assert(CONNECTION_BLOCKS <= 1 << SEARCH_STEPS, "halved so often, one is left");

static long block_search_step(__u32 i, void *data)
{
	struct block_search *search = data;
	__u32 half = search->count / 2, middle = search->n + half;
	const struct argv_block *block;

	if (!half)
		return 1;
	block = block_at(search->conn->block[middle % CONNECTION_BLOCKS]);
	if (!block)
		return 1;
	if (block->page.first_seq <= search->seq) {
		search->n = middle;
		search->count -= half;
	} else {
		search->count = half;
	}
	return 0;
}

/* A head is only what was appended: an entry that claims more is not believed. */
static __always_inline bool entry_within(const struct argv_entry *entry, const struct argv_page *page)
{
	return (__u32)entry->off + entry->len <= page->used;
}

/* Command i of the inline page. */
static __always_inline void argv_find_inline(const struct connection *conn, __u64 i, struct argv_found *found)
{
	found->status = ARGV_KEPT;
	env_opaque(i);
	if (i >= INLINE_ENTRIES)
		return;
	found->entry = conn->argv.entry[i];
	if (!entry_within(&found->entry, &conn->argv.page))
		found->status = ARGV_LOST_MEMORY;
}

/* Command number seq in the connection's blocks, of which there is at least one. */
static __always_inline void argv_find_in_blocks(struct connection *conn, __u64 seq, struct argv_found *found)
{
	struct block_search search = {
		.conn = conn,
		.seq = seq,
		.n = conn->blocks_from,
		.count = conn->blocks_to - conn->blocks_from,
	};
	__u64 i;

	env_loop(SEARCH_STEPS, block_search_step, &search);
	found->block = block_at(conn->block[search.n % CONNECTION_BLOCKS]);
	if (!found->block)
		return;
	i = seq - found->block->page.first_seq;
	env_opaque(i);
	if (i >= BLOCK_ENTRIES || i >= found->block->page.entries)
		return;
	found->entry = found->block->entry[i];
	if (entry_within(&found->entry, &found->block->page))
		found->status = ARGV_KEPT;
}

/* Finds command number seq, which is outstanding or queued in a transaction. */
static __always_inline void argv_find(struct connection *conn, __u64 seq, struct argv_found *found)
{
	__u64 i = seq - conn->argv.page.first_seq;

	found->block = NULL;
	if (i < conn->argv.page.entries)
		return argv_find_inline(conn, i, found);
	found->status = conn->lost_reason;
	if (conn->blocks_to != conn->blocks_from)
		argv_find_in_blocks(conn, seq, found);
}

#endif
