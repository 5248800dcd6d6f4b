/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
#include "complain.h"
#include "engine.h"
#include "kernel.h"
#include "options.h"
#include "probes.h"
#include "run.h"
#include "signals.h"
#include "stream.h"
#include "target.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

static int check_return_probes(const struct target *target)
{
	struct utsname kernel;

	uname(&kernel);
	if (!target->seccomp_filter || !kernel_uretprobe_kills_seccomp(kernel.release))
		return 0;
	return complain("-p %d runs under a seccomp filter, and on Linux %s a return probe would kill it "
			"(fixed in 6.12.14 and 6.13.3): upgrade the kernel, or run the server without the filter",
			target->pid, kernel.release);
}

static int announce(struct stream *stream, const struct options *options, const struct target *target,
		    enum attach_choice how)
{
	char text[PROBES_MAX][PROBE_TEXT];
	const char *probes[PROBES_MAX];
	struct stream_start start = {
		.version = REPLYLOG_VERSION,
		.server_pid = target->pid,
		.server_exe = target->file[FILE_EXECUTABLE].name,
		.server_build_id = target->build_id[0] ? target->build_id : NULL,
		.server_version = target->version,
		.threshold = options->threshold,
		.probes = probes,
		.n_probes = probes_describe(how, target, text),
	};
	size_t i;

	for (i = 0; i < start.n_probes; i++)
		probes[i] = text[i];
	return stream_start(stream, &start);
}

static int stream_failed(int err)
{
	if (err == -EBADMSG)
		return complain("a record of the BPF programs is not understood: this is a bug, please report it");
	return complain("stdout: %s", strerror(-err));
}

/* What we open must not land on stdout or stderr when the caller has closed them. */
static int check_standard_fds(void)
{
	if (fcntl(STDIN_FILENO, F_GETFD) < 0 && open("/dev/null", O_RDONLY) < 0)
		return complain("/dev/null: %s", strerror(errno));
	if (fcntl(STDOUT_FILENO, F_GETFD) < 0)
		return complain("stdout is closed: records are written there");
	if (fcntl(STDERR_FILENO, F_GETFD) < 0 && open("/dev/null", O_WRONLY) < 0)
		return -1;
	return 0;
}

/* Attached from first to last line of this function. */
static int log_replies(struct engine *engine, const struct options *options, const struct target *target,
		       struct stream *stream)
{
	struct probe_links links = {};
	struct run run;
	enum stop_reason reason = STOP_REASONS; /* none yet */
	int err = -1;

	if (run_init(&run, engine, target, stream))
		goto cleanup;
	if (probes_attach(&links, engine, target))
		goto cleanup;
	err = announce(stream, options, target, engine->how);
	if (!err) {
		engine_ready(engine);
		reason = run_until_stopped(&run);
		err = run.error;
	}
	probes_detach(&links);
	if (reason != STOP_REASONS && run_finish(&run, reason) && !err)
		err = run.error;
	if (err)
		stream_failed(err);
cleanup:
	run_close(&run);
	return err;
}

int main(int argc, char **argv)
{
	struct options options;
	struct target target;
	struct engine engine = {};
	struct stream stream;
	struct sink sink;
	enum attach_choice how;
	enum options_result parsed;
	int ret = 1;

	parsed = options_parse(argc, argv, &options);
	if (parsed != OPTIONS_RUN)
		return parsed;
	how = options.attach;
	engine_catch_warnings();
	if (check_standard_fds() || signals_catch())
		return ret;
	if (target_open(&target, options.pid) || kernel_check(&how) || check_return_probes(&target))
		goto cleanup;
	if (engine_load(&engine, &options, &target, how))
		goto cleanup;
	sink_init(&sink, STDOUT_FILENO);
	if (stream_init(&stream, &sink)) {
		complain("no random bytes or no clock: %s", strerror(errno));
		goto cleanup;
	}
	if (log_replies(&engine, &options, &target, &stream))
		goto cleanup;
	ret = 0;
cleanup:
	engine_unload(&engine);
	target_close(&target);
	return ret;
}
