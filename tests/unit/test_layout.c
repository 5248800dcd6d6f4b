/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Layouts of struct client: the table, and the reader of debug information on small programs that are built here. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "user/code/elf_image.h"
#include "user/code/layouts.h"

static const struct client_layout nothing;

/* ---- the table ---- */

static const char *const in_table[] = {
	"redis 6.0.16", "redis 7.0.15", "redis 8.0.2",  "redis 8.0.6",
	"redis 8.6.3",  "valkey 8.0.1", "valkey 8.1.1", "valkey 9.1.2",
};

/* The fields that a join and argv need. */
static void assert_whole(const struct client_layout *layout)
{
	const struct layout_field *const needed[] = {
		&layout->id,     &layout->conn,      &layout->querybuf, &layout->reqtype,  &layout->argc,     &layout->argv,
		&layout->bufpos, &layout->reply,     &layout->flags,    &layout->list_len, &layout->db,       &layout->db_id,
		&layout->user,   &layout->user_name, &layout->name,     &layout->resp,     &layout->robj_ptr,
	};

	for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++)
		assert_int_not_equal(needed[i]->offset, LAYOUT_ABSENT);
	for (int i = 0; i <= FLAG_CLOSE_AFTER_COMMAND; i++)
		assert_int_not_equal(layout->flag[i].offset, LAYOUT_ABSENT);
}

/* Fields of struct client are aligned to their size, and no two share a byte. */
static void assert_placed(const struct client_layout *layout)
{
	static uint8_t taken[LAYOUT_ABSENT];

	memset(taken, 0, sizeof(taken));
	for (const struct layout_field *field = &layout->id; field < &layout->list_len; field++) {
		if (field->offset == LAYOUT_ABSENT)
			continue;
		assert_true(field->offset + field->size <= (int)layout->client_size);
		assert_int_equal(field->offset % (field->size > 8 ? 8 : field->size), 0);
		for (int i = 0; i < field->size; i++)
			assert_int_equal(taken[field->offset + i]++, 0);
	}
}

static void assert_flags_differ(const struct client_layout *layout)
{
	for (int flag = 0; flag < CLIENT_FLAGS; flag++)
		for (int other = 0; other < flag; other++)
			assert_true(layout->flag[flag].offset == LAYOUT_ABSENT ||
				    memcmp(&layout->flag[flag], &layout->flag[other], sizeof(layout->flag[0])));
}

static void test_table(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(in_table) / sizeof(in_table[0]); i++) {
		struct client_layout layout, again;

		assert_int_equal(layout_from_table(in_table[i], &layout), 0);
		assert_int_equal(layout.valid, LAYOUT_TABLE);
		assert_whole(&layout);
		assert_placed(&layout);
		assert_flags_differ(&layout);
		again = layout;
		assert_true(layout_finish(&again));
		assert_memory_equal(&layout, &again, sizeof(layout));
	}
}

/* valkey 9.1 also has an nwritten, with another meaning. */
static void test_nwritten_is_of_valkey_8(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(in_table) / sizeof(in_table[0]); i++) {
		bool valkey_8 = !strncmp(in_table[i], "valkey 8.", 9);
		struct client_layout layout;

		assert_int_equal(layout_from_table(in_table[i], &layout), 0);
		assert_int_equal(layout.nwritten.offset != LAYOUT_ABSENT, valkey_8);
		assert_int_equal(layout.nwritten.size, valkey_8 ? 4 : 0);
		if (valkey_8)
			assert_int_equal(layout.io_write_state.size, 1);
	}
}

static void test_not_in_table(void **state)
{
	static const char *const unknown[] = {
		"", "valkey", "redis", "redis 7.0.14", "redis 7.0.150", "redis 7.0.1", "valkey 7.0.15", "redis 7.0.15 ",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
		struct client_layout layout;

		memset(&layout, 1, sizeof(layout));
		assert_int_equal(layout_from_table(unknown[i], &layout), -ENOENT);
		assert_memory_equal(&layout, &nothing, sizeof(layout));
	}
}

static void test_finish_refuses(void **state)
{
	struct client_layout good, bad;

	(void)state;
	assert_int_equal(layout_from_table("valkey 9.1.2", &good), 0);
	bad = good;
	bad.querybuf.offset = bad.client_size - 7;
	assert_false(layout_finish(&bad));
	bad = good;
	bad.flag[FLAG_BLOCKED].offset = bad.flags.offset - 1;
	assert_false(layout_finish(&bad));
	bad = good;
	bad.flag[FLAG_BLOCKED].offset = bad.flags.offset + bad.flags.size;
	assert_false(layout_finish(&bad));
	bad = good;
	bad.flags.size = 24;
	assert_false(layout_finish(&bad));
}

/* ---- small programs ---- */

static char workdir[] = "/tmp/test_layout.XXXXXX";

static const char *compiler(void)
{
	const char *cc = getenv("CC");

	return cc && *cc ? cc : "cc";
}

static int make_workdir(void **state)
{
	(void)state;
	return !mkdtemp(workdir);
}

static int run(const char *format, ...) __attribute__((format(printf, 1, 2)));

static int run(const char *format, ...)
{
	char command[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	return system(command);
}

static int remove_workdir(void **state)
{
	(void)state;
	return run("rm -rf %s", workdir);
}

/* A path in workdir; valid until the call after the next. */
static const char *in_workdir(const char *name)
{
	static char paths[2][256];
	static int tracked;

	tracked = !tracked;
	snprintf(paths[tracked], sizeof(paths[tracked]), "%s/%s", workdir, name);
	return paths[tracked];
}

/* Makes workdir/fixture; false when this compiler does not know the flags. */
static bool build_fixture(const char *flags)
{
	const char *slash = strrchr(__FILE__, '/');
	int len = slash ? (int)(slash - __FILE__) : 0;

	unlink(in_workdir("fixture"));
	return !run("%s %s -I%.*s/../.. -o %s/fixture %.*s/layout_fixture.c 2>%s/log", compiler(), flags, len, __FILE__,
		    workdir, len, __FILE__, workdir);
}

/* The layout that the fixture prints. */
static void ask_fixture(struct client_layout *out)
{
	FILE *pipe = popen(in_workdir("fixture"), "r");

	assert_non_null(pipe);
	assert_int_equal(fread(out, sizeof(*out), 1, pipe), 1);
	assert_int_equal(pclose(pipe), 0);
}

static int read_debug_info(const char *path, const char *name_version, struct client_layout *out)
{
	int fd = open(path, O_RDONLY), ret;

	assert_true(fd >= 0);
	memset(out, 1, sizeof(*out));
	ret = layout_from_debug_info(fd, name_version, out);
	close(fd);
	if (ret)
		assert_memory_equal(out, &nothing, sizeof(*out));
	return ret;
}

static const struct {
	const char *flags;
	const char *name_version;
} fixtures[] = {
	{ "-g -DREDIS", "redis 7.0.99" },
	{ "-gdwarf-4 -DREDIS", "redis 6.0.0" },
	{ "-g -DREDIS -DREDIS_7_2", "redis 7.2.0" },
	{ "-g -DREDIS -DREDIS_7_2", "redis 8.0.2" },
	{ "-g", "valkey 9.1.99" },
	{ "-g -DVALKEY_8", "valkey 8.1.99" },
	{ "-gdwarf-5", "valkey" },
	{ "-gdwarf-4", "valkey 8.0.0" },
	/* Bit fields counted from the other end. */
	{ "-gdwarf-2 -gstrict-dwarf", "valkey 8.0.0" },
	{ "-g -O2 -flto", "valkey 9.1.0" },
	{ "-g -fdebug-types-section", "valkey 9.1.0" },
	{ "-g -gz", "valkey 9.1.0" },
	{ "-g3 -static", "valkey 9.1.0" },
};

static void test_fixtures(void **state)
{
	size_t built = 0;

	(void)state;
	for (size_t i = 0; i < sizeof(fixtures) / sizeof(fixtures[0]); i++) {
		struct client_layout expected, found;

		if (!build_fixture(fixtures[i].flags)) {
			print_message("%s: not built by this toolchain\n", fixtures[i].flags);
			continue;
		}
		print_message("%s\n", fixtures[i].flags);
		ask_fixture(&expected);
		assert_int_equal(read_debug_info(in_workdir("fixture"), fixtures[i].name_version, &found), 0);
		assert_memory_equal(&found, &expected, sizeof(found));
		built++;
	}
	if (!built) {
		print_message("skipped: no compiler (%s) that builds programs\n", compiler());
		skip();
	}
}

/* Redis' flags are not in debug information, so a version whose bits nobody has checked gets no layout. */
static void test_unknown_flags(void **state)
{
	static const char *const unknown[] = {
		"redis", "", "redis 5.0.14", "redis 9.0.0", "redis 8.8.0", "valkey 8.0.0",
	};
	struct client_layout layout;

	(void)state;
	if (!build_fixture("-g -DREDIS"))
		skip();
	for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++)
		assert_int_equal(read_debug_info(in_workdir("fixture"), unknown[i], &layout), -ENOENT);
}

static void test_no_debug_info(void **state)
{
	struct client_layout layout;

	(void)state;
	if (!build_fixture("-s"))
		skip();
	assert_int_equal(read_debug_info(in_workdir("fixture"), "valkey 9.1.2", &layout), -ENOENT);
	assert_int_equal(read_debug_info("/dev/null", "valkey 9.1.2", &layout), -ENOENT);
	assert_int_equal(read_debug_info(workdir, "valkey 9.1.2", &layout), -ENOENT);
	/* This test has debug information, but no struct client. */
	assert_int_equal(read_debug_info("/proc/self/exe", "valkey 9.1.2", &layout), -ENOENT);
}

/*
 * Part of the debug information may be in a file shared with others (dwz), which the server's file names. replylog does
 * not follow that name, and incomplete information gives no layout.
 */
static void test_shared_part(void **state)
{
	struct client_layout found;
	char common[256];

	(void)state;
	snprintf(common, sizeof(common), "%s/common", workdir);
	if (run("command -v dwz >/dev/null") || !build_fixture("-gdwarf-4 -O1") ||
	    run("mv %s/fixture %s/other", workdir, workdir) || !build_fixture("-gdwarf-4") ||
	    run("dwz -m %s -M %s %s/fixture %s/other", common, common, workdir, workdir)) {
		print_message("skipped: no dwz, or no compiler\n");
		skip();
	}
	assert_int_equal(run("readelf -S %s/fixture | grep -q gnu_debugaltlink", workdir), 0);
	assert_int_equal(read_debug_info(in_workdir("fixture"), "valkey 9.1.99", &found), -ENOENT);
	assert_int_equal(unlink(common), 0);
	assert_int_equal(read_debug_info(in_workdir("fixture"), "valkey 9.1.99", &found), -ENOENT);
}

/* ---- the choice of a source ---- */

static int find(pid_t pid, const char *name_version, struct client_layout *out)
{
	const char *path = in_workdir("fixture");
	int fd = open(path, O_RDONLY), ret;
	char why[256] = "";
	struct elf_image *img;

	assert_true(fd >= 0);
	assert_int_equal(elf_image_open(path, &img, why, sizeof(why)), 0);
	ret = layout_find(img, fd, pid, name_version, out, why, sizeof(why));
	elf_image_close(img);
	close(fd);
	if (ret) {
		assert_string_not_equal(why, "");
		assert_memory_equal(out, &nothing, sizeof(*out));
	}
	return ret;
}

static void test_order(void **state)
{
	struct client_layout layout;

	(void)state;
	if (!build_fixture("-g"))
		skip();
	assert_int_equal(find(0, "valkey 9.1.2", &layout), 0);
	assert_int_equal(layout.valid, LAYOUT_DEBUG_INFO);
	assert_true(build_fixture("-s"));
	assert_int_equal(find(0, "valkey 9.1.2", &layout), 0);
	assert_int_equal(layout.valid, LAYOUT_TABLE);
	assert_int_equal(find(0, "valkey 9.1.99", &layout), -ENOENT);
}

/* ---- debuginfod ---- */

/* A TCP socket on the loopback, and its port. */
static int listen_somewhere(uint16_t *port)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(addr);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0 && !bind(fd, (struct sockaddr *)&addr, len) && !listen(fd, 8) &&
		    !getsockname(fd, (struct sockaddr *)&addr, &len));
	*port = ntohs(addr.sin_port);
	return fd;
}

static pid_t start_debuginfod(uint16_t port)
{
	const char *served = in_workdir("served");
	char number[8];
	pid_t pid = fork();
	int null;

	assert_true(pid >= 0);
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	snprintf(number, sizeof(number), "%u", port);
	null = open("/dev/null", O_RDWR);
	dup2(null, 1);
	dup2(null, 2);
	execlp("debuginfod", "debuginfod", "-p", number, "-d", ":memory:", "-F", "-t", "1", served, NULL);
	_exit(127);
}

/* Queries the server at that port. cache: a new one does not remember earlier failures. */
static int find_at(uint16_t port, int cache, struct client_layout *out)
{
	char url[64], dir[300];

	snprintf(url, sizeof(url), "http://127.0.0.1:%u", port);
	snprintf(dir, sizeof(dir), "%s/cache%d", workdir, cache);
	setenv("DEBUGINFOD_URLS", url, 1);
	setenv("DEBUGINFOD_CACHE_PATH", dir, 1);
	return find(0, "valkey 9.1.99", out);
}

/* Information that only a debuginfod server has, by build id. The server needs a moment to scan its files. */
static void test_debuginfod(void **state)
{
	struct client_layout expected, found;
	int fd, cache = 0;
	uint16_t port;
	pid_t pid;

	(void)state;
	if (run("command -v debuginfod objcopy >/dev/null") || !build_fixture("-g -Wl,--build-id")) {
		print_message("skipped: no debuginfod, or no compiler\n");
		skip();
	}
	ask_fixture(&expected);
	assert_int_equal(
		run("mkdir %s/served && objcopy --only-keep-debug %s/fixture %s/served/fixture.debug && strip %s/fixture",
		    workdir, workdir, workdir, workdir),
		0);
	fd = listen_somewhere(&port);
	close(fd);
	pid = start_debuginfod(port);
	while (find_at(port, cache, &found) && cache++ < 300)
		usleep(100000);
	kill(pid, SIGTERM);
	waitpid(pid, NULL, 0);
	assert_memory_equal(&found, &expected, sizeof(found));
	/* Without a configured server there is no query, whatever the cache has. */
	setenv("DEBUGINFOD_URLS", "", 1);
	assert_int_equal(find(0, "valkey 9.1.99", &found), -ENOENT);
}

/* A server that never answers, and one that does not exist. */
static void test_debuginfod_fails(void **state)
{
	struct client_layout layout;
	uint16_t port;
	int fd;

	(void)state;
	if (!build_fixture("-s -Wl,--build-id"))
		skip();
	fd = listen_somewhere(&port);
	setenv("DEBUGINFOD_TIMEOUT", "1", 1);
	assert_int_equal(find_at(port, 0, &layout), -ENOENT);
	close(fd);
	assert_int_equal(find_at(port, 1, &layout), -ENOENT);
	unsetenv("DEBUGINFOD_TIMEOUT");
	unsetenv("DEBUGINFOD_URLS");
}

/* A process whose root is workdir/root, as a container's server has a root of its own. -1: not allowed here. */
static pid_t start_in_root(void)
{
	int ready[2];
	char byte;
	pid_t pid;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if ((chroot(in_workdir("root")) && (unshare(CLONE_NEWUSER) || chroot(in_workdir("root")))) ||
		    write(ready[1], "", 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(ready[1]);
	if (read(ready[0], &byte, 1) != 1) {
		waitpid(pid, NULL, 0);
		pid = -1;
	}
	close(ready[0]);
	return pid;
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

/* Splits the fixture: its debug information goes to workdir/debug. debug_path is where replylog looks for it. */
static bool split_fixture(char *debug_path, size_t size)
{
	char why[256], id[ELF_BUILD_ID_HEX];
	struct elf_image *img;

	if (!build_fixture("-g -Wl,--build-id") ||
	    run("cd %s && objcopy --only-keep-debug fixture debug && strip fixture", workdir))
		return false;
	assert_int_equal(elf_image_open(in_workdir("fixture"), &img, why, sizeof(why)), 0);
	assert_int_equal(elf_image_build_id(img, id), 0);
	elf_image_close(img);
	snprintf(debug_path, size, "%s/root/usr/lib/debug/.build-id/%.2s/%s.debug", workdir, id, id + 2);
	return !run("rm -rf %s/root && mkdir -p $(dirname %s)", workdir, debug_path);
}

static void test_separate_file(void **state)
{
	struct client_layout expected, found;
	char path[512];
	pid_t pid;

	(void)state;
	if (!split_fixture(path, sizeof(path)))
		skip();
	ask_fixture(&expected);
	pid = start_in_root();
	if (pid < 0) {
		print_message("skipped: this user may not have processes with another root\n");
		skip();
	}
	assert_int_equal(find(pid, "valkey 9.1.99", &found), -ENOENT);
	assert_int_equal(run("cp %s/debug %s", workdir, path), 0);
	assert_int_equal(find(pid, "valkey 9.1.99", &found), 0);
	assert_memory_equal(&found, &expected, sizeof(found));

	/* A link is resolved in the server's root, never in ours. */
	assert_int_equal(run("ln -sf %s/debug %s", workdir, path), 0);
	assert_int_equal(find(pid, "valkey 9.1.99", &found), -ENOENT);
	assert_int_equal(run("cp %s/debug %s/root/elsewhere && ln -sf /elsewhere %s", workdir, workdir, path), 0);
	assert_int_equal(find(pid, "valkey 9.1.99", &found), 0);

	/* replylog does not open anything but regular files: this FIFO would wait for a writer. */
	assert_int_equal(run("rm %s && mkfifo %s", path, path), 0);
	assert_int_equal(find(pid, "valkey 9.1.99", &found), -ENOENT);
	end(pid);
}

/* ---- damaged files ---- */

static uint8_t *read_whole(const char *path, size_t *size)
{
	FILE *file = fopen(path, "r");
	struct stat st;
	uint8_t *bytes;

	assert_non_null(file);
	assert_int_equal(fstat(fileno(file), &st), 0);
	*size = (size_t)st.st_size;
	bytes = malloc(*size);
	assert_non_null(bytes);
	assert_int_equal(fread(bytes, 1, *size, file), *size);
	fclose(file);
	return bytes;
}

static void try_bytes(const uint8_t *bytes, size_t size)
{
	FILE *file = fopen(in_workdir("damaged"), "w");
	struct client_layout layout;

	assert_non_null(file);
	assert_int_equal(fwrite(bytes, 1, size, file), size);
	assert_int_equal(fclose(file), 0);
	if (!read_debug_info(in_workdir("damaged"), "valkey 9.1.2", &layout)) {
		assert_true(layout.conn.offset + layout.conn.size <= (int)layout.client_size);
		assert_true(layout_finish(&layout));
	}
}

/* Any damage gives a layout or none, but no crash and no endless loop. */
static void test_damaged(void **state)
{
	uint8_t *bytes, *copy;
	unsigned int seed = 5;
	size_t size;

	(void)state;
	if (!build_fixture("-g -nostdlib -Wl,-e,main -Wl,--unresolved-symbols=ignore-all"))
		skip();
	bytes = read_whole(in_workdir("fixture"), &size);
	copy = malloc(size);
	assert_non_null(copy);
	for (size_t cut = 0; cut < size; cut += 1 + size / 100)
		try_bytes(bytes, cut);
	for (int round = 0; round < 2000; round++) {
		memcpy(copy, bytes, size);
		for (int change = 0; change < 1 + round % 8; change++)
			copy[(size_t)rand_r(&seed) % size] = (uint8_t)(rand_r(&seed) >> 8);
		try_bytes(copy, size);
	}
	free(copy);
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_nwritten_is_of_valkey_8),
		cmocka_unit_test(test_not_in_table),
		cmocka_unit_test(test_finish_refuses),
		cmocka_unit_test(test_fixtures),
		cmocka_unit_test(test_unknown_flags),
		cmocka_unit_test(test_no_debug_info),
		cmocka_unit_test(test_shared_part),
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_debuginfod),
		cmocka_unit_test(test_debuginfod_fails),
		cmocka_unit_test(test_separate_file),
		cmocka_unit_test(test_damaged),
	};

	return cmocka_run_group_tests(tests, make_workdir, remove_workdir);
}
