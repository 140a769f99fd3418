# The commands of this project; `make help` lists them. Cargo does most of the work.

CARGO ?= cargo
CC ?= cc
CXX ?= c++
AR ?= ar
LD ?= ld
OBJCOPY ?= objcopy
INSTALL ?= install

PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
BINDIR ?= $(PREFIX)/bin
INCLUDEDIR ?= $(PREFIX)/include
DESTDIR ?=

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
ABI := $(shell sed -n 's/.*LIGHTGPT_ABI_VERSION: u32 = \([0-9]*\);/\1/p' src/capi/library.rs)
TARGET := $(or $(CARGO_TARGET_DIR),target)
# The folder with the library that cargo built; the tests set it to their own.
LIBRARY ?= $(TARGET)/release
# Where this file puts what it makes.
OUT ?= build
CFLAGS ?= -O2
CXXFLAGS ?= -O2
STRICT := -std=c99 -Wall -Wextra -Wpedantic -Werror
MODEL ?= models/tales-4m-q8_0.gguf
PROMPT ?= Once upon a time

# What is released does not tell in whose home its dependencies were built.
CARGO_HOME ?= $(HOME)/.cargo
NAMELESS := --config 'build.rustflags=["--remap-path-prefix=$(CARGO_HOME)=cargo"]'

# The instruction sets of this kind of CPU; what a CPU lacks is replaced by the next below.
ISAS := $(if $(filter aarch64 arm64,$(shell uname -m)),scalar neon neon-dot,\
	scalar avx2 avx2-vnni avx512 avx512-vnni avx512-vbmi)

# What runs programs for other CPUs.
ARM := aarch64-unknown-linux-gnu
ARM_CC ?= aarch64-linux-gnu-gcc
ARM_QEMU ?= qemu-aarch64
ARM_ROOT ?= /usr/aarch64-linux-gnu
X86_QEMU ?= qemu-x86_64

# Set, it makes `install` build and install the command line tool too.
TOOL ?=

.PHONY: help library tool shared static run server test test-isas test-arm test-old-cpu check header \
	install install-files clean

help:
	@echo "make run       build, and stream a story from $(MODEL)"
	@echo "make server    build $(OUT)/server, which speaks HTTP; see examples-c/server.cpp"
	@echo "make tool      build the command line tool, $(LIBRARY)/lightgpt"
	@echo "make test      run all tests, Rust and C"
	@echo "make test-isas run the tests of whole models with each instruction set of this CPU"
	@echo "make test-arm  run tests of kernels and models on an emulated aarch64 CPU"
	@echo "make test-old-cpu"
	@echo "               run models on an emulated x86-64 CPU without AVX and FMA"
	@echo "make check     formatting, lints, documentation, tests"
	@echo "make header    write include/lightgpt.h and abi/lightgpt.txt anew"
	@echo "make install   [PREFIX=$(PREFIX)] [DESTDIR=] library, headers, pkg-config file"
	@echo "               [TOOL=1] and the tool in PREFIX/bin"
	@echo "make clean     remove what was built"

# The library does not depend on the tool's feature, but cargo keeps one library for all features
# and would build it anew whenever they change: so both are built with the same.
BUILD := $(CARGO) build --release --features cli --locked $(NAMELESS)

library:
	$(BUILD) --lib

tool:
	$(BUILD) --bin lightgpt

# The shared library under the names that programs look for.
shared:
	@mkdir -p $(OUT)
	@cp -f $(LIBRARY)/liblightgpt.so $(OUT)/liblightgpt.so.$(VERSION)
	@ln -sf liblightgpt.so.$(VERSION) $(OUT)/liblightgpt.so.$(ABI)
	@ln -sf liblightgpt.so.$(ABI) $(OUT)/liblightgpt.so

# One object that shows only the functions of the header, so that it can be linked beside other
# static libraries that were written in Rust.
static:
	@mkdir -p $(OUT)
	@sed -n 's/^[A-Za-z].*[ *]\(lightgpt_[a-z0-9_]*\)(.*/\1/p' include/lightgpt.h > $(OUT)/symbols
	@$(LD) -r --gc-sections --force-group-allocation $$(sed 's/^/-u /' $(OUT)/symbols) \
		-o $(OUT)/lightgpt.o $(LIBRARY)/liblightgpt.a
	@$(OBJCOPY) --strip-unneeded --remove-section=.llvmbc --remove-section=.llvmcmd \
		--keep-global-symbols=$(OUT)/symbols $(OUT)/lightgpt.o
	@rm -f $(OUT)/liblightgpt.a
	@$(AR) rcs $(OUT)/liblightgpt.a $(OUT)/lightgpt.o

# Through the environment: the shell must not read what is in a prompt.
run: override export PROMPT := $(value PROMPT)
run: override export MODEL := $(value MODEL)
run: library shared
	@$(CC) $(STRICT) $(CFLAGS) -Iinclude examples-c/generate.c -o $(OUT)/generate \
		-L$(OUT) -llightgpt -Wl,-rpath,'$$ORIGIN'
	@$(OUT)/generate "$$MODEL" "$$PROMPT"

# Skipped where its two libraries are missing: nothing else needs them.
server: library shared
	@if ! pkg-config --exists cpp-httplib nlohmann_json; then \
		echo "SKIPPED server: it needs cpp-httplib and nlohmann-json" >&2; exit 0; \
	fi; \
	$(CXX) -std=c++17 $(CXXFLAGS) -Iinclude examples-c/server.cpp -o $(OUT)/server -pthread \
		$$(pkg-config --cflags --libs cpp-httplib nlohmann_json) \
		-L$(OUT) -llightgpt -Wl,-rpath,'$$ORIGIN'

# The C programs are tested against the library that is installed: the release build.
test: library
	LIGHTGPT_LIBRARY="$(abspath $(LIBRARY))" $(CARGO) test --features cli --locked --no-fail-fast
	$(MAKE) test-isas

# The tests that open models without naming the kernels.
test-isas:
	@for isa in $(ISAS); do \
		echo "LIGHTGPT_ISA=$$isa"; \
		LIGHTGPT_ISA=$$isa $(CARGO) test --quiet --features cli --locked \
			--test bits --test goldens --test hashes --test session || exit 1; \
	done

# An emulated CPU tells nothing about speed, but all about bits: one with `sdot`, one without.
test-arm: export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER := $(ARM_CC)
test-arm:
	@for tool in $(ARM_CC) $(ARM_QEMU); do \
		command -v $$tool >/dev/null || missing="$$missing $$tool"; \
	done; \
	[ -d "$$(rustc --print target-libdir --target $(ARM))" ] || missing="$$missing $(ARM)"; \
	if [ -n "$$missing" ]; then \
		echo "SKIPPED test-arm: not installed:$$missing" >&2; exit 0; \
	fi; \
	for cpu in max cortex-a53; do \
		echo "aarch64, $$cpu"; \
		export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="$(ARM_QEMU) -L $(ARM_ROOT) -cpu $$cpu"; \
		$(CARGO) test --quiet --locked --target $(ARM) --lib -- float:: kernel:: quant:: || exit 1; \
		$(CARGO) test --quiet --locked --target $(ARM) --test hashes --test goldens || exit 1; \
	done

# Nehalem has neither AVX nor FMA nor F16C.
test-old-cpu: export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER := $(X86_QEMU) -cpu Nehalem
test-old-cpu:
	@if [ "$$(uname -m)" != x86_64 ] || ! command -v $(X86_QEMU) >/dev/null; then \
		echo "SKIPPED test-old-cpu: it needs an x86-64 machine and $(X86_QEMU)" >&2; exit 0; \
	fi; \
	$(CARGO) test --quiet --features cli --locked --lib -- float:: kernel:: quant:: && \
	$(CARGO) test --quiet --features cli --locked --test hashes

check:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --features cli --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --locked
	$(MAKE) test

header:
	LIGHTGPT_UPDATE=1 $(CARGO) test --test abi --locked

install: library $(if $(TOOL),tool)
	$(MAKE) install-files

# What `install` does with a library (and a tool) that is already built.
install-files: shared static
	$(INSTALL) -d $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(INCLUDEDIR)
	$(INSTALL) -m 755 $(OUT)/liblightgpt.so.$(VERSION) $(DESTDIR)$(LIBDIR)/
	strip --strip-unneeded $(DESTDIR)$(LIBDIR)/liblightgpt.so.$(VERSION)
	ln -sf liblightgpt.so.$(VERSION) $(DESTDIR)$(LIBDIR)/liblightgpt.so.$(ABI)
	ln -sf liblightgpt.so.$(ABI) $(DESTDIR)$(LIBDIR)/liblightgpt.so
	$(INSTALL) -m 644 $(OUT)/liblightgpt.a $(DESTDIR)$(LIBDIR)/
	$(INSTALL) -m 644 include/lightgpt.h include/lightgpt.hpp $(DESTDIR)$(INCLUDEDIR)/
	sed -e 's|@PREFIX@|$(abspath $(PREFIX))|' -e 's|@LIBDIR@|$(abspath $(LIBDIR))|' \
		-e 's|@INCLUDEDIR@|$(abspath $(INCLUDEDIR))|' -e 's|@VERSION@|$(VERSION)|' \
		lightgpt.pc.in > $(OUT)/lightgpt.pc
	$(INSTALL) -m 644 $(OUT)/lightgpt.pc $(DESTDIR)$(LIBDIR)/pkgconfig/
ifneq ($(TOOL),)
	$(INSTALL) -d $(DESTDIR)$(BINDIR)
	$(INSTALL) -m 755 $(LIBRARY)/lightgpt $(DESTDIR)$(BINDIR)/
	strip --strip-unneeded $(DESTDIR)$(BINDIR)/lightgpt
endif

clean:
	$(CARGO) clean
	rm -rf build
