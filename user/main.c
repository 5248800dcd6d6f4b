/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "user/cli/check.h"
#include "user/complain.h"
#include "user/debug.h"
#include "user/kernel/engine.h"
#include "user/server/discover.h"
#include "user/session/observe.h"
#include "user/session/settings.h"
#include "user/cli/options.h"
#include "user/session/signals.h"
#include "user/session/supervise.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

/* What we open must not land on stdout or stderr when the caller has closed them. */
static int check_standard_fds(void)
{
	if (fcntl(STDIN_FILENO, F_GETFD) < 0 && open("/dev/null", O_RDONLY) < 0)
		return complain("cannot open /dev/null: %s", strerror(errno));
	if (fcntl(STDOUT_FILENO, F_GETFD) < 0)
		return complain("stdout is closed: replylog writes its records there, so redirect it to a file or a pipe");
	if (fcntl(STDERR_FILENO, F_GETFD) < 0 && open("/dev/null", O_WRONLY) < 0)
		return -1;
	return 0;
}

/* What selects the servers that come later, NULL: nothing does. */
static const struct selector *newcomers(const struct options *options)
{
	return options->follow && options->selectors[0].kind == SELECT_ALL ? &options->selectors[0] : NULL;
}

/* One server needs no process but this one. With --all --follow there may always be more. */
static bool is_single(const struct options *options, const struct servers *servers)
{
	return servers->n == 1 && !newcomers(options);
}

static int run_session(const struct options *options, const struct servers *servers)
{
	const struct settings settings = {
		.mode = options->mode,
		.engine = options->engine,
		.verify_wait_ms = options->verify_wait_ms,
		.follow = options->follow,
	};

	if (is_single(options, servers))
		return observe(&settings, &servers->server[0]);
	return supervise(&settings, servers, newcomers(options));
}

int main(int argc, char **argv)
{
	static struct servers servers;
	struct options options;
	enum options_result parsed;
	int err;

	parsed = options_parse(argc, argv, &options);
	if (parsed != OPTIONS_RUN)
		return parsed;
	engine_catch_warnings();
	if (check_standard_fds() || (options.engine.debug && debug_open(options.debug_file)) ||
	    (!options.check && signals_catch()) ||
	    discover_selected(options.selectors, options.n_selectors, options.follow, &servers))
		return 1;
	if (options.check)
		err = check(&options, &servers);
	else
		err = run_session(&options, &servers);
	return err ? 1 : 0;
}
