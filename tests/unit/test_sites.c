/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Site discovery on real servers, on small programs built here with layouts that none of these servers has, and on
 * damaged files.
 */
#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "user/code/elf_image.h"
#include "user/server/server_version.h"
#include "user/code/insn.h"
#include "user/code/sites.h"

/*
 * By build id, the result of independent tools: objdump -d (calls to xxx@plt),
 * readelf -wf (function bounds) and readelf -r (the table), put together by a script
 * for Debian's binaries. Order: read, write, writev, close, accept.
 */
static const struct known {
	uint16_t machine;
	const char *build_id;
	const char *name_version;
	uint64_t func[CONN_TYPES][SITE_KINDS];
	int fd_offset;
} known[] = {
	{ EM_X86_64,
	  "c93d28a5d769236a546a315e0aab9fc34358304d",
	  "redis 6.0.16",
	  { { 0xdd490, 0xdd5d0, 0, 0xdd430, 0xdd700 }, { 0xdecc0, 0xdedc0, 0, 0, 0xdea90 } },
	  56 },
	{ EM_X86_64,
	  "b2bcad6d23563e10222dc42e7a9b0e07f5c56033",
	  "redis 7.0.15",
	  { { 0x13bdf0, 0x13bf60, 0x13bf10, 0x13bec0, 0x13c020 }, { 0x13cef0, 0x13d050, 0x13d3a0, 0, 0x13d2a0 } },
	  56 },
	{ EM_X86_64,
	  "1c8ca332ea967fec156ebb8a2663bd32e6db217d",
	  "redis 8.0.2",
	  { { 0x1c27c0, 0x1c2720, 0x1c2770, 0x1c26b0, 0x1c2340 }, { 0x1c9610, 0x1c93a0, 0x1c9400, 0, 0x1c8f90 } },
	  16 },
	{ EM_X86_64,
	  "b91e4bc8517df45d1135a0db361b0e15b0435a7e",
	  "redis 8.6.3",
	  { { 0x1ee1e0, 0x1ee080, 0x1ee180, 0x1ee110, 0x1edea0 }, { 0x1fd210, 0x1fcfb0, 0x1fd010, 0, 0x1fcb80 } },
	  16 },
	{ EM_X86_64,
	  "3ac31ccc8d92d065b395caf121ab56bd70094b0d",
	  "valkey 8.0.1",
	  { { 0x19f5b0, 0x19f4f0, 0x19f560, 0x1a9760, 0x19f300 }, { 0x1aa630, 0x1aa3e0, 0x1aa440, 0, 0x1aa1c0 } },
	  16 },
	{ EM_X86_64,
	  "717de1c7102bf8335608ee93924606d4d5e4caf2",
	  "valkey 8.1.1",
	  { { 0x1b7760, 0x1b76c0, 0x1b6290, 0x1c0010, 0x1b6140 }, { 0x1b6d00, 0x1b69a0, 0x1b6a20, 0, 0x1c1140 } },
	  16 },
	{ EM_X86_64,
	  "10abf518d985fbdada210f4e98f2a2e8ce90d5e7",
	  "valkey 9.1.2",
	  { { 0x1b96c0, 0x1b9610, 0x1b6900, 0x1b9150, 0x1b6840 }, { 0x1f6770, 0x1f6800, 0x1f6a70, 0, 0x1f70a0 } },
	  16 },
	{ EM_AARCH64,
	  "661fd1b71a246481a910b80944441e06f6288f66",
	  "redis 7.0.15",
	  { { 0x13f010, 0x13f1f0, 0x13f184, 0x13f114, 0x13f2e0 }, { 0x140270, 0x140450, 0x140854, 0, 0x140730 } },
	  56 },
	{ EM_AARCH64,
	  "15a881fa03b7651cf0978a722ab0f41d145a0513",
	  "valkey 9.1.2",
	  { { 0x1ab360, 0x1ab2a0, 0x1a8be8, 0x1aacec, 0x1a8b20 }, { 0x1e4650, 0x1e4708, 0x1e49a0, 0, 0x1e4fe0 } },
	  16 },
};

static char why[512];

static struct elf_image *open_image(const char *path)
{
	struct elf_image *img = NULL;

	if (elf_image_open(path, &img, why, sizeof(why)))
		fail_msg("%s", why);
	return img;
}

static double milliseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

/* ---- real servers ---- */

static const struct known *known_binary(struct elf_image *img)
{
	char id[ELF_BUILD_ID_HEX];

	if (elf_image_build_id(img, id))
		return NULL;
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (!strcmp(known[i].build_id, id))
			return &known[i];
	return NULL;
}

/* Checks that apply to any server, known or not. */
static void check_any(struct elf_image *img, enum conn_type type, const struct conn_sites *found)
{
	for (int kind = 0; kind < SITE_KINDS; kind++) {
		const struct site *site = &found->site[kind];
		uint64_t start, end, vaddr;
		const uint8_t *code;

		if (!site->present) {
			assert_true(kind == SITE_WRITEV || kind == SITE_ACCEPT || !site_name(type, kind));
			continue;
		}
		assert_int_equal(elf_image_function(img, site->func_vaddr, &start, &end), 0);
		assert_int_equal(start, site->func_vaddr);
		assert_int_equal(elf_image_vaddr(img, site->func_offset, &vaddr), 0);
		assert_int_equal(vaddr, site->func_vaddr);
		assert_in_range(site->probe_offset, site->func_offset, site->func_offset + (end - start) - 1);
		code = elf_image_bytes(img, site->probe_offset, 15);
		assert_non_null(code);
		assert_int_equal(elf_image_isa(img)->emulated(code, 15), site->emulated);
	}
}

static void check_known(const struct known *expect, enum conn_type type, const struct conn_sites *found)
{
	if (type == CONN_SOCKET)
		assert_int_equal(found->fd_offset, expect->fd_offset);
	for (int kind = 0; kind < SITE_KINDS; kind++) {
		const struct site *site = &found->site[kind];

		assert_int_equal(site->func_vaddr, expect->func[type][kind]);
		assert_int_equal(site->present, expect->func[type][kind] != 0);
		/* The kernel emulates the first instruction of few arm64 functions (test_insn_arm64.c). */
		if (site->present && expect->machine == EM_X86_64)
			assert_true(site->emulated);
	}
}

static void check_sites(struct elf_image *img, enum conn_type type, const char *path, const struct known *expect)
{
	double begin = milliseconds();
	struct conn_sites found;

	if (sites_find(img, type, &found, why, sizeof(why)))
		fail_msg("%s: %s", path, why);
	print_message("%s: %s by %s, %.1f ms, %s\n", path, site_name(type, SITE_READ), found.found_by,
		      milliseconds() - begin, expect ? "as expected" : "no expectation for this build: consistency only");
	check_any(img, type, &found);
	if (expect)
		check_known(expect, type, &found);
}

static void check_server(const char *path)
{
	struct elf_image *img = open_image(path);
	const struct known *expect = known_binary(img);
	char name_version[32];

	assert_int_equal(identify_server(img, name_version, sizeof(name_version)), 0);
	if (expect)
		assert_string_equal(name_version, expect->name_version);
	check_sites(img, CONN_SOCKET, path, expect);
	if (sites_has_tls(img))
		check_sites(img, CONN_TLS, path, expect);
	elf_image_close(img);
}

static int check_if_there(const char *path)
{
	if (access(path, R_OK))
		return 0;
	check_server(path);
	return 1;
}

static void test_real_servers(void **state)
{
	const char *root = getenv("REPLYLOG_SERVERS");
	int checked = check_if_there("/usr/bin/redis-server") + check_if_there("/usr/bin/valkey-server");
	DIR *dir = root ? opendir(root) : NULL;
	struct dirent *entry;

	(void)state;
	while (dir && (entry = readdir(dir))) {
		char path[4096];

		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof(path), "%s/%s/usr/bin/valkey-server", root, entry->d_name);
		checked += check_if_there(path);
		snprintf(path, sizeof(path), "%s/%s/usr/bin/redis-server", root, entry->d_name);
		checked += check_if_there(path);
	}
	if (dir)
		closedir(dir);
	if (!checked) {
		print_message("skipped: no server in /usr/bin, and REPLYLOG_SERVERS (%s) holds none\n",
			      root ? root : "not set");
		skip();
	}
}

static void test_not_servers(void **state)
{
	static const char *const path[] = { "/bin/bash", "/usr/bin/redis-cli", "/usr/bin/redis-benchmark",
					    "/usr/bin/valkey-cli", "/proc/self/exe" };
	char name_version[32];

	(void)state;
	for (size_t i = 0; i < sizeof(path) / sizeof(path[0]); i++) {
		struct elf_image *img;

		if (access(path[i], R_OK))
			continue;
		img = open_image(path[i]);
		print_message("%s\n", path[i]);
		assert_int_equal(identify_server(img, name_version, sizeof(name_version)), -ENOENT);
		assert_string_equal(name_version, "");
		elf_image_close(img);
	}
}

/* ---- small programs ---- */

/* A table as Redis 7.2 and Valkey lay it out; -DOLD as Redis 7.0, -DOLDEST as Redis 6. */
static const char fixture_source[] =
	"#include <sys/uio.h>\n"
	"#include <unistd.h>\n"
	"#include <errno.h>\n"
	"struct conn { void *type; int state, last_errno, fd; };\n"
	"#define FN static __attribute__((noinline))\n"
	"#define KEEP(c, r) do { if ((r) < 0 && errno != EAGAIN) (c)->last_errno = errno; } while (0)\n"
	"FN int connSocketRead(struct conn *c, void *b, size_t n)"
	"{ int r = read(c->fd, b, n); KEEP(c, r); return r; }\n"
	"FN int connSocketWrite(struct conn *c, const void *b, size_t n)"
	"{ int r = write(c->fd, b, n); KEEP(c, r); return r; }\n"
	"FN int connSocketWritev(struct conn *c, const struct iovec *v, int n)"
	"{ int r = writev(c->fd, v, n); KEEP(c, r); return r; }\n"
	"FN void connSocketClose(struct conn *c) { if (c->fd != -1) { close(c->fd); c->fd = -1; } }\n"
	"FN int connSocketAccept(struct conn *c, void (*f)(struct conn *))"
	"{ if (c->state != 2) return -1; c->state = 3; f(c); return 0; }\n"
	"FN int other(struct conn *c) { return c->state; }\n"
	"#ifdef TAIL\n"
	"FN ssize_t tailRead(struct conn *c, void *b, size_t n) { return read(c->fd, b, n); }\n"
	"#define connSocketRead tailRead\n"
	"#endif\n"
	"#define F(f) ((void *)f)\n"
	"void *table[] = {\n"
	"#if defined(OLD)\n"
	" F(other), F(other), F(connSocketWrite), F(connSocketWritev), F(connSocketRead), F(connSocketClose),"
	" F(connSocketAccept), F(other)\n"
	"#elif defined(OLDEST)\n"
	" F(other), F(other), F(connSocketWrite), F(connSocketRead), F(connSocketClose), F(connSocketAccept), F(other)\n"
	"#else\n"
	" F(other), F(connSocketClose), F(other), F(other), F(connSocketAccept), F(connSocketWrite), F(connSocketWritev),"
	" F(connSocketRead), F(other)\n"
	"#endif\n"
	"};\n"
	"#ifdef TWICE\n"
	"FN int secondWrite(struct conn *c, const void *b, size_t n)"
	"{ int r = write(c->fd, b, n); KEEP(c, r); return r + 1; }\n"
	"void *second[] = { F(other), F(connSocketClose), F(other), F(other), F(other), F(secondWrite),"
	" F(connSocketWritev), F(connSocketRead) };\n"
	"#else\n"
	"void *second[1];\n"
	"#endif\n"
	/* Stands in for a library; -Wl,-E keeps the names, which a PLT would have. */
	"#ifdef TLS\n"
	"#define LIB __attribute__((noipa))\n"
	"LIB int SSL_read(void *s, void *b, int n) { return read(3, b, n); }\n"
	"LIB int SSL_write(void *s, const void *b, int n) { return write(3, b, n); }\n"
	"LIB void SSL_free(void *s) { close(3); }\n"
	"FN int connTLSRead(struct conn *c, void *b, size_t n)"
	"{ if (c->state != 3) return -1; int r = SSL_read(c->type, b, n); KEEP(c, r); return r; }\n"
	"FN int connTLSWrite(struct conn *c, const void *b, size_t n)"
	"{ if (c->state != 3) return -1; int r = SSL_write(c->type, b, n); KEEP(c, r); return r; }\n"
	"FN int connTLSWritev(struct conn *c, const struct iovec *v, int n)"
	"{ int sum = 0; for (int i = 0; i < n; i++) sum += INNER(c, v[i].iov_base, v[i].iov_len); return sum; }\n"
	"FN void connTLSClose(struct conn *c) { SSL_free(c->type); c->fd = -1; }\n"
	"FN int connTLSAccept(struct conn *c, void (*f)(struct conn *))"
	"{ if (c->state != 2) return -1; c->last_errno = 0; f(c); return 0; }\n"
	"FN int syncWrite(struct conn *c, char *b, long n) { return SSL_write(c->type, b, n) + 1; }\n"
	"FN int syncRead(struct conn *c, char *b, long n) { return SSL_read(c->type, b, n) + 1; }\n"
	"FN int syncLine(struct conn *c, char *b, long n) { return SSL_read(c->type, b, 1) + 2; }\n"
	"#define SYNC F(syncWrite), F(syncRead), F(syncLine)\n"
	"void *tls[] = {\n"
	"#if defined(OLD)\n"
	" F(other), F(connTLSWrite), F(connTLSWritev), F(connTLSRead), F(connTLSClose), F(connTLSAccept), SYNC\n"
	"#elif defined(OLDEST)\n"
	" F(other), F(connTLSWrite), F(connTLSRead), F(connTLSClose), F(connTLSAccept), SYNC\n"
	"#else\n"
	" F(connTLSClose), F(other), F(other), F(connTLSAccept), F(connTLSWrite), F(connTLSWritev), F(connTLSRead), SYNC\n"
	"#endif\n"
	"};\n"
	"#else\n"
	"void *tls[1];\n"
	"#endif\n"
	"int main(int argc, char **argv)"
	"{ struct conn c = { 0, 0, 0, -1 };"
	" return ((int (*)(struct conn *, void *, long))(argc > 2 ? tls : argc > 1 ? second : table)[argc])(&c, argv, 1); }\n";

static char workdir[] = "/tmp/test_sites.XXXXXX";

/* A compiler that is not installed builds nothing, and its output is not tested. */
static const struct toolchain {
	const char *cc;
	uint16_t machine;
} toolchains[] = {
	{ "x86_64-linux-gnu-gcc", EM_X86_64 },
	{ "aarch64-linux-gnu-gcc", EM_AARCH64 },
};
#define TOOLCHAINS (sizeof(toolchains) / sizeof(toolchains[0]))

static int make_workdir(void **state)
{
	char path[64];
	FILE *file;

	(void)state;
	if (!mkdtemp(workdir))
		return -1;
	snprintf(path, sizeof(path), "%s/fixture.c", workdir);
	file = fopen(path, "w");
	if (!file)
		return -1;
	fputs(fixture_source, file);
	return fclose(file);
}

static int remove_workdir(void **state)
{
	char command[64];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", workdir);
	return system(command);
}

/* Builds the fixture; NULL when there is no such compiler or it or its linker does not know the flags. */
static struct elf_image *build_fixture(const struct toolchain *toolchain, const char *flags)
{
	char command[512], path[64];
	struct elf_image *img;

	snprintf(path, sizeof(path), "%s/fixture", workdir);
	unlink(path);
	snprintf(command, sizeof(command), "%s -O2 %s -o %s %s/fixture.c 2>/dev/null", toolchain->cc, flags, path, workdir);
	if (system(command) || access(path, R_OK)) {
		print_message("%s %s: not built by this toolchain\n", toolchain->cc, flags);
		return NULL;
	}
	img = open_image(path);
	assert_int_equal(elf_image_machine(img), toolchain->machine);
	return img;
}

struct fixture {
	const char *flags;
	uint16_t machine; /* 0: any */
	int ret;
	const char *found_by;
	bool writev;
	int fd_offset;
};

static const struct fixture fixtures[] = {
	{ "-fpie -pie", 0, 0, "symbol", true, 16 },
	{ "-fpie -pie -s", 0, 0, "table", true, 16 },
	{ "-fpie -pie -s -DOLD", 0, 0, "table", true, 16 },
	{ "-fpie -pie -s -DOLDEST", 0, 0, "table", false, 16 },
	{ "-fpie -pie -s -fcf-protection=full -Wl,-z,ibtplt -Wl,-z,lazy", EM_X86_64, 0, "table", true, 16 },
	{ "-fpie -pie -s -Wl,-z,now", 0, 0, "table", true, 16 },
	{ "-fpie -pie -s -fno-plt", EM_X86_64, 0, "table", true, 16 },
	{ "-fpie -pie -s -Wl,-z,pack-relative-relocs", 0, 0, "table", true, 16 },
	{ "-fno-pie -no-pie -s", 0, 0, "table", true, 16 },
	{ "-fno-pie -no-pie", 0, 0, "symbol", true, 16 },
	{ "-static", 0, 0, "symbol", true, 16 },
	{ "-static-pie -fpie", 0, 0, "symbol", true, 16 },
	{ "-fpie -pie -s -fuse-ld=lld", 0, 0, "table", true, 16 },
	{ "-fpie -pie -s -fuse-ld=gold", 0, 0, "table", true, 16 },
	/* A GOT word is loaded into a register, and the call goes through that: not followed. */
	{ "-fpie -pie -s -fno-plt", EM_AARCH64, -ENOENT, NULL, false, 0 },
	{ "-fpie -pie -s -mbranch-protection=standard", EM_AARCH64, 0, "table", true, 16 },
	{ "-fpie -pie -s -mbranch-protection=standard -Wl,-z,force-bti", EM_AARCH64, 0, "table", true, 16 },
	{ "-fpie -pie -s -mbranch-protection=pac-ret+leaf -Wl,-z,pac-plt", EM_AARCH64, 0, "table", true, 16 },
	{ "-fpie -pie -s -moutline-atomics -fstack-clash-protection", EM_AARCH64, 0, "table", true, 16 },
	/* A frame pointer and every variable on the stack, so the fd is hard to follow. */
	{ "-fpie -pie -s -O0", 0, 0, "table", true, -1 },
	{ "-fpie -pie -O0", 0, 0, "symbol", true, -1 },
	{ "-fpie -pie -s -fstack-protector-all", 0, 0, "table", true, 16 },
	/* jmp read@plt */
	{ "-fpie -pie -s -DTAIL", 0, 0, "table", true, 16 },
	{ "-fpie -pie -s -DTWICE", 0, -ENOTUNIQ, NULL, false, 0 },
	{ "-fpie -pie -s -fno-asynchronous-unwind-tables -fno-unwind-tables", 0, -ENOENT, NULL, false, 0 },
	/* Static and stripped, so nothing tells which function is write. */
	{ "-static -s", 0, -ENOENT, NULL, false, 0 },
};

static void check_fixture(const struct fixture *expect, struct elf_image *img)
{
	struct conn_sites found;
	int ret;

	ret = sites_find(img, CONN_SOCKET, &found, why, sizeof(why));
	print_message("%s, machine %u: %s\n", expect->flags, elf_image_machine(img), ret ? why : found.found_by);
	assert_int_equal(ret, expect->ret);
	if (ret) {
		assert_string_not_equal(why, "");
		return;
	}
	assert_string_equal(found.found_by, expect->found_by);
	assert_int_equal(found.site[SITE_WRITEV].present, expect->writev);
	/* Unoptimized code compares a copy on the stack. Then the slot does not identify accept, but the symbol does. */
	assert_int_equal(found.site[SITE_ACCEPT].present, expect->fd_offset >= 0 || !strcmp(expect->found_by, "symbol"));
	assert_false(sites_has_tls(img));
	assert_int_equal(found.fd_offset, expect->fd_offset);
	check_any(img, CONN_SOCKET, &found);
}

static void test_fixtures(void **state)
{
	size_t built = 0;

	(void)state;
	for (size_t i = 0; i < TOOLCHAINS * sizeof(fixtures) / sizeof(fixtures[0]); i++) {
		const struct toolchain *toolchain = &toolchains[i % TOOLCHAINS];
		const struct fixture *expect = &fixtures[i / TOOLCHAINS];
		struct elf_image *img;

		if (expect->machine && expect->machine != toolchain->machine)
			continue;
		img = build_fixture(toolchain, expect->flags);
		if (!img)
			continue;
		check_fixture(expect, img);
		built++;
		elf_image_close(img);
	}
	if (!built)
		skip();
}

/* connTLSWritev calls connTLSWrite, or has it inlined and calls SSL_write itself. */
static void test_tls_fixtures(void **state)
{
	static const struct {
		const char *flags, *found_by;
		bool writev;
	} expect[] = {
		{ "-fpie -pie -Wl,-E -DTLS -DINNER=connTLSWrite", "symbol", true },
		{ "-fpie -pie -Wl,-E -s -DTLS -DINNER=connTLSWrite", "table", true },
		{ "-fpie -pie -Wl,-E -s -DTLS -DINNER=SSL_write", "table", true },
		{ "-fpie -pie -Wl,-E -s -DTLS -DINNER=SSL_write -DOLD", "table", true },
		{ "-fpie -pie -Wl,-E -s -DTLS -DINNER=connTLSWrite -DOLD", "table", true },
		{ "-fpie -pie -Wl,-E -s -DTLS -DINNER=SSL_write -DOLDEST", "table", false },
		{ "-shared -fPIC -s -DTLS -DINNER=connTLSWrite", "table", true },
		{ "-shared -fPIC -s -DTLS -DINNER=SSL_write", "table", true },
	};

	(void)state;
	for (size_t each = 0; each < TOOLCHAINS * sizeof(expect) / sizeof(expect[0]); each++) {
		const struct toolchain *toolchain = &toolchains[each % TOOLCHAINS];
		size_t i = each / TOOLCHAINS;
		struct elf_image *img = build_fixture(toolchain, expect[i].flags);
		struct conn_sites found;

		if (!img)
			continue;
		print_message("%s %s\n", toolchain->cc, expect[i].flags);
		assert_true(sites_has_tls(img));
		if (sites_find(img, CONN_TLS, &found, why, sizeof(why)))
			fail_msg("%s", why);
		assert_string_equal(found.found_by, expect[i].found_by);
		assert_int_equal(found.site[SITE_WRITEV].present, expect[i].writev);
		assert_true(found.site[SITE_ACCEPT].present);
		assert_false(found.site[SITE_CLOSE].present);
		check_any(img, CONN_TLS, &found);
		elf_image_close(img);
	}
}

/* The table's answer and the symbols' must be the same functions. */
static void check_agreement(const struct toolchain *toolchain)
{
	struct conn_sites by_symbol, by_table;
	struct elf_image *img = build_fixture(toolchain, "-fpie -pie");

	if (!img)
		return;
	assert_int_equal(sites_find(img, CONN_SOCKET, &by_symbol, why, sizeof(why)), 0);
	elf_image_close(img);
	img = build_fixture(toolchain, "-fpie -pie -s");
	assert_non_null(img);
	assert_int_equal(sites_find(img, CONN_SOCKET, &by_table, why, sizeof(why)), 0);
	elf_image_close(img);
	for (int kind = 0; kind < SITE_KINDS; kind++)
		assert_memory_equal(&by_symbol.site[kind], &by_table.site[kind], sizeof(struct site));
}

static void test_symbol_and_table_agree(void **state)
{
	(void)state;
	for (size_t i = 0; i < TOOLCHAINS; i++)
		check_agreement(&toolchains[i]);
}

/* ---- damaged files ---- */

/* Runs all of discovery on arbitrary bytes: it may fail, but not misbehave. */
static int try_bytes(const uint8_t *bytes, size_t size)
{
	char path[64], name_version[32], id[ELF_BUILD_ID_HEX];
	struct elf_image *img = NULL;
	struct conn_sites found;
	FILE *file;
	int ret;

	snprintf(path, sizeof(path), "%s/damaged", workdir);
	file = fopen(path, "w");
	assert_non_null(file);
	assert_int_equal(fwrite(bytes, 1, size, file), size);
	assert_int_equal(fclose(file), 0);
	why[0] = '\0';
	ret = elf_image_open(path, &img, why, sizeof(why));
	if (ret) {
		assert_null(img);
		assert_string_not_equal(why, "");
		return ret;
	}
	elf_image_build_id(img, id);
	identify_server(img, name_version, sizeof(name_version));
	ret = sites_find(img, CONN_SOCKET, &found, why, sizeof(why));
	if (ret)
		assert_string_not_equal(why, "");
	else
		check_any(img, CONN_SOCKET, &found);
	elf_image_close(img);
	return ret;
}

static uint8_t *read_whole(const char *path, size_t *size)
{
	int fd = open(path, O_RDONLY);
	uint8_t *bytes;
	struct stat st;

	if (fd < 0)
		return NULL;
	assert_int_equal(fstat(fd, &st), 0);
	*size = (size_t)st.st_size;
	bytes = malloc(*size);
	assert_non_null(bytes);
	assert_int_equal(read(fd, bytes, *size), st.st_size);
	close(fd);
	return bytes;
}

/* The smallest binary with a table: quick to damage many times. */
static uint8_t *victim(const struct toolchain *toolchain, size_t *size)
{
	struct elf_image *img = build_fixture(toolchain, "-fpie -pie -s");
	char path[64];

	if (!img)
		return read_whole("/proc/self/exe", size);
	elf_image_close(img);
	snprintf(path, sizeof(path), "%s/fixture", workdir);
	return read_whole(path, size);
}

static void test_garbage(void **state)
{
	static const uint8_t nothing[1], text[] = "#!/bin/sh\nexit 0\n", magic[] = { 0x7f, 'E', 'L', 'F' };
	uint8_t noise[4096];
	unsigned int seed = 2;

	(void)state;
	for (size_t i = 0; i < sizeof(noise); i++)
		noise[i] = (uint8_t)(rand_r(&seed) >> 8);
	assert_int_equal(try_bytes(nothing, 0), -ENOEXEC);
	assert_int_equal(try_bytes(text, sizeof(text)), -ENOEXEC);
	assert_int_equal(try_bytes(magic, sizeof(magic)), -ENOEXEC);
	assert_int_equal(try_bytes(noise, sizeof(noise)), -ENOEXEC);
	memcpy(noise, "\177ELF\2\1\1", 7);
	assert_int_equal(try_bytes(noise, sizeof(noise)), -ENOEXEC);
}

static void test_not_files(void **state)
{
	struct elf_image *img = NULL;

	(void)state;
	assert_int_equal(elf_image_open("/nonexistent", &img, why, sizeof(why)), -ENOENT);
	assert_int_equal(elf_image_open("/tmp", &img, why, sizeof(why)), -ENOEXEC);
	assert_int_equal(elf_image_open("/dev/zero", &img, why, sizeof(why)), -ENOEXEC);
	assert_null(img);
	elf_image_close(NULL);
}

static void test_truncated(void **state)
{
	size_t size;
	uint8_t *bytes = victim(*state, &size);

	assert_non_null(bytes);
	for (size_t cut = 0; cut < size; cut += 1 + size / 200)
		assert_int_not_equal(try_bytes(bytes, cut), 0);
	free(bytes);
}

static void set_word(uint8_t *at, size_t width, uint64_t value)
{
	for (size_t i = 0; i < width; i++)
		at[i] = (uint8_t)(value >> (8 * i));
}

/* Each field of each section and program header, with values that overflow something. */
static void test_absurd_headers(void **state)
{
	static const uint64_t absurd[] = { 0, 1, 0x7fffffff, UINT32_MAX, INT64_MAX, UINT64_MAX, UINT64_MAX - 7 };
	Elf64_Ehdr eh;
	size_t size;
	uint8_t *bytes = victim(*state, &size);
	uint8_t *copy = malloc(size);

	assert_non_null(bytes);
	assert_non_null(copy);
	memcpy(&eh, bytes, sizeof(eh));
	for (uint64_t field = 0; field < (uint64_t)eh.e_shnum * 16 + (uint64_t)eh.e_phnum * 14; field++) {
		bool section = field < (uint64_t)eh.e_shnum * 16;
		uint64_t index = section ? field : field - (uint64_t)eh.e_shnum * 16;
		uint64_t at = (section ? eh.e_shoff : eh.e_phoff) + 4 * index;

		for (size_t i = 0; i < sizeof(absurd) / sizeof(absurd[0]); i++) {
			if (at + 8 > size || (i + field) % 3)
				continue;
			memcpy(copy, bytes, size);
			set_word(copy + at, i & 1 ? 4 : 8, absurd[i]);
			try_bytes(copy, size);
		}
	}
	free(copy);
	free(bytes);
}

/* Damages the headers and small tables, on which everything depends. */
static void test_mutations(void **state)
{
	unsigned int seed = 3;
	size_t size;
	uint8_t *bytes = victim(*state, &size);
	uint8_t *copy = malloc(size);
	Elf64_Ehdr eh;

	assert_non_null(bytes);
	assert_non_null(copy);
	memcpy(&eh, bytes, sizeof(eh));
	for (int round = 0; round < 1500; round++) {
		memcpy(copy, bytes, size);
		for (int change = 0; change < 1 + round % 6; change++) {
			size_t at = (size_t)rand_r(&seed);

			if (at % 3 == 0)
				at = eh.e_shoff + (at >> 2) % (eh.e_shnum * sizeof(Elf64_Shdr));
			else if (at % 3 == 1)
				at = (at >> 2) % (sizeof(eh) + eh.e_phnum * sizeof(Elf64_Phdr));
			copy[at % size] = (uint8_t)(rand_r(&seed) >> 8);
		}
		try_bytes(copy, size);
	}
	free(copy);
	free(bytes);
}

/* A real server's headers damaged: big tables, every code path, fewer rounds. */
static void test_mutated_server(void **state)
{
	unsigned int seed = 4;
	size_t size;
	uint8_t *bytes = read_whole("/usr/bin/redis-server", &size);
	Elf64_Ehdr eh;

	(void)state;
	if (!bytes) {
		print_message("skipped: no /usr/bin/redis-server to damage\n");
		skip();
	}
	memcpy(&eh, bytes, sizeof(eh));
	for (int round = 0; round < 100; round++) {
		uint64_t length = (uint64_t)eh.e_shnum * sizeof(Elf64_Shdr);
		size_t at = round & 1 ? (size_t)(eh.e_shoff + (uint64_t)rand_r(&seed) % length)
				      : (size_t)rand_r(&seed) % (sizeof(eh) + eh.e_phnum * sizeof(Elf64_Phdr));
		uint8_t saved = bytes[at % size];

		bytes[at % size] = (uint8_t)(rand_r(&seed) >> 8);
		try_bytes(bytes, size);
		bytes[at % size] = saved;
	}
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_real_servers),
		cmocka_unit_test(test_not_servers),
		cmocka_unit_test(test_fixtures),
		cmocka_unit_test(test_tls_fixtures),
		cmocka_unit_test(test_symbol_and_table_agree),
		cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_not_files),
		cmocka_unit_test_prestate(test_truncated, (void *)&toolchains[0]),
		cmocka_unit_test_prestate(test_truncated, (void *)&toolchains[1]),
		cmocka_unit_test_prestate(test_absurd_headers, (void *)&toolchains[0]),
		cmocka_unit_test_prestate(test_absurd_headers, (void *)&toolchains[1]),
		cmocka_unit_test_prestate(test_mutations, (void *)&toolchains[0]),
		cmocka_unit_test_prestate(test_mutations, (void *)&toolchains[1]),
		cmocka_unit_test(test_mutated_server),
	};

	return cmocka_run_group_tests(tests, make_workdir, remove_workdir);
}
