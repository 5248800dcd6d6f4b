/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The layout of struct client from debug information. The file is the server's: it may be anything, so whatever it
 * says is checked against the bounds of the structs it says it of, and walks through it end.
 */
#include <dwarf.h>
#include <elfutils/libdw.h>
#include <errno.h>
#include <gelf.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "user/code/layouts.h"

/* A server has some 300,000 entries at the top of its units; this many are looked at in all. */
#define ENTRIES_MAX 20000000
/* Of all sections, those that are compressed as they will be in memory. Servers have 20 MB. */
#define SECTIONS_MAX (1ULL << 30)
/* Typedefs, qualifiers and anonymous structs around the thing itself. */
#define NESTING_MAX 8
#define PATH_NAME_MAX 32

struct search {
	Dwarf_Die client;
	unsigned long entries_left;
};

/* Where a member lies, counted from the start of the struct at the path's last '>'. */
struct member {
	Dwarf_Die type;
	uint64_t bit_offset;
	uint64_t bits;
};

/* a.b is a member of a member, a>b a member of what a points at. Several names: of different versions. */
struct wanted_field {
	size_t field;
	const char *path[3];
	bool required;
};

#define FIELD(name, needed, ...)                                              \
	{                                                                     \
		offsetof(struct client_layout, name), { __VA_ARGS__ }, needed \
	}

/* valkey 9.1 src/server.h (first name), redis 8.6 src/server.h. */
static const struct wanted_field wanted_fields[] = {
	FIELD(id, true, "id"),
	FIELD(conn, true, "conn"),
	FIELD(resp, true, "resp"),
	FIELD(db, true, "db"),
	FIELD(user, true, "user"),
	FIELD(name, true, "name"),
	FIELD(lib_name, false, "lib_name"),
	FIELD(lib_ver, false, "lib_ver"),
	FIELD(querybuf, true, "querybuf"),
	FIELD(qb_pos, true, "qb_pos"),
	FIELD(reqtype, true, "reqtype"),
	FIELD(multibulklen, true, "multibulklen"),
	FIELD(bulklen, true, "bulklen"),
	FIELD(argc, true, "argc"),
	FIELD(argv, true, "argv"),
	FIELD(queued, false, "cmd_queue.len", "pending_cmds.len"),
	FIELD(bufpos, true, "bufpos"),
	FIELD(reply, true, "reply"),
	FIELD(sentlen, false, "sentlen", "io_last_written.data_len"),
	FIELD(deferred_reply, false, "deferred_reply"),
	FIELD(io_read_state, false, "io_read_state"),
	FIELD(io_write_state, false, "io_write_state"),
	FIELD(nwritten, false, "nwritten"),
	FIELD(running_tid, false, "running_tid"),
	FIELD(io_flags, false, "io_flags"),
	FIELD(slot_migration_job, false, "slot_migration_job"),
	FIELD(flags, true, "flag", "flags"),
	FIELD(list_len, true, "reply>len"),
	FIELD(db_id, true, "db>id"),
	FIELD(user_name, true, "user>name"),
	FIELD(robj_ptr, true, "argv>>ptr", "argv>>val_ptr"),
};

/*
 * Redis keeps its flags in one word and their bits in macros, which debug information leaves out. They are the same in
 * src/server.h of redis 6.0.0 to 7.4.1, 8.0.2, 8.0.6 and 8.6.3, and of valkey 7.2; what a release does not have yet it
 * leaves clear, but for one: see redis_has().
 */
struct wanted_flag {
	const char *name; /* in valkey's struct ClientFlags; NULL: it has none */
	int redis_bit;    /* -1: redis has none */
};

static const struct wanted_flag wanted_flags[CLIENT_FLAGS] = {
	[FLAG_PRIMARY] = { "primary", 1 },
	[FLAG_REPLICA] = { "replica", 0 },
	[FLAG_MONITOR] = { "monitor", 2 },
	[FLAG_BLOCKED] = { "blocked", 4 },
	[FLAG_UNBLOCKED] = { "unblocked", 7 },
	[FLAG_PENDING_COMMAND] = { "pending_command", 30 },
	[FLAG_PUBSUB] = { "pubsub", 18 },
	[FLAG_REPLY_OFF] = { "reply_off", 22 },
	[FLAG_REPLY_SKIP_NEXT] = { "reply_skip_next", 23 },
	[FLAG_REPLY_SKIP] = { "reply_skip", 24 },
	[FLAG_LUA_DEBUG] = { "lua_debug", 25 },
	[FLAG_CLOSE_ASAP] = { "close_asap", 10 },
	[FLAG_CLOSE_AFTER_REPLY] = { "close_after_reply", 6 },
	[FLAG_CLOSE_AFTER_COMMAND] = { "close_after_command", 40 },
	[FLAG_REPL_RDB_CHANNEL] = { "repl_rdb_channel", 51 },
	[FLAG_ASM_MIGRATING] = { NULL, 53 },
	[FLAG_ASM_IMPORTING] = { NULL, 54 },
	[FLAG_MULTI] = { "multi", 3 },
	[FLAG_TRACKING] = { "tracking", 31 },
	[FLAG_EXECUTING] = { "executing_command", 29 },
};

static bool redis_bits_known(const char *name_version)
{
	unsigned int major, minor;

	if (sscanf(name_version, "redis %u.%u.", &major, &minor) == 2)
		return major == 6 || major == 7 || (major == 8 && minor <= 6);
	return sscanf(name_version, "valkey %u.%u.", &major, &minor) == 2 && major == 7 && minor == 2;
}

/* CLIENT_EXECUTING_COMMAND is of redis 7.2; redis 6 has another flag in its place. */
static bool redis_has(const char *name_version, int flag)
{
	unsigned int major, minor;

	if (flag != FLAG_EXECUTING || sscanf(name_version, "redis %u.%u.", &major, &minor) != 2)
		return true;
	return major > 7 || (major == 7 && minor >= 2);
}

/* ---- entries ---- */

static bool number(Dwarf_Die *die, unsigned int name, uint64_t *out)
{
	Dwarf_Attribute attr;
	Dwarf_Word word;

	if (!dwarf_attr_integrate(die, name, &attr) || dwarf_formudata(&attr, &word))
		return false;
	*out = word;
	return true;
}

/* The type of a member or of what a pointer points at, without its typedefs and qualifiers. */
static bool type_of(Dwarf_Die *die, Dwarf_Die *type)
{
	Dwarf_Attribute attr;
	Dwarf_Die current;
	int i;

	if (!dwarf_attr_integrate(die, DW_AT_type, &attr) || !dwarf_formref_die(&attr, type))
		return false;
	for (i = 0; i < NESTING_MAX; i++) {
		switch (dwarf_tag(type)) {
		case DW_TAG_typedef:
		case DW_TAG_const_type:
		case DW_TAG_volatile_type:
		case DW_TAG_atomic_type:
		case DW_TAG_restrict_type:
			current = *type;
			if (!dwarf_attr_integrate(&current, DW_AT_type, &attr) || !dwarf_formref_die(&attr, type))
				return false;
			break;
		default:
			return true;
		}
	}
	return false;
}

/* The entry after die on its level. Entries lie one after the other: one that points back would lead into a circle. */
static bool next_entry(struct search *search, Dwarf_Die *die)
{
	Dwarf_Off here = dwarf_dieoffset(die);

	if (!search->entries_left || dwarf_siblingof(die, die) || dwarf_dieoffset(die) <= here)
		return false;
	search->entries_left--;
	return true;
}

static bool is_aggregate(Dwarf_Die *die)
{
	int tag = dwarf_tag(die);

	return tag == DW_TAG_structure_type || tag == DW_TAG_union_type;
}

/* ---- members ---- */

/* A number, or in DWARF 2 an expression that adds one. A union's members have none. */
static bool member_location(Dwarf_Die *die, uint64_t *bytes)
{
	Dwarf_Attribute attr;
	Dwarf_Op *op;
	size_t ops;

	*bytes = 0;
	if (!dwarf_attr(die, DW_AT_data_member_location, &attr) || number(die, DW_AT_data_member_location, bytes))
		return true;
	if (dwarf_getlocation(&attr, &op, &ops) || ops != 1 || op->atom != DW_OP_plus_uconst)
		return false;
	*bytes = op->number;
	return true;
}

/* A bit field's place in its struct. DWARF 4 and 5 say it plainly; gcc before 11 counts from the end, as DWARF 2. */
static bool bit_field_place(Dwarf_Die *die, struct member *out)
{
	uint64_t from_start, from_end, storage;

	if (out->bits > 64)
		return false;
	if (number(die, DW_AT_data_bit_offset, &from_start) && from_start < LAYOUT_ABSENT * 8) {
		out->bit_offset += from_start;
		return true;
	}
	if (!number(die, DW_AT_bit_offset, &from_end) || from_end > 64 ||
	    (!number(die, DW_AT_byte_size, &storage) && !number(&out->type, DW_AT_byte_size, &storage)) || storage > 8 ||
	    from_end + out->bits > storage * 8)
		return false;
	out->bit_offset += storage * 8 - from_end - out->bits;
	return true;
}

static bool member_place(Dwarf_Die *die, struct member *out)
{
	uint64_t bytes;

	if (!type_of(die, &out->type) || !member_location(die, &bytes) || bytes >= LAYOUT_ABSENT)
		return false;
	out->bit_offset = bytes * 8;
	if (number(die, DW_AT_bit_size, &out->bits))
		return bit_field_place(die, out);
	/* Arrays have no size of their own, and none of them is wanted. */
	if (!number(&out->type, DW_AT_byte_size, &bytes) || bytes >= LAYOUT_ABSENT)
		return false;
	out->bits = bytes * 8;
	return true;
}

/* The member of that name, in die or in an anonymous struct or union inside it. */
/* NOLINTNEXTLINE(misc-no-recursion): NESTING_MAX ends it */
static bool find_member(struct search *search, Dwarf_Die *die, const char *name, int depth, struct member *out)
{
	Dwarf_Die child;

	if (depth == NESTING_MAX || dwarf_child(die, &child))
		return false;
	do {
		struct member inner;
		const char *child_name;

		if (dwarf_tag(&child) != DW_TAG_member || !member_place(&child, out))
			continue;
		child_name = dwarf_diename(&child);
		if (child_name && !strcmp(child_name, name))
			return true;
		if (child_name || !is_aggregate(&out->type) || !find_member(search, &out->type, name, depth + 1, &inner))
			continue;
		inner.bit_offset += out->bit_offset;
		*out = inner;
		return true;
	} while (next_entry(search, &child));
	return false;
}

/* Follows a path, see struct wanted_field. A pointer's '>' starts counting anew. */
static bool follow(struct search *search, const char *path, struct member *out)
{
	Dwarf_Die within = search->client;
	uint64_t base = 0;

	for (;;) {
		size_t len = strcspn(path, ".>");
		char name[PATH_NAME_MAX];

		memcpy(name, path, len);
		name[len] = '\0';
		if (!find_member(search, &within, name, 0, out))
			return false;
		out->bit_offset += base;
		path += len;
		if (!*path)
			return true;
		within = out->type;
		base = *path == '.' ? out->bit_offset : 0;
		for (; *path == '>'; path++)
			if (dwarf_tag(&within) != DW_TAG_pointer_type || !type_of(&within, &within))
				return false;
		path += *path == '.';
		if (!is_aggregate(&within))
			return false;
	}
}

/* ---- the layout ---- */

static bool within(const struct layout_field *field, __u32 size)
{
	return field->offset == LAYOUT_ABSENT || (field->size && field->offset + field->size <= size);
}

/* The fields of struct client come first to last; those of other structs begin at list_len. */
static bool fields_within(const struct client_layout *layout)
{
	const struct layout_field *field;

	for (field = &layout->id; field < &layout->list_len; field++)
		if (!within(field, layout->client_size))
			return false;
	return true;
}

bool layout_finish(struct client_layout *layout)
{
	int i;

	memset(layout->not_plain, 0, sizeof(layout->not_plain));
	if (!fields_within(layout) || layout->flags.size > sizeof(layout->not_plain) || layout->flags.size % 8)
		return false;
	for (i = 0; i < CLIENT_FLAGS; i++) {
		const struct layout_bit *bit = &layout->flag[i];
		unsigned int at = bit->offset - layout->flags.offset;

		if (bit->offset == LAYOUT_ABSENT)
			continue;
		if (bit->offset < layout->flags.offset || at >= layout->flags.size)
			return false;
		if (i < FLAGS_NOT_PLAIN)
			layout->not_plain[at / 8] |= (__u64)bit->mask << at % 8 * 8;
	}
	return true;
}

static struct layout_field *field_at(struct client_layout *layout, size_t offset)
{
	return (struct layout_field *)((char *)layout + offset);
}

static bool fill_field(struct search *search, const struct wanted_field *wanted, struct client_layout *layout)
{
	struct layout_field *field = field_at(layout, wanted->field);
	struct member member;
	size_t i;

	*field = (struct layout_field){ LAYOUT_ABSENT, 0 };
	for (i = 0; i < 3 && wanted->path[i]; i++) {
		if (!follow(search, wanted->path[i], &member))
			continue;
		if (member.bit_offset % 8 || member.bits % 8 || member.bit_offset / 8 >= LAYOUT_ABSENT)
			return false;
		*field = (struct layout_field){ member.bit_offset / 8, member.bits / 8 };
		return true;
	}
	return !wanted->required;
}

static void set_bit(struct layout_bit *bit, uint64_t at)
{
	*bit = (struct layout_bit){ at / 8, 1 << at % 8, 0 };
}

static bool fill_bit(struct search *search, const char *path, struct layout_bit *bit)
{
	struct member member;

	*bit = (struct layout_bit){ LAYOUT_ABSENT, 0, 0 };
	if (!follow(search, path, &member))
		return true;
	if (member.bits != 1)
		return false;
	set_bit(bit, member.bit_offset);
	return true;
}

static bool fill_flags(struct search *search, const char *name_version, struct client_layout *layout)
{
	char path[PATH_NAME_MAX];
	struct member member;
	bool bitfields = follow(search, "flag", &member) && is_aggregate(&member.type);
	int i;

	if (!bitfields && (!redis_bits_known(name_version) || layout->flags.size != 8))
		return false;
	for (i = 0; i < CLIENT_FLAGS; i++) {
		const struct wanted_flag *wanted = &wanted_flags[i];

		layout->flag[i] = (struct layout_bit){ LAYOUT_ABSENT, 0, 0 };
		if (!bitfields && redis_has(name_version, i)) {
			set_bit(&layout->flag[i], layout->flags.offset * 8 + wanted->redis_bit);
		} else if (bitfields && wanted->name) {
			snprintf(path, sizeof(path), "flag.%s", wanted->name);
			if (!fill_bit(search, path, &layout->flag[i]))
				return false;
		}
	}
	return true;
}

static bool is_bits(struct search *search, const char *path, uint64_t offset, uint64_t bits)
{
	struct member member;

	return follow(search, path, &member) && member.bit_offset == offset && member.bits == bits;
}

/* nwritten is taken off the buffers from sentlen on. valkey 9.0 on has another account (io_last_written). */
static void drop_lone_nwritten(struct search *search, struct client_layout *layout)
{
	struct member member;

	if (!follow(search, "sentlen", &member))
		layout->nwritten = (struct layout_field){ LAYOUT_ABSENT, 0 };
}

/* All of what is wanted, when search->client is the struct client. */
static bool fill(struct search *search, const char *name_version, struct client_layout *layout)
{
	uint64_t size;
	size_t i;

	memset(layout, 0, sizeof(*layout));
	if (!number(&search->client, DW_AT_byte_size, &size) || size >= LAYOUT_ABSENT)
		return false;
	layout->client_size = size;
	for (i = 0; i < sizeof(wanted_fields) / sizeof(wanted_fields[0]); i++)
		if (!fill_field(search, &wanted_fields[i], layout))
			return false;
	drop_lone_nwritten(search, layout);
	if (!fill_bit(search, "argv>>hasembval", &layout->robj_embedded) ||
	    !fill_bit(search, "argv>>hasexpire", &layout->robj_expiry) ||
	    !fill_bit(search, "argv>>hasembkey", &layout->robj_key) || !fill_flags(search, name_version, layout))
		return false;
	/* So in every version; bpf/server/client.h relies on it. */
	if (!is_bits(search, "argv>>type", 0, 4) || !is_bits(search, "argv>>encoding", 4, 4))
		return false;
	layout->valid = LAYOUT_DEBUG_INFO;
	return layout_finish(layout);
}

/* ---- the file ---- */

static bool unit_has_layout(struct search *search, Dwarf_Die *unit, const char *name_version, struct client_layout *layout)
{
	Dwarf_Die die;

	if (dwarf_child(unit, &die))
		return false;
	do {
		const char *name;

		if (dwarf_tag(&die) != DW_TAG_structure_type || dwarf_hasattr(&die, DW_AT_declaration))
			continue;
		name = dwarf_diename(&die);
		if (!name || strcmp(name, "client"))
			continue;
		search->client = die;
		if (fill(search, name_version, layout))
			return true;
	} while (next_entry(search, &die));
	return false;
}

/* libdw decompresses sections whole. */
static bool sections_bounded(Elf *elf)
{
	uint64_t total = 0;
	Elf_Scn *scn = NULL;

	while ((scn = elf_nextscn(elf, scn))) {
		GElf_Shdr header;
		GElf_Chdr compressed;
		uint64_t size;

		if (!gelf_getshdr(scn, &header))
			return false;
		size = header.sh_type == SHT_NOBITS ? 0 : header.sh_size;
		if (header.sh_flags & SHF_COMPRESSED && gelf_getchdr(scn, &compressed))
			size = compressed.ch_size;
		if (size > SECTIONS_MAX || (total += size) > SECTIONS_MAX)
			return false;
	}
	return true;
}

static int find_in(Dwarf *dwarf, const char *name_version, struct client_layout *out)
{
	struct search search = { .entries_left = ENTRIES_MAX };
	Dwarf_CU *cu = NULL;
	Dwarf_Die unit;

	while (!dwarf_get_units(dwarf, cu, &cu, NULL, NULL, &unit, NULL))
		if (unit_has_layout(&search, &unit, name_version, out))
			return 0;
	return -ENOENT;
}

int layout_from_debug_info(int fd, const char *name_version, struct client_layout *out)
{
	Dwarf *dwarf = NULL;
	int ret = -ENOENT;
	Elf *elf;

	elf_version(EV_CURRENT);
	/* Not mapped: the file may be cut short while we look at it. */
	elf = elf_begin(fd, ELF_C_READ, NULL);
	if (elf && gelf_getclass(elf) == ELFCLASS64 && sections_bounded(elf))
		dwarf = dwarf_begin_elf(elf, DWARF_C_READ, NULL);
	if (dwarf)
		ret = find_in(dwarf, name_version, out);
	if (ret)
		memset(out, 0, sizeof(*out));
	dwarf_end(dwarf);
	elf_end(elf);
	return ret;
}
