/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "user/session/governor.h"

#define MS UINT64_C(1000000)
#define S (1000 * MS)

static struct governor governor;
static struct thread_stats stats[THREADS_MAX];

static int setup(void **state)
{
	(void)state;
	memset(stats, 0, sizeof(stats));
	return 0;
}

/* Time passes, and a thread spends this much of it in probes. */
static uint64_t after(uint64_t ms, uint64_t own_ms)
{
	stats[7].own_ns += own_ms * MS;
	return governor_sample(&governor, stats, governor.sampled_ns + ms * MS);
}

static void test_within_budget(void **state)
{
	(void)state;
	governor_init(&governor, 50, 1000 * S);
	for (int i = 0; i < 1000; i++)
		assert_true(after(100, 5) == 0);
	assert_true(governor_taken(&governor) == 5 * S);
}

static void test_without_limit(void **state)
{
	(void)state;
	governor_init(&governor, 0, 1000 * S);
	assert_true(after(100, 100) == 0);
	assert_true(governor_interval(&governor) == UINT64_MAX);
}

/* A burst may spend 5 % of 2 s in advance. */
static void test_credit(void **state)
{
	(void)state;
	governor_init(&governor, 50, 1000 * S);
	assert_true(after(100, 100) == 0);
	assert_true(after(100, 10) == 0);
	assert_true(after(100, 6) > 0);
}

/* A pause pays for what exceeded the allowance, at the budget's rate. */
static void test_pause_pays_the_debt(void **state)
{
	(void)state;
	governor_init(&governor, 50, 1000 * S);
	assert_true(after(1000, 200) == 3 * S); /* 200 ms, less 50, at 5 % */
	assert_true(after(3000, 0) == 0);
	governor_begin(&governor, governor.sampled_ns);
	assert_true(governor.thread[7].debt_ns == 0);
	assert_true(after(1000, 100) == 0);
	assert_true(after(1000, 101) > 0);
}

/* Over a long time a thread spends what the budget allows, whatever the load. */
static void test_long_run(void **state)
{
	uint64_t now = 0, pause;

	(void)state;
	governor_init(&governor, 20, 0);
	while (now < 1000 * S) {
		uint64_t step = governor_interval(&governor);

		now += step;
		stats[7].own_ns += step / 10 * 4; /* 40 % while observing */
		pause = governor_sample(&governor, stats, now);
		now += pause;
		if (pause)
			governor_begin(&governor, now);
	}
	assert_in_range(stats[7].own_ns / (now / 1000), 19, 20);
}

/* Idle time does not accumulate: no window is longer than the credit allows. */
static void test_nothing_is_saved(void **state)
{
	(void)state;
	governor_init(&governor, 50, 1000 * S);
	assert_true(after(3600 * 1000, 0) == 0);
	assert_true(after(150, 150) > 0);
}

/* One thread over its budget is enough, and others don't pay for it. */
static void test_each_thread(void **state)
{
	(void)state;
	governor_init(&governor, 50, 1000 * S);
	for (int i = 0; i < THREADS_MAX; i++)
		stats[i].own_ns = 40 * MS;
	assert_true(after(1000, 0) == 0);
	stats[THREADS_MAX - 1].own_ns += 170 * MS;
	assert_true(after(1000, 0) > 0);
	assert_true(governor_taken(&governor) == 210 * MS);
}

/* The next sample comes before a thread that only runs probes could exceed its budget, but not continuously. */
static void test_next_sample(void **state)
{
	(void)state;
	governor_init(&governor, 50, 1000 * S);
	assert_true(governor_interval(&governor) == 100 * MS);
	after(100, 45);
	assert_true(governor_interval(&governor) == 60 * MS);
	after(60, 60);
	assert_true(governor_interval(&governor) == GOVERNOR_SAMPLE_MIN_NS);
}

/* The reported overhead is that of the current window. */
static void test_taken(void **state)
{
	(void)state;
	governor_init(&governor, 500, 1000 * S);
	assert_true(governor_taken(&governor) == 0);
	after(1000, 300);
	assert_true(governor_taken(&governor) == 300 * MS);
	governor_begin(&governor, governor.sampled_ns);
	after(1000, 100);
	assert_true(governor_taken(&governor) == 100 * MS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_within_budget, setup), cmocka_unit_test_setup(test_without_limit, setup),
		cmocka_unit_test_setup(test_credit, setup),        cmocka_unit_test_setup(test_pause_pays_the_debt, setup),
		cmocka_unit_test_setup(test_long_run, setup),      cmocka_unit_test_setup(test_nothing_is_saved, setup),
		cmocka_unit_test_setup(test_each_thread, setup),   cmocka_unit_test_setup(test_next_sample, setup),
		cmocka_unit_test_setup(test_taken, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
