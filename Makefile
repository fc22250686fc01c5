# Pharos: one non-recursive Makefile. Sources are found, headers are tracked, variants build side by side.
#
#   make            build/pharos              make run      install what is missing, build, start the station
#   make test       every test                make lint     arrows, budgets, banned functions, format
#   make model      train the default model from its data (DATA=folder), hours: models/README.md
#   make spt        train the context selector, minutes
#   make bench      speed beside its limits (bench-train, bench-gateway, bench-load, bench-memory, bench-estimate: those parts)
#   make soak       long runs, kills, memory  make fuzz     every fuzzer, 60 s each (FUZZ_SECONDS=)
#   make SANITIZE=address,undefined test      the same tests under sanitizers
#   make WITH_MPI=1 build/mpi/pharos, which trains over several processes (mpirun)
#   make CC=clang   another compiler          make install PREFIX=/usr/local
#   make deb        a Debian package, build/pharos.deb

CC       := $(if $(filter default,$(origin CC)),gcc,$(CC))
SANITIZE ?=
WITH_MPI ?=
PREFIX   ?= /usr/local
PORT     ?= 8080
MODEL    ?= models/default.gguf
DATA     ?= ../shared/data

comma   := ,
VARIANT := $(strip $(if $(filter-out gcc,$(notdir $(CC))),$(notdir $(CC))) $(if $(SANITIZE),san-$(subst $(comma),-,$(SANITIZE))))
OUT     := build$(if $(VARIANT),/$(subst $() ,-,$(VARIANT)))
ARCH    := $(shell $(CC) -dumpmachine 2>/dev/null | cut -d- -f1)

PACKAGES := libuv yaml-0.1 libutf8proc openssl hiredis sqlite3 libzstd
PKG_CFLAGS := $(shell pkg-config --cflags $(PACKAGES) libpq 2>/dev/null)
PKG_LIBS   := $(shell pkg-config --libs $(PACKAGES) 2>/dev/null)

WARN     := -Wall -Wextra -Wshadow -Wconversion -Wvla -Wstrict-prototypes -Wmissing-prototypes -Werror
HARDEN   := -fstack-protector-strong -fPIE $(if $(SANITIZE),,-D_FORTIFY_SOURCE=2)
SANFLAGS := $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer $(if $(filter gcc,$(notdir $(CC))),-Wno-format-truncation))
CPPFLAGS := -Isrc -D_POSIX_C_SOURCE=200809L
CFLAGS   ?= $(if $(SANITIZE),-O1,-O2) -g
CSTD     := -std=c17
LDFLAGS  += -pie -Wl,-z,relro,-z,now
LIBS     := $(PKG_LIBS) -lstemmer -lm -lpthread
COMPILE  := $(CC) $(CSTD) $(CFLAGS) $(WARN) $(HARDEN) $(SANFLAGS) $(CPPFLAGS) $(PKG_CFLAGS) -MMD -MP

# make V=1 shows the commands themselves.
Q   := $(if $(V),,@)
say = $(if $(V),@:,@printf '  %-5s %s\n' $(1) $(2))

# Sanitizers make several times the code: -O1 compiles it in half the time and finds the same. (Which numbers fit into
# a text gcc knows at -O2 only.)
# Instruction sets are whole files; each is compiled for its own set and chosen at run time.
KERNEL_FLAGS := $(if $(SANITIZE),-O1,-O3) -fno-math-errno -fno-trapping-math
flags_kernels_ref    := $(KERNEL_FLAGS)
flags_kernels_avx2   := $(KERNEL_FLAGS) -mavx2 -mfma -mf16c
flags_kernels_avx512 := $(KERNEL_FLAGS) -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni
flags_kernels_avx512bf16 := $(flags_kernels_avx512) -mavx512bf16
flags_kernels_amx    := $(flags_kernels_avx512bf16) -mamx-tile -mamx-int8 -mamx-bf16
flags_ledger_crc_sse42 := -msse4.2
flags_ranks_mpi      := $(shell pkg-config --cflags ompi-c 2>/dev/null)
flags_optimizer      := $(KERNEL_FLAGS)
flags_muon           := $(KERNEL_FLAGS)
flags_spt                 := $(KERNEL_FLAGS)
flags_spt_words           := $(KERNEL_FLAGS)
flags_spt_distil          := $(KERNEL_FLAGS)
kernel_flags = $(or $(flags_$(1)),$(foreach set,ref avx2 avx512 avx512bf16 amx,$(if $(filter %_$(set),$(1)),$(flags_kernels_$(set)))))

SOURCES := $(sort $(wildcard src/*/*.c))
ifeq ($(filter x86_64 amd64,$(ARCH)),)
SOURCES := $(filter-out %_avx2.c %_avx512.c %_avx512bf16.c %_amx.c %_sse42.c,$(SOURCES))
endif
SOURCES := $(filter-out %/ranks_mpi.c,$(SOURCES))
OBJECTS     := $(SOURCES:%.c=$(OUT)/%.o)
MAIN_OBJECT := $(OUT)/src/cli/main.o
LIBRARY     := $(OUT)/libpharos.a
# The program that trains over several processes is the same but for one file, which comes before the library.
MPI_OBJECT  := $(OUT)/src/train/ranks_mpi.o
MPI_PROGRAM := $(OUT)/mpi/pharos
HAVE_MPI    := $(shell command -v mpirun >/dev/null 2>&1 && pkg-config --exists ompi-c 2>/dev/null && echo yes)
PROGRAM     := $(if $(WITH_MPI),$(MPI_PROGRAM),$(OUT)/pharos)
# Not under sanitizers: processes that spin for each other take minutes there, and what they compute is tried alone.
TEST_MPI    := $(if $(SANITIZE),,$(HAVE_MPI))
TESTED      := $(OUT)/pharos $(if $(TEST_MPI),$(MPI_PROGRAM))

UNIT_SOURCES := $(sort $(wildcard tests/unit/*/test_*.c))
UNIT_SUPPORT := $(sort $(filter-out $(UNIT_SOURCES),$(wildcard tests/unit/*/*.c tests/unit/*.c)))
UNIT_TESTS   := $(UNIT_SOURCES:tests/unit/%.c=$(OUT)/tests/%)
# A library that stands in for NVIDIA's: what its devices say is read from a file that tests change.
FAKE_NVML    := $(OUT)/tests/fake_nvml.so
FUZZ_SOURCES := $(sort $(wildcard tests/fuzz/fuzz_*.c))
FUZZERS      := $(FUZZ_SOURCES:tests/fuzz/%.c=build/fuzz/%)
FUZZ_SECONDS ?= 60

.PHONY: all mpi-is-here run model spt test unit e2e lint format bench bench-estimate bench-train bench-gateway bench-load bench-memory fuzz soak deps install deb clean
.DELETE_ON_ERROR:
all: $(OUT)/pharos $(PROGRAM)

$(OUT)/pharos: $(MAIN_OBJECT) $(LIBRARY)
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS) $(SANFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)

$(MPI_OBJECT): | mpi-is-here
$(MPI_PROGRAM): $(MAIN_OBJECT) $(MPI_OBJECT) $(LIBRARY)
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS) $(SANFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS) $$(pkg-config --libs ompi-c)

mpi-is-here:
	@pkg-config --exists ompi-c || { echo 'make: Open MPI is missing (needs root): apt-get install libopenmpi-dev openmpi-bin' >&2; exit 1; }

$(LIBRARY): $(filter-out $(MAIN_OBJECT),$(OBJECTS))
	$(call say,AR,$@)
	@rm -f $@
	$(Q)ar rcs $@ $^

# The compiler line is a prerequisite: other flags rebuild everything, a touched header only what includes it.
$(OUT)/flags: FORCE
	@pkg-config --exists $(PACKAGES) libpq || { echo 'make: libraries are missing: run scripts/deps (needs root)' >&2; exit 1; }
	@mkdir -p $(OUT) && echo '$(COMPILE) $(KERNEL_FLAGS)' | cmp -s - $@ || echo '$(COMPILE) $(KERNEL_FLAGS)' > $@
FORCE:

$(OUT)/src/%.o: src/%.c $(OUT)/flags
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(COMPILE) $(call kernel_flags,$(notdir $*)) -c -o $@ $<

$(OUT)/src/memory/spt_shipped.o: models/spt.gguf
$(OUT)/src/ops/estimate_shipped.o: src/ops/shapes.yaml src/ops/hardware.yaml
$(OUT)/src/ops/tco_shipped.o: src/ops/prices.yaml deploy/tco.yaml

$(OUT)/tests/%.o: tests/unit/%.c $(OUT)/flags
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(COMPILE) -Itests/unit -DTEST_SHARED_DIR='"../shared"' -DTEST_FAKE_NVML='"$(FAKE_NVML)"' -c -o $@ $<

$(UNIT_TESTS): $(OUT)/tests/%: $(OUT)/tests/%.o $(UNIT_SUPPORT:tests/unit/%.c=$(OUT)/tests/%.o) $(LIBRARY)
	$(call say,LINK,$@)
	$(Q)$(CC) $(CFLAGS) $(SANFLAGS) $(LDFLAGS) -o $@ $^ -lcmocka -ljansson -lhttp_parser $(LIBS)

$(FAKE_NVML): tests/fake/fake_nvml.c $(OUT)/flags
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CC) $(CSTD) $(CFLAGS) $(WARN) $(CPPFLAGS) -fPIC -shared -o $@ $<

$(filter $(OUT)/tests/ops/%,$(UNIT_TESTS)): | $(FAKE_NVML)

unit: $(UNIT_TESTS)
	@scripts/run-unit-tests $(UNIT_TESTS)

e2e: $(TESTED) $(FAKE_NVML)
	@FAKE_NVML=$(CURDIR)/$(FAKE_NVML) PHAROS=$(CURDIR)/$(OUT)/pharos PHAROS_MPI=$(if $(TEST_MPI),$(CURDIR)/$(MPI_PROGRAM)) scripts/run-e2e-tests

test: deps
	@$(MAKE) --no-print-directory -j$$(nproc) $(TESTED) $(UNIT_TESTS) $(FAKE_NVML)
	@$(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory e2e

run: deps
	@$(MAKE) --no-print-directory -j$$(nproc) all
	@exec scripts/run-station $(PROGRAM) "$(MODEL)" "$(PORT)"

model: $(OUT)/pharos
	@scripts/make-model $(OUT)/pharos "$(DATA)"

spt: $(OUT)/pharos
	@scripts/make-spt $(OUT)/pharos "$(DATA)"

deps:
	@scripts/deps

lint:
	@scripts/lint

format:
	clang-format -i $$(git ls-files '*.c' '*.h')

bench: $(OUT)/pharos
	@scripts/bench $(OUT)/pharos
	@scripts/bench-train $(OUT)/pharos
	@scripts/bench-gateway $(OUT)/pharos

bench-memory: $(OUT)/pharos $(OUT)/bench_memory
	@scripts/bench-memory $(OUT)/pharos "$(DATA)"

bench-load: $(OUT)/pharos $(OUT)/bench_upstream
	@scripts/bench-load $(OUT)/pharos

bench-gateway: $(OUT)/pharos
	@scripts/bench-gateway $(OUT)/pharos

bench-estimate: $(OUT)/pharos
	@scripts/bench-estimate $(OUT)/pharos

bench-train: $(OUT)/pharos
	@scripts/bench-train $(OUT)/pharos

# Small programs that time one module: build/bench_tensor.
$(OUT)/bench_%: bench/bench_%.c $(LIBRARY) $(OUT)/flags
	$(COMPILE) $(LDFLAGS) -o $@ $< $(LIBRARY) $(LIBS)

# Fuzzers: clang's libFuzzer over the same sources, sanitizers on.
FUZZ_SANITIZE := fuzzer-no-link,address,undefined
FUZZ_LIBRARY  := build/clang-san-$(subst $(comma),-,$(FUZZ_SANITIZE))/libpharos.a
ifneq ($(OUT)/libpharos.a,$(FUZZ_LIBRARY))
$(FUZZ_LIBRARY): FORCE
	@$(MAKE) --no-print-directory CC=clang SANITIZE=$(FUZZ_SANITIZE) $@
endif
build/fuzz/%: tests/fuzz/%.c $(FUZZ_LIBRARY)
	@mkdir -p $(@D)
	$(call say,FUZZ,$<)
	$(Q)clang $(CSTD) -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all $(CPPFLAGS) $(PKG_CFLAGS) \
	    -o $@ $< $(FUZZ_LIBRARY) $(LIBS)

fuzz: $(FUZZERS)
	@scripts/run-fuzzers $(FUZZ_SECONDS) $(FUZZERS)

soak: $(OUT)/pharos
	@PHAROS=$(CURDIR)/$(OUT)/pharos scripts/soak
	@PHAROS=$(CURDIR)/$(OUT)/pharos MONEY_REQUESTS=$${MONEY_REQUESTS:-10000} MONEY_KILLS=$${MONEY_KILLS:-20} python3 tests/e2e/run_money.py
	@PHAROS=$(CURDIR)/$(OUT)/pharos STORE_KILLS=$${STORE_KILLS:-200} python3 tests/e2e/run_store.py
	@PHAROS=$(CURDIR)/$(OUT)/pharos STORE_KILLS=$${STORE_KILLS:-200} STORE_RESTARTS=$${STORE_RESTARTS:-60} python3 tests/e2e/run_store_postgres.py
	@PHAROS=$(CURDIR)/$(OUT)/pharos BACKUP_CORRUPTIONS=$${BACKUP_CORRUPTIONS:-1000} BACKUP_KILLS=$${BACKUP_KILLS:-50} python3 tests/e2e/run_backup.py
	@scripts/bench-gateway $(OUT)/pharos --soak $${SOAK_GATEWAY_REQUESTS:-1000000}

install: $(PROGRAM)
	@scripts/install $(PROGRAM) "$(DESTDIR)" "$(PREFIX)"

deb: $(OUT)/pharos
	@scripts/make-deb $(OUT)/pharos $(OUT)/pharos.deb

clean:
	rm -rf build

-include $(OBJECTS:.o=.d) $(MPI_OBJECT:.o=.d) $(UNIT_SOURCES:tests/unit/%.c=$(OUT)/tests/%.d) $(UNIT_SUPPORT:tests/unit/%.c=$(OUT)/tests/%.d)
