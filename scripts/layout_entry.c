/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Prints the entry of user/code/layout_table.h for a version, from the debug information of a file that was compiled from
 * that version's source. Built and run by scripts/layouts.
 */
#include <fcntl.h>
#include <stdio.h>

#include "user/code/layouts.h"

static void print_field(const char *name, const struct layout_field *field)
{
	if (field->offset == LAYOUT_ABSENT)
		printf("\t\t.%s = { LAYOUT_ABSENT, 0 },\n", name);
	else
		printf("\t\t.%s = { %u, %u },\n", name, field->offset, field->size);
}

static void print_bit(const char *name, const struct layout_bit *bit)
{
	if (bit->offset == LAYOUT_ABSENT)
		printf("\t\t.%s = { LAYOUT_ABSENT, 0, 0 },\n", name);
	else
		printf("\t\t.%s = { %u, 0x%02x, 0 },\n", name, bit->offset, bit->mask);
}

#define PRINT_FIELD(name) print_field(#name, &layout->name)
#define PRINT_BIT(name) print_bit(#name, &layout->name)
#define PRINT_FLAG(name) print_bit("flag[" #name "]", &layout->flag[name])

static void print_fields(const struct client_layout *layout)
{
	PRINT_FIELD(id);
	PRINT_FIELD(conn);
	PRINT_FIELD(resp);
	PRINT_FIELD(db);
	PRINT_FIELD(user);
	PRINT_FIELD(name);
	PRINT_FIELD(lib_name);
	PRINT_FIELD(lib_ver);
	PRINT_FIELD(querybuf);
	PRINT_FIELD(qb_pos);
	PRINT_FIELD(reqtype);
	PRINT_FIELD(multibulklen);
	PRINT_FIELD(bulklen);
	PRINT_FIELD(argc);
	PRINT_FIELD(argv);
	PRINT_FIELD(queued);
	PRINT_FIELD(bufpos);
	PRINT_FIELD(reply);
	PRINT_FIELD(sentlen);
	PRINT_FIELD(deferred_reply);
	PRINT_FIELD(io_read_state);
	PRINT_FIELD(io_write_state);
	PRINT_FIELD(nwritten);
	PRINT_FIELD(running_tid);
	PRINT_FIELD(io_flags);
	PRINT_FIELD(slot_migration_job);
	PRINT_FIELD(flags);
	PRINT_FIELD(list_len);
	PRINT_FIELD(db_id);
	PRINT_FIELD(user_name);
	PRINT_FIELD(robj_ptr);
	PRINT_BIT(robj_embedded);
	PRINT_BIT(robj_expiry);
	PRINT_BIT(robj_key);
}

static void print_flags(const struct client_layout *layout)
{
	PRINT_FLAG(FLAG_PRIMARY);
	PRINT_FLAG(FLAG_REPLICA);
	PRINT_FLAG(FLAG_MONITOR);
	PRINT_FLAG(FLAG_BLOCKED);
	PRINT_FLAG(FLAG_UNBLOCKED);
	PRINT_FLAG(FLAG_PENDING_COMMAND);
	PRINT_FLAG(FLAG_PUBSUB);
	PRINT_FLAG(FLAG_REPLY_OFF);
	PRINT_FLAG(FLAG_REPLY_SKIP_NEXT);
	PRINT_FLAG(FLAG_REPLY_SKIP);
	PRINT_FLAG(FLAG_LUA_DEBUG);
	PRINT_FLAG(FLAG_CLOSE_ASAP);
	PRINT_FLAG(FLAG_CLOSE_AFTER_REPLY);
	PRINT_FLAG(FLAG_CLOSE_AFTER_COMMAND);
	PRINT_FLAG(FLAG_REPL_RDB_CHANNEL);
	PRINT_FLAG(FLAG_ASM_MIGRATING);
	PRINT_FLAG(FLAG_ASM_IMPORTING);
	PRINT_FLAG(FLAG_MULTI);
	PRINT_FLAG(FLAG_TRACKING);
	PRINT_FLAG(FLAG_EXECUTING);
}

int main(int argc, char **argv)
{
	struct client_layout layout;
	int fd;

	if (argc != 3) {
		fprintf(stderr, "usage: layout_entry 'NAME VERSION' FILE\n");
		return 2;
	}
	fd = open(argv[2], O_RDONLY);
	if (fd < 0 || layout_from_debug_info(fd, argv[1], &layout)) {
		fprintf(stderr, "layout_entry: the debug information in %s does not describe struct client\n", argv[2]);
		return 1;
	}
	printf("\t{ \"%s\", {\n\t\t.valid = LAYOUT_TABLE,\n\t\t.client_size = %u,\n", argv[1], layout.client_size);
	printf("\t\t.not_plain = { 0x%llx, 0x%llx },\n", layout.not_plain[0], layout.not_plain[1]);
	print_fields(&layout);
	print_flags(&layout);
	printf("\t} },\n");
	return 0;
}
