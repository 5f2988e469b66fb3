# One non-recursive GNU Makefile. Each folder's module.mk says what it holds, by the macros `library`, `program`, `test`
# and `test_long` below; everything that is made goes under build/ (build/address, build/undefined, build/thread with
# SANITIZER=). `make help` lists the verbs. Must parse on a machine that has only git and make: `make deps` comes first.
#
#   V=1        show the commands             SANITIZER=address|undefined|thread
#   WERROR=1   warnings are errors           ONLY="net_test core_test"   with test: these programs only
#   CXX= OPT= CXXFLAGS= LDFLAGS= BUILD=      as everywhere; changed flags rebuild
#   TEST_OPT=  the same as OPT, for the tests' own sources; PCH=1 precompiles what they all include: quicker from scratch,
#              and of no use to who changes one file (ccache takes no part in it)

.DEFAULT_GOAL := all
MAKEFLAGS += --no-builtin-rules --no-print-directory
.SUFFIXES:
.DELETE_ON_ERROR:

# All cores, unless -j says otherwise: a -j on the command line overrides this one.
ifeq ($(MAKELEVEL)$(filter -j%,$(MAKEFLAGS)),0)
MAKEFLAGS += -j$(shell nproc)
endif

SANITIZER ?=
BUILD := build$(if $(SANITIZER),/$(SANITIZER))
BIN := $(BUILD)/bin
LIB := $(BUILD)/lib
OBJ := $(BUILD)/obj

CXX ?= g++
ifeq ($(origin CXX),default)
CXX := g++
endif
OPT ?= -O2 -g
TEST_OPT ?=
PCH ?=
WARN := -Wall -Wextra -Wpedantic -Wshadow -Wconversion $(if $(WERROR),-Werror)
INCLUDES := -I. -Idsm/include $(patsubst %,-I%,$(wildcard labs/*/include))
ALL_CXXFLAGS := -std=c++20 $(OPT) $(WARN) -fPIC -pthread $(INCLUDES) $(if $(SANITIZER),-fsanitize=$(SANITIZER) -fno-omit-frame-pointer) $(if $(filter undefined,$(SANITIZER)),-fno-sanitize-recover=all) $(CXXFLAGS)
ALL_LDFLAGS := -pthread $(if $(SANITIZER),-fsanitize=$(SANITIZER)) $(LDFLAGS)

# What apt is asked for. libboost-program-options-dev brings all headers of Boost; libgmock-dev brings GoogleTest.
DEPS := g++ libboost-program-options-dev libfmt-dev libncurses-dev libsodium-dev nlohmann-json3-dev
DEPS_TEST := gdb libgmock-dev spin strace valgrind
# For dsm/tests/hosts.sh. Not installed by themselves: Debian starts an ssh server as soon as it is there.
DEPS_HOSTS := iproute2 nftables openssh-client openssh-server
# For `make fuzz`. Where clang does not bring libFuzzer with it, that is in a package of its own.
DEPS_FUZZ := clang
DEPS_FUZZ_RUNTIME := libclang-rt-dev
# For `make bench-launch`: mpiexec.hydra, to be compared with.
DEPS_BENCH := mpich
# For dsm/tests/slurm.sh; likewise.
DEPS_SLURM := munge slurm-wlm

# For the tests in which programs in Perl, PHP and Python share by System V calls.
DEPS_DSHM := perl php-cli python3-sysv-ipc

# Quiet by default: `CXX dsm/core/msi.o`. `make V=1` shows the commands.
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-5s %s\n' '$(1)' '$(patsubst $(BUILD)/%,%,$(2))')

# ---- what module.mk files say ----------------------------------------------------------------------------------------

LIBRARIES :=
PROGRAMS :=
TESTS :=
TESTS_LONG :=
SOURCES :=
TEST_SOURCES :=

objects = $(patsubst %.c,$(OBJ)/%.o,$(patsubst %.cpp,$(OBJ)/%.o,$(1)))
# A library named in `libs` brings the libraries it stands on: order them users first.
archives = $(foreach l,$(1),$(OBJ)/lib$(l).a)
here = $(patsubst %/,%,$(dir $(lastword $(MAKEFILE_LIST))))

# $(call library,NAME,SOURCES)
define library
LIBRARIES += $(1)
SOURCES += $(2)
OBJECTS.$(1) := $(call objects,$(2))
MADE.$(here) += $(OBJ)/lib$(1).a
$(OBJ)/lib$(1).a: $(call objects,$(2)) $(here)/module.mk
endef

# $(call program,NAME,SOURCES,LIBRARIES,LDLIBS)
define program
PROGRAMS += $(1)
SOURCES += $(2)
MADE.$(here) += $(BIN)/$(1)
$(BIN)/$(1): $(call objects,$(2)) $(call archives,$(3)) $(here)/module.mk
$(BIN)/$(1): LDLIBS_ := $(4)
endef

# $(call test,NAME,SOURCES,LIBRARIES,LDLIBS,PROGRAMS): a GoogleTest program, run by `make test`. PROGRAMS are those of
# build/bin that it starts; it finds them beside itself, in ../bin.
define test
TESTS += $(1)
$(call test_program,$(1),$(2),$(3),$(4),$(5))
endef

# The same, run by `make test-long`.
define test_long
TESTS_LONG += $(1)
$(call test_program,$(1),$(2),$(3),$(4),$(5))
endef

define test_program
SOURCES += $(2)
TEST_SOURCES += $(2)
FOLDER.$(1) := $(here)
MADE.$(here) += $(BUILD)/tests/$(1)
$(BUILD)/tests/$(1): $(call objects,$(2)) $(call archives,$(3)) $(here)/module.mk | $(addprefix $(BIN)/,$(5))
$(BUILD)/tests/$(1): LDLIBS_ := $(4) -lgtest_main -lgmock -lgtest
endef

MODULES := $(sort $(wildcard labs/*/module.mk)) $(sort $(wildcard dsm/*/module.mk)) $(wildcard viewer/module.mk)
include $(MODULES)

FOLDERS := $(patsubst %/module.mk,%,$(MODULES))
made_in = $(sort $(foreach f,$(filter $(1),$(FOLDERS)),$(MADE.$(f))))
all_but_tests = $(filter-out $(BUILD)/tests/%,$(1))

# ---- verbs: build ----------------------------------------------------------------------------------------------------

# libdsm is these libraries in one file, with a compiler command that knows where.
LIBDSM := $(filter node core pager net telemetry ipc01 ipc02 ipc03 ipc04 ipc06,$(LIBRARIES))
LIBDSM_OBJECTS := $(foreach l,$(LIBDSM),$(OBJECTS.$(l)))
LIBDSM_FILES := $(if $(filter node,$(LIBDSM)),$(LIB)/libdsm.a $(LIB)/libdsm.so $(BIN)/dsmc++)

# libdshm likewise: its own sources, the frames, and of the pager what stands in front of sigaction.
LIBDSHM_OBJECTS := $(OBJECTS.dshm) $(OBJECTS.dshm_local) $(call objects,dsm/sysv/wire.cpp $(patsubst %,dsm/pager/%.cpp,disposition mask interpose))
LIBDSHM_FILES := $(if $(filter dshm,$(LIBRARIES)),$(LIB)/libdshm.a $(LIB)/libdshm.so)

.PHONY: all labs dsm server client example viewer lab
all: $(addprefix $(BIN)/,$(PROGRAMS)) $(LIBDSM_FILES) $(LIBDSHM_FILES) ## everything into build/bin and build/lib (the default)
labs: $(call made_in,labs/%) ## the labs, with their tests (needs g++, Boost and GoogleTest only)
dsm: $(call all_but_tests,$(call made_in,dsm/%)) $(LIBDSM_FILES) $(LIBDSHM_FILES) ## libdsm, libdshm, dsmexec and the examples
server: $(BIN)/dsmd ## dsmd, to whose sessions programs come that were started by hand
client: $(LIBDSHM_FILES) $(addprefix $(BIN)/,$(filter dshmrun dshm_agent dshmctl,$(PROGRAMS))) ## libdshm and dshmrun: System V IPC at dsmd, for programs as they are
example: client $(BIN)/dsmd $(BIN)/dshm_example ## the example for each System V call, with dsmd and libdshm
viewer: $(call all_but_tests,$(call made_in,viewer)) ## dsmtop
lab: $(call made_in,labs/$(LAB)-%) ## one lab, with its tests: make lab LAB=04
	$(if $(call made_in,labs/$(LAB)-%),@:,@echo "make lab: there is no lab '$(LAB)'; say LAB=NN, one of: $(patsubst labs/%,%,$(filter labs/0%,$(FOLDERS)))" >&2; exit 2)

# ---- verbs: install --------------------------------------------------------------------------------------------------

# Into $(DESTDIR)$(PREFIX). install-files copies what has been built, whatever its age.
PREFIX ?= /usr/local
DESTDIR ?=
INSTALLED := $(addprefix bin/,dsmexec dsmd dsmtop dshmrun dshm_agent dshmctl dsmc++) \
  $(addprefix lib/,libdsm.a libdsm.so libdshm.a libdshm.so systemd/system/dsmd.service) include/dsm/dsm.h include/dsm/dsm.hpp
installed := $(DESTDIR)$(PREFIX)

.PHONY: install install-files uninstall
install: all ## programs, libraries, headers and a systemd unit: PREFIX=/usr/local DESTDIR=
	@$(MAKE) install-files
install-files:
	$(Q)install -d $(sort $(dir $(addprefix $(installed)/,$(INSTALLED))))
	$(Q)install -m 755 $(addprefix $(BUILD)/,$(filter-out %/dsmc++,$(filter bin/%,$(INSTALLED)))) $(installed)/bin
	$(Q)install -m 644 $(addprefix $(BUILD)/,$(filter %.a %.so,$(INSTALLED))) $(installed)/lib
	$(Q)install -m 644 dsm/include/dsm/dsm.h dsm/include/dsm/dsm.hpp $(installed)/include/dsm
	$(Q)sed -e 's|@CXX@|$(lastword $(CXX))|; s|@FLAGS@||; s|@INCLUDE@|$(PREFIX)/include|; s|@LIB@|$(PREFIX)/lib|g' dsm/dsmc++.in > $(installed)/bin/dsmc++
	$(Q)chmod 755 $(installed)/bin/dsmc++
	$(Q)sed -e 's|@BIN@|$(PREFIX)/bin|' dsm/daemon/dsmd.service.in > $(installed)/lib/systemd/system/dsmd.service
	$(Q)chmod 644 $(installed)/lib/systemd/system/dsmd.service
uninstall: ## take all of that away again
	$(Q)rm -f $(addprefix $(installed)/,$(INSTALLED))
	$(Q)for folder in include/dsm lib/systemd/system lib/systemd; do [ ! -d $(installed)/$$folder ] || rmdir --ignore-fail-on-non-empty $(installed)/$$folder; done

# ---- verbs: packages -------------------------------------------------------------------------------------------------

.PHONY: deps deps-test deps-hosts deps-slurm deps-dshm deps-bench
deps: ## install what building and the demo need, if it is missing (apt; sudo unless root)
	@.ci/install $(DEPS)
deps-test: deps ## and what the tests need besides
	@.ci/install $(DEPS_TEST)
deps-hosts: deps-test ## and what tests over ssh need: an ssh server, which Debian then starts
	@.ci/install $(DEPS_HOSTS)
deps-dshm: deps-hosts ## and what tests of System V programs in other languages need: Perl, PHP, Python
	@.ci/install $(DEPS_DSHM)
deps-bench: deps ## and what `make bench-launch` compares with: mpiexec.hydra
	@.ci/install $(DEPS_BENCH)
deps-slurm: deps-test ## and what tests with srun need: Slurm, which Debian then starts
	@.ci/install $(DEPS_SLURM)

# ---- verbs: run ------------------------------------------------------------------------------------------------------

.PHONY: demo
demo: ## four processes share memory through page faults: deps, build, dsmexec machine_file demo
	@$(MAKE) deps
	@$(MAKE) all
	@$(BIN)/dsmexec machine_file demo

.PHONY: watch bench sim
watch: ## the demo and dsmtop side by side in tmux; q ends dsmtop
	@$(MAKE) deps DEPS='$(DEPS) tmux'
	@$(MAKE) all
	@env -u TMUX tmux -L dsm-watch-$$$$ new-session 'sh -c "$(BIN)/dsmexec machine_file demo; echo; echo Enter ends this.; read answer"' \; split-window -h '$(BIN)/dsmtop'
bench: ## what a page fault costs beside its limit, in a job and in System V segments: tables, build/bench.json, bench-sysv.json
	@$(MAKE) deps
	@$(MAKE) $(BIN)/dsm_bench $(BIN)/dsmexec $(BIN)/dshm_bench
	@$(BIN)/dsm_bench --output $(BUILD)/bench.json
	@$(BIN)/dshm_bench --output $(BUILD)/bench-sysv.json
RUNS ?= 1000
SSH_RUNS ?= 30
KEX ?=
.PHONY: bench-launch
bench-launch: ## what starting a job costs beside mpiexec.hydra and ssh: RUNS=1000 SSH_RUNS=30 KEX=curve25519-sha256
	@$(MAKE) deps
	@$(MAKE) $(BIN)/dsm_launch_bench $(BIN)/dsmexec
	@.ci/bench-launch $(BUILD) $(RUNS) $(SSH_RUNS) '$(KEX)'
SEED ?= 1
COUNT ?= 10000
PROTOCOL ?= both
sim: ## random programs over random schedules of the protocols: SEED=1 COUNT=10000 PROTOCOL=msi|migrate|both
	@$(MAKE) deps
	@$(MAKE) $(BIN)/dsm_sim
	@$(BIN)/dsm_sim --seed $(SEED) --count $(COUNT) --protocol $(PROTOCOL)

# ---- verbs: tests ----------------------------------------------------------------------------------------------------

# ThreadSanitizer and a SIGSEGV handler that works for its living do not go together: it sees what needs no real fault.
TESTABLE := $(if $(filter thread,$(SANITIZER)),$(addprefix dsm/,core net node sysv daemon dshm dshm_agent) viewer,$(FOLDERS))
testable = $(foreach t,$(1),$(if $(filter $(TESTABLE),$(FOLDER.$(t))),$(t)))
ONLY ?=
QUICK_TESTS := $(call testable,$(if $(ONLY),$(filter $(ONLY),$(TESTS) $(TESTS_LONG)),$(TESTS)))
LONG_TESTS := $(call testable,$(TESTS_LONG))
run_tests = @SANITIZER=$(SANITIZER) .ci/run-tests $(BUILD) $(1)

.PHONY: test tests asan ubsan tsan
test: ## all quick tests (installs what they need); ONLY="a_test b_test" for some
	@$(MAKE) deps DEPS='$(DEPS) $(DEPS_TEST)'
	@$(MAKE) tests
	$(call run_tests,$(QUICK_TESTS))
tests: $(addprefix $(BUILD)/tests/,$(QUICK_TESTS)) $(if $(filter thread,$(SANITIZER)),,all) ## build the tests, run nothing
LAB_TESTS := $(call testable,$(foreach t,$(TESTS),$(if $(filter labs/%,$(FOLDER.$(t))),$(t))))
.PHONY: test-long
# An hour for each: whole jobs 200 times, and a million schedules.
JOB_TESTS := $(call testable,dsm_run_test hosts_test dshm_hosts_test slurm_test)
test-long: $(addprefix $(BUILD)/tests/,$(LONG_TESTS) $(LAB_TESTS) $(JOB_TESTS)) all ## the tests that take long, and those of labs and whole jobs 200 times each
	@SANITIZER=$(SANITIZER) LAB_TEST_RUNS=200 DSM_TEST_RUNS=200 TEST_TIMEOUT=$${TEST_TIMEOUT:-3600} .ci/run-tests $(BUILD) $(LAB_TESTS) $(JOB_TESTS) $(LONG_TESTS)
asan: ## all quick tests under AddressSanitizer, in build/address
	@$(MAKE) test SANITIZER=address
ubsan: ## all quick tests under UndefinedBehaviorSanitizer, in build/undefined
	@$(MAKE) test SANITIZER=undefined
tsan: ## the tests that need no page fault under ThreadSanitizer, in build/thread
	@$(MAKE) test SANITIZER=thread

# The fuzzers (dsm/tests/fuzz) are compiled by clang, in a folder of their own.
SECONDS ?= 600
FUZZ ?= $(fuzz_names)
FUZZ_BUILD := $(BUILD)/fuzz
fuzz_flags := BUILD=$(FUZZ_BUILD) CXX=clang++ OPT='-O1 -g' SANITIZER= \
  CXXFLAGS='-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all' LDFLAGS='-fsanitize=fuzzer,address,undefined'

.PHONY: fuzz fuzz-keep fuzz-coverage deps-fuzz
deps-fuzz: deps ## and what `make fuzz` needs: clang
	@.ci/install $(DEPS_FUZZ)
	@ls "$$(clang++ -print-resource-dir)"/lib/*/libclang_rt.fuzzer* >/dev/null 2>&1 || .ci/install $(DEPS_FUZZ_RUNTIME)
fuzz: ## fuzz the parsers, each for 600 s: FUZZ="frame message" for some, SECONDS=60
	@$(MAKE) deps-fuzz
	@$(MAKE) $(fuzz_flags) $(FUZZ_BUILD)/bin/fuzzer
	@.ci/fuzz $(FUZZ_BUILD) $(SECONDS) $(FUZZ)
fuzz-keep: ## bring what `make fuzz` has learned into dsm/tests/fuzz/corpus, as few files as will do
	@$(MAKE) deps-fuzz
	@$(MAKE) $(fuzz_flags) $(FUZZ_BUILD)/bin/fuzzer
	@.ci/fuzz-keep $(FUZZ_BUILD) $(FUZZ)
fuzz-coverage: ## which lines of the parsers the fuzzers' corpus reaches: at least 90 %
	@$(MAKE) deps DEPS='$(DEPS) $(DEPS_TEST)'
	@$(MAKE) BUILD=$(FUZZ_BUILD)/coverage OPT=-O0 CXXFLAGS=--coverage LDFLAGS=--coverage SANITIZER= $(FUZZ_BUILD)/coverage/tests/fuzz_test
	@.ci/fuzz-coverage $(FUZZ_BUILD)/coverage 90 $(fuzz_parsers)

# ---- verbs: the house ------------------------------------------------------------------------------------------------

# All of the project's C and C++ files, or those named by FILES=.
FILES ?= $(shell find labs dsm viewer -name '*.cpp' -o -name '*.hpp' -o -name '*.h' -o -name '*.c' | sort)

.PHONY: lint format clean help
lint: ## clang-tidy and clang-format over all files, or over FILES="..."; changes nothing
	@.ci/need clang-tidy clang-format
	$(Q)clang-format --dry-run --Werror $(FILES)
	$(Q)printf '%s\n' $(filter %.cpp,$(FILES)) | xargs -P $$(nproc) -n 1 sh -c 'clang-tidy --quiet "$$0" -- -std=c++20 $(INCLUDES) 2>/dev/null'
format: ## clang-format all files, or FILES="...", in place
	@.ci/need clang-format
	$(Q)clang-format -i $(FILES)
clean: ## remove what was built
	rm -rf $(BUILD)
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

# ---- rules -----------------------------------------------------------------------------------------------------------

$(OBJ)/%.o: %.cpp $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CXX,$@)
	$(Q)$(CXX) $(ALL_CXXFLAGS) $(TEST_FLAGS) -MMD -MP -c $< -o $@

test_objects := $(call objects,$(filter %.cpp,$(TEST_SOURCES)))
precompiled := $(OBJ)/tests.hpp
$(test_objects): TEST_FLAGS := $(TEST_OPT) $(if $(PCH),-include $(precompiled) -Winvalid-pch)
$(if $(PCH),$(test_objects): $(precompiled).gch)
$(precompiled).gch: .ci/tests.hpp $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,PCH,$@)
	$(Q)$(CXX) $(ALL_CXXFLAGS) $(TEST_OPT) -x c++-header $< -o $@

# C, by the same compiler.
$(OBJ)/%.o: %.c $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,CC,$@)
	$(Q)$(CXX) -x c $(patsubst -std=c++20,-std=c11,$(ALL_CXXFLAGS)) -MMD -MP -c $< -o $@

# q, not r: two members may have the same name, from different folders.
$(OBJ)/lib%.a:
	@mkdir -p $(@D)
	$(call say,AR,$@)
	$(Q)rm -f $@ && ar qcs $@ $(filter %.o,$^)

$(BIN)/% $(BUILD)/tests/%:
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CXX) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(LDLIBS_)

$(LIB)/libdsm.a: $(LIBDSM_OBJECTS)
	@mkdir -p $(@D)
	$(call say,AR,$@)
	$(Q)rm -f $@ && ar qcs $@ $^

# What can be seen of it: dsm/libdsm.map.
$(LIB)/libdsm.so: $(LIBDSM_OBJECTS) dsm/libdsm.map
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CXX) $(ALL_LDFLAGS) -shared -Wl,--as-needed -Wl,-soname,libdsm.so -Wl,--version-script=dsm/libdsm.map -o $@ $(LIBDSM_OBJECTS) -lsodium -lfmt

$(LIB)/libdshm.a: $(LIBDSHM_OBJECTS)
	@mkdir -p $(@D)
	$(call say,AR,$@)
	$(Q)rm -f $@ && ar qcs $@ $^

# It goes into programs of any kind: with a C++ library of its own, which nobody sees (dsm/dshm/libdshm.map).
# dlclose leaves it where it is: its thread runs there.
LIBDSHM_WHOLE := $(if $(SANITIZER),,-static-libstdc++ -static-libgcc)
$(LIB)/libdshm.so: $(LIBDSHM_OBJECTS) dsm/dshm/libdshm.map
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CXX) $(ALL_LDFLAGS) -shared -Wl,--as-needed -Wl,-z,now -Wl,-z,nodelete -Wl,-soname,libdshm.so $(LIBDSHM_WHOLE) -Wl,--version-script=dsm/dshm/libdshm.map -o $@ $(LIBDSHM_OBJECTS)

$(BIN)/dsmc++: dsm/dsmc++.in $(BUILD)/flags | $(LIB)/libdsm.so
	@mkdir -p $(@D)
	$(Q)sed -e 's|@CXX@|$(lastword $(CXX))|; s|@FLAGS@|$(if $(SANITIZER),-fsanitize=$(SANITIZER))|; s|@INCLUDE@|$(abspath dsm/include)|; s|@LIB@|$(abspath $(LIB))|g' $< > $@ && chmod +x $@

# Changed flags rebuild: the file is rewritten only when its content would differ.
all_flags = $(CXX) $(ALL_CXXFLAGS) $(ALL_LDFLAGS) $(TEST_OPT) $(PCH)
$(BUILD)/flags: FORCE
	@mkdir -p $(@D)
	@echo '$(all_flags)' | cmp -s - $@ || echo '$(all_flags)' > $@
.PHONY: FORCE
FORCE:

-include $(patsubst %.o,%.d,$(call objects,$(SOURCES)))
