/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/output/execution.h"

#include <string.h>

bool record_has_head(const struct reply_record *rec)
{
	return rec->argv_status == ARGV_KEPT || rec->exec_argv_len;
}

const void *record_head(const struct reply_record *rec, size_t *len)
{
	const char *head = (const char *)(rec + 1);

	*len = rec->argv_len;
	if (!rec->exec_argv_len)
		return head;
	head += rec->argv_len;
	for (int i = 0; i < CLIENT_WORDS; i++)
		head += rec->word[i];
	*len = rec->exec_argv_len;
	return head;
}

void record_forget_execution(struct reply_record *rec)
{
	rec->exec_ns = rec->inner_ns = rec->exec_name = 0;
	rec->inner = 0;
	if (rec->argv_from == ARGV_FROM_DISPATCH)
		rec->argv_from = ARGV_FROM_REQUEST;
	rec->exec_argv_len = 0;
	rec->exec_db = 0;
	rec->resp = 0;
	memset(rec->word, 0, sizeof(rec->word));
}
