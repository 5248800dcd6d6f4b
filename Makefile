# SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
#
#   make            ./replylog
#   make unit       builds and runs the unit tests; make unit TEST=json only tests/unit/test_json.c
#   make lint       reads the sources: format, shell, Python, clang-tidy, who includes whom; see scripts/lint
#   make install    and make uninstall; PREFIX is /usr/local, DESTDIR is put before it
#   make fuzz       builds the fuzzers into .output/
#   make V=1        shows the commands
#
#   make ARCH=aarch64 CC=aarch64-linux-gnu-gcc OUTPUT=.output/aarch64
#                   .output/aarch64/replylog, for another machine than this

OUTPUT := .output
ifeq ($(origin CC),default)
CC := gcc
endif
CLANG ?= clang
BPFTOOL ?= $(firstword $(shell command -v bpftool /usr/sbin/bpftool 2>/dev/null) bpftool)
PKG_CONFIG ?= pkg-config

ARCH := $(shell uname -m)
# What is built for this machine lies where one looks for it.
BINARY := $(if $(filter $(shell uname -m),$(ARCH)),replylog,$(OUTPUT)/replylog)
BPF_ARCH := $(patsubst aarch64,arm64,$(patsubst x86_64,x86,$(ARCH)))

ifeq ($(V),1)
Q :=
msg :=
else
Q := @
msg = $(if $(findstring s,$(firstword -$(MAKEFLAGS))),,@printf '  %-8s %s\n' "$(1)" "$(2)")
endif

WARNINGS := -Wall -Wextra -Werror -Wno-unused-parameter
CFLAGS ?= -O2 -g
ALL_CFLAGS := -std=gnu11 $(WARNINGS) $(CFLAGS) -D_GNU_SOURCE \
	-I$(OUTPUT) -I. $(shell $(PKG_CONFIG) --cflags libbpf libelf libdw 2>/dev/null) -MMD -MP
LIBS := $(shell $(PKG_CONFIG) --libs libbpf libelf libdw 2>/dev/null || echo -lbpf -lelf -ldw)
# -mcpu=v3: atomics that return what was there; every kernel with the features replylog needs has them.
BPF_CFLAGS := -g -O2 $(WARNINGS) -target bpf -mcpu=v3 -D__TARGET_ARCH_$(BPF_ARCH) -Ivmlinux -I. -MMD -MP

# bpf/replylog.bpf.c is the engine; bpf/features/features.bpf.c asks the kernel before.
BPF_OBJECTS := replylog features
SKELETONS := $(BPF_OBJECTS:%=$(OUTPUT)/%.skel.h)
vpath %.bpf.c bpf bpf/features

USER_SOURCES := $(wildcard user/*.c user/*/*.c)
HEADERS := $(wildcard bpf/*.h bpf/*/*.h user/*.h user/*/*.h)
USER_OBJECTS := $(USER_SOURCES:%.c=$(OUTPUT)/%.o)
# cmocka 2.0 deprecates what 1.1 has nothing else for.
TEST_CFLAGS := -Wno-error=deprecated-declarations

# What unit tests link, built once more with the sanitizers: all but main. The linker takes what each test needs.
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=undefined
SANITIZED_OBJECTS := $(patsubst %.c,$(OUTPUT)/sanitized/%.o,$(filter-out user/main.c,$(USER_SOURCES)))
SANITIZED := $(OUTPUT)/sanitized/replylog.a
UNIT_TESTS := $(patsubst tests/unit/%.c,$(OUTPUT)/tests/%,$(wildcard tests/unit/test_*.c))
FUZZERS := $(patsubst tests/fuzz/%.c,$(OUTPUT)/fuzz/%,$(wildcard tests/fuzz/fuzz_*.c))

# Not by a rule: its recipe would run each time, and make would take the header for renewed.
VERSION := $(shell scripts/version $(OUTPUT)/version_text.h)

PREFIX ?= /usr/local
INSTALL ?= install
MANUAL := docs/replylog.8
# README's links into docs/ hold where they are installed.
DOCUMENTS := README.md CHANGELOG.md LICENSE $(wildcard docs/*.md docs/*.svg)
INSTALLED_BINARY = $(DESTDIR)$(PREFIX)/sbin/replylog
INSTALLED_MANUAL = $(DESTDIR)$(PREFIX)/share/man/man8/$(notdir $(MANUAL))
INSTALLED_DOCUMENTS = $(DESTDIR)$(PREFIX)/share/doc/replylog

.DELETE_ON_ERROR:
.PHONY: all unit unit-build lint fuzz bpf-arm64 install uninstall clean

all: $(BINARY)

$(BINARY): $(USER_OBJECTS)
	$(call msg,LINK,$@)
	$(Q)$(CC) $(CFLAGS) $(LDFLAGS) $^ $(LIBS) -o $@

# The skeletons must be there before the first compilation; from then on the .d files know who needs them.
$(OUTPUT)/user/%.o: user/%.c Makefile | $(SKELETONS)
	$(call msg,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) -c $< -o $@

$(OUTPUT)/%.bpf.o: %.bpf.c Makefile
	$(call msg,BPF,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CLANG) $(BPF_CFLAGS) -c $< -o $@

# Debug information other than BTF goes: libbpf doesn't need it and the binary carries the object.
$(SKELETONS): $(OUTPUT)/%.skel.h: $(OUTPUT)/%.bpf.o
	$(call msg,SKEL,$@)
	$(Q)$(BPFTOOL) gen object $(OUTPUT)/$*.linked.o $<
	$(Q)$(BPFTOOL) gen skeleton $(OUTPUT)/$*.linked.o name $*_bpf > $@

# The programs compile for the other architecture, too.
bpf-arm64: $(BPF_OBJECTS:%=$(OUTPUT)/arm64/%.bpf.o)

$(OUTPUT)/arm64/%.bpf.o: %.bpf.c Makefile
	$(call msg,BPF,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CLANG) $(subst -D__TARGET_ARCH_$(BPF_ARCH),-D__TARGET_ARCH_arm64,$(BPF_CFLAGS)) -c $< -o $@

# Unit tests run the engine's own headers, compiled for the host.
$(OUTPUT)/tests/%: tests/unit/%.c $(SANITIZED) Makefile
	$(call msg,TEST,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(SANITIZE) $(TEST_CFLAGS) -Itests/unit -MF $@.d $< $(SANITIZED) -lcmocka $(LIBS) -o $@

$(SANITIZED): $(SANITIZED_OBJECTS)
	$(call msg,AR,$@)
	$(Q)rm -f $@
	$(Q)$(AR) rcs $@ $^

$(OUTPUT)/sanitized/%.o: %.c Makefile | $(SKELETONS)
	$(call msg,CC,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(ALL_CFLAGS) $(SANITIZE) -c $< -o $@

# They are not linked anew for each commit.
$(OUTPUT)/sanitized/user/version.o: ALL_CFLAGS += -DREPLYLOG_VERSION='"unit-test"'

# What scripts/layouts prints the table of layouts with.
$(OUTPUT)/layout_entry: scripts/layout_entry.c user/code/layout_dwarf.c user/code/layouts.h bpf/abi/layout.h Makefile
	$(call msg,LINK,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(filter-out -MMD -MP,$(ALL_CFLAGS)) $(filter %.c,$^) $(LIBS) -o $@

# What scripts/bench compares replylog with: empty programs at its sites.
$(OUTPUT)/empty_probes: tests/bench/empty_probes.c user/kernel/uprobe_link.c user/kernel/features.h user/kernel/attach.h user/kernel/uprobe_link.h Makefile
	$(call msg,LINK,$@)
	$(Q)$(CC) $(filter-out -MMD -MP,$(ALL_CFLAGS)) $(filter %.c,$^) $(LIBS) -o $@

unit-build: $(UNIT_TESTS)

UNIT_CHOSEN := $(if $(TEST),$(filter $(OUTPUT)/tests/test_$(TEST:test_%=%),$(UNIT_TESTS)),$(UNIT_TESTS))
ifneq ($(filter unit,$(MAKECMDGOALS)),)
$(if $(UNIT_CHOSEN),,$(error no unit test $(TEST); there are $(patsubst $(OUTPUT)/tests/test_%,%,$(UNIT_TESTS))))
endif

unit: $(UNIT_CHOSEN)
	$(Q)for test in $(UNIT_CHOSEN); do $$test || exit 1; done

# clang-tidy reads headers that a build makes.
lint: $(BINARY)
	$(Q)scripts/lint

# What the fuzzers link, built for them: the way from a record to a line.
FUZZ_SOURCES := $(wildcard user/output/*.c)
FUZZ_SANITIZE := -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined

$(OUTPUT)/fuzz/%: tests/fuzz/%.c $(FUZZ_SOURCES) $(HEADERS) Makefile
	$(call msg,FUZZ,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CLANG) $(filter-out -MMD -MP,$(ALL_CFLAGS)) $(FUZZ_SANITIZE) $< $(FUZZ_SOURCES) -o $@

# The framer's fuzzer, beside a reader that is not ours. hiredis' own undefined behaviour is not looked for.
FRAMING_SOURCES := user/output/argv.c user/server/commands.c user/server/known_names.c
HIREDIS := $(OUTPUT)/hiredis
HIREDIS_OBJECTS := $(addprefix $(HIREDIS)/,read.o sds.o alloc.o)

$(HIREDIS)/read.c: tests/fuzz/hiredis
	$(call msg,FETCH,$@)
	$(Q)tests/fuzz/hiredis $(HIREDIS)

$(HIREDIS_OBJECTS): %.o: $(HIREDIS)/read.c
	$(Q)$(CLANG) -O2 -g -w -fsanitize=fuzzer-no-link,address -c $*.c -o $@

$(OUTPUT)/fuzz/fuzz_framing: tests/fuzz/fuzz_framing.c $(FRAMING_SOURCES) $(HIREDIS_OBJECTS) \
		$(wildcard tests/fuzz/*.h) tests/unit/engine_host.h $(HEADERS) Makefile
	$(call msg,FUZZ,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CLANG) $(filter-out -MMD -MP,$(ALL_CFLAGS)) -Wno-unused-function -Itests/unit -isystem $(HIREDIS) $(FUZZ_SANITIZE) \
		$< $(FRAMING_SOURCES) $(HIREDIS_OBJECTS) -o $@

fuzz: $(FUZZERS)

# Clients that system tests run, from libraries that not every machine has: built by those tests.
$(OUTPUT)/clients/%: tests/system/clients/%.c Makefile
	$(call msg,CLIENT,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) -std=gnu11 $(WARNINGS) $(CFLAGS) $< $(shell $(PKG_CONFIG) --cflags --libs hiredis libevent) -o $@

# What system tests put into servers, to have them do what they seldom do.
$(OUTPUT)/preload/%.so: tests/system/preload/%.c Makefile
	$(call msg,PRELOAD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) -std=gnu11 $(WARNINGS) $(CFLAGS) -D_GNU_SOURCE -shared -fPIC $< -o $@

# Modules that system tests have servers load, to have commands do what the servers' own don't.
$(OUTPUT)/modules/%.so: tests/system/modules/%.c Makefile
	$(call msg,MODULE,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) -std=gnu11 $(WARNINGS) $(CFLAGS) -D_GNU_SOURCE -shared -fPIC $< -lpthread -o $@

install: $(BINARY)
	$(call msg,INSTALL,$(DESTDIR)$(PREFIX))
	$(Q)$(INSTALL) -D -m 755 $(BINARY) "$(INSTALLED_BINARY)"
	$(Q)$(INSTALL) -D -m 644 $(MANUAL) "$(INSTALLED_MANUAL)"
	$(Q)for file in $(DOCUMENTS); do $(INSTALL) -D -m 644 $$file "$(INSTALLED_DOCUMENTS)/$$file" || exit 1; done

# Folders go that are replylog's own and hold nothing else.
uninstall:
	$(call msg,REMOVE,$(DESTDIR)$(PREFIX))
	$(Q)rm -f "$(INSTALLED_BINARY)" "$(INSTALLED_MANUAL)"
	$(Q)for file in $(DOCUMENTS); do rm -f "$(INSTALLED_DOCUMENTS)/$$file"; done
	$(Q)for dir in "$(INSTALLED_DOCUMENTS)/docs" "$(INSTALLED_DOCUMENTS)"; do \
		[ ! -d "$$dir" ] || rmdir --ignore-fail-on-non-empty "$$dir"; done

clean:
	$(call msg,CLEAN,$(OUTPUT))
	$(Q)rm -rf $(OUTPUT) $(BINARY)

-include $(wildcard $(OUTPUT)/*.d $(OUTPUT)/*/*.d $(OUTPUT)/*/*/*.d $(OUTPUT)/*/*/*/*.d)
