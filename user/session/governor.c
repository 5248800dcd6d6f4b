/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/session/governor.h"

#include <string.h>

/* Of a time up to 213 days: the product fits in 64 bits. */
static uint64_t budget_of(const struct governor *governor, uint64_t ns)
{
	return ns * governor->budget / GOVERNOR_WHOLE;
}

static uint64_t credit(const struct governor *governor)
{
	return budget_of(governor, GOVERNOR_CREDIT_NS);
}

static uint64_t largest_debt(const struct governor *governor)
{
	uint64_t largest = 0;

	for (int i = 0; i < THREADS_MAX; i++)
		if (governor->thread[i].debt_ns > largest)
			largest = governor->thread[i].debt_ns;
	return largest;
}

void governor_init(struct governor *governor, uint32_t budget, uint64_t now_ns)
{
	memset(governor, 0, sizeof(*governor));
	governor->budget = budget;
	governor->sampled_ns = governor->began_ns = now_ns;
}

void governor_begin(struct governor *governor, uint64_t now_ns)
{
	governor->began_ns = now_ns;
	for (int i = 0; i < THREADS_MAX; i++)
		governor->thread[i].before_ns = governor->thread[i].own_ns;
}

/* No credit is saved up: a thread that was idle has no more of it than any other. */
static void account(struct thread_budget *thread, uint64_t own_ns, uint64_t allowance)
{
	uint64_t spent = thread->debt_ns + own_ns - thread->own_ns;

	thread->own_ns = own_ns;
	thread->debt_ns = spent > allowance ? spent - allowance : 0;
}

uint64_t governor_sample(struct governor *governor, const struct thread_stats *stats, uint64_t now_ns)
{
	uint64_t allowance = budget_of(governor, now_ns - governor->sampled_ns), debt;

	if (!governor->budget)
		return 0;
	governor->sampled_ns = now_ns;
	for (int i = 0; i < THREADS_MAX; i++)
		account(&governor->thread[i], stats[i].own_ns, allowance);
	debt = largest_debt(governor);
	return debt > credit(governor) ? debt * GOVERNOR_WHOLE / governor->budget : 0;
}

uint64_t governor_taken(const struct governor *governor)
{
	uint64_t most = 0;

	for (int i = 0; i < THREADS_MAX; i++)
		if (governor->thread[i].own_ns - governor->thread[i].before_ns > most)
			most = governor->thread[i].own_ns - governor->thread[i].before_ns;
	return most;
}

uint64_t governor_interval(const struct governor *governor)
{
	uint64_t debt = largest_debt(governor), left;

	if (!governor->budget)
		return UINT64_MAX;
	left = debt < credit(governor) ? credit(governor) - debt : 0;
	return left > GOVERNOR_SAMPLE_MIN_NS ? left : GOVERNOR_SAMPLE_MIN_NS;
}
