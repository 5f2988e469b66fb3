# Several real processes: what only a whole job can show.
stress_parts := stress stress_sync stress_messages stress_atomic stress_collective stress_heap stress_syscalls stress_pager stress_homes
$(eval $(call program,dsm_stress,$(patsubst %,dsm/tests/%.cpp,$(stress_parts)),node core pager net telemetry ipc01 ipc02 ipc03 ipc04 ipc06,-lsodium -lboost_program_options))
$(eval $(call library,testbench,dsm/tests/launch_bench.cpp))
$(eval $(call test,dsm_run_test,dsm/tests/dsm_run_test.cpp dsm/tests/heap_run_test.cpp,testbench ipc04,,dsmexec dsm_stress double_touch hello))
$(eval $(call test,uffd_run_test,dsm/tests/uffd_run_test.cpp,testbench ipc04,,dsmexec dsm_stress dsm_litmus double_touch hello jacobi lu tsp quicksort))
$(eval $(call test,examples_test,dsm/tests/examples_test.cpp,testbench ipc04,,dsmexec dsm_stress hello $(examples_computing)))

# Sessions of dsmd's; the test plays members itself, too.
daemon_run_tests := $(patsubst %,dsm/tests/%.cpp,daemon_bench daemon_member daemon_run_test daemon_refuse_test)
$(eval $(call test,daemon_run_test,$(daemon_run_tests),testbench node core pager net telemetry ipc06 ipc04 ipc03 ipc02 ipc01,-lsodium,dsmd dsmexec dsmtop hello pingpong pi sor))
# The test plays agents.
$(eval $(call test,daemon_sysv_test,dsm/tests/daemon_bench.cpp dsm/tests/daemon_sysv_test.cpp,testbench sysv net core ipc06 ipc04 ipc03 ipc02 ipc01,-lsodium,dsmd))

# Litmus tests, and the same program over a core with a bug in it (dsm/core/mutants), which must be found.
litmus_plays := dsm/tests/litmus_play.cpp dsm/tests/litmus_shapes.cpp
litmus := dsm/tests/litmus.cpp $(litmus_plays)
litmus_stands_on := node pager net telemetry ipc01 ipc02 ipc03 ipc04 ipc06
litmus_links := -lsodium -lboost_program_options
$(eval $(call program,dsm_litmus,$(litmus),$(litmus_stands_on) core,$(litmus_links)))
$(eval $(call test,litmus_test,dsm/tests/litmus_test.cpp dsm/tests/litmus_shapes.cpp,testbench ipc04,,dsmexec dsm_litmus))
litmus_long = $(eval $(call test_long,litmus_$(1)_long_test,dsm/tests/litmus_long_test.cpp dsm/tests/litmus_long_$(1).cpp,testbench ipc04,,dsmexec dsm_litmus))
$(call litmus_long,msi)
$(call litmus_long,migrate)
# MUTANT, the source file that it changes
define litmus_mutant
$(MUTANTS)/$(1)/dsm_litmus: $(MUTANTS)/$(1)/mutant.o $(call objects,$(litmus)) $(filter-out $(call objects,$(2)),$(OBJECTS.core)) $(call archives,$(litmus_stands_on))
	$$(call say,LINK,$$@)
	$$(Q)$$(CXX) $$(ALL_LDFLAGS) -o $$@ $$(filter %.o,$$^) -Wl,--start-group $$(filter %.a,$$^) -Wl,--end-group $(litmus_links)
$(BUILD)/tests/litmus_test: | $(MUTANTS)/$(1)/dsm_litmus
endef
$(eval $(call litmus_mutant,acknowledged-copy-kept,dsm/core/state.cpp))
$(eval $(call litmus_mutant,recalled-page-forgotten,dsm/core/msi.cpp))

# What a user has: the header, the libraries, a compiler.
$(eval $(call test,library_test,dsm/tests/library_test.cpp dsm/tests/calls_test.cpp,ipc04,,dsmexec))
$(BUILD)/tests/library_test: | $(LIB)/libdsm.a $(LIB)/libdsm.so $(BIN)/dsmc++

# Hosts of their own for whole jobs, made by hosts.sh; this is the slow way to one of them.
$(eval $(call program,dsm_slow_link,dsm/tests/slow_link.cpp,,-lboost_program_options))
hosts_tests := $(patsubst %,dsm/tests/%.cpp,hosts_bench hosts_test hosts_encrypt_test hosts_failure_test)
$(eval $(call test,hosts_test,$(hosts_tests),testbench ipc04,,dsmexec dsm_slow_link dsm_stress hello demo jacobi word_count data_exchange))

# What it costs to start a job.
$(eval $(call program,dsm_launch_bench,dsm/tests/launch_cost.cpp,ipc04 ipc01,-lboost_program_options))

# The fuzzers: fuzz/harness.hpp. `fuzzer` is libFuzzer's, made by `make fuzz` only; fuzz_test runs the same without it.
fuzz_names := machine_file frame message handshake classroom sealed sysv
fuzz_parsers := $(addprefix dsm/launch/,machine_file.cpp control.cpp classroom.cpp) \
  $(addprefix dsm/net/,frame.cpp handshake.cpp handshaking.cpp channel_receive.cpp seal.cpp rendezvous.cpp) dsm/sysv/wire.cpp
fuzz_sources := $(patsubst %,dsm/tests/fuzz/%.cpp,harness stream peer handshake_tcp $(fuzz_names)) \
  $(fuzz_parsers) $(addprefix dsm/net/,job_key.cpp acceptor.cpp address.cpp channel.cpp port_range.cpp)
fuzz_stands_on := sysv_home sysv core ipc06 ipc04 ipc03 ipc02 ipc01
$(eval $(call test,fuzz_test,$(fuzz_sources) dsm/tests/fuzz/fuzz_test.cpp,$(fuzz_stands_on),-lsodium -lfmt))
SOURCES += dsm/tests/fuzz/driver.cpp
$(BIN)/fuzzer: $(call objects,$(fuzz_sources) dsm/tests/fuzz/driver.cpp) $(call archives,$(fuzz_stands_on)) dsm/tests/module.mk
$(BIN)/fuzzer: LDLIBS_ := -lsodium -lfmt

# Those who have no key, at every port of a running job.
strangers := $(patsubst %,dsm/tests/%.cpp,strangers strangers_proxy strangers_job)
strangers_stand_on := testbench net core ipc06 ipc04 ipc03 ipc02 ipc01
$(eval $(call test,strangers_test,dsm/tests/strangers_test.cpp $(strangers),$(strangers_stand_on),-lsodium -lfmt,dsmexec dsm_stress))
$(eval $(call test_long,strangers_long_test,dsm/tests/strangers_long_test.cpp $(strangers),$(strangers_stand_on),-lsodium -lfmt,dsmexec dsm_stress jacobi))
# And at dsmd's. Not with ThreadSanitizer, which must be the first library of a program: perl is not built for it.
ifneq ($(SANITIZER),thread)
daemon_strangers := $(patsubst %,dsm/tests/%.cpp,daemon_bench daemon_member daemon_strangers_test) $(strangers)
$(BUILD)/tests/daemon_strangers_test: | $(LIB)/libdshm.so
$(eval $(call test,daemon_strangers_test,$(daemon_strangers),testbench node core pager net telemetry ipc06 ipc04 ipc03 ipc02 ipc01,-lsodium -lfmt,dsmd dshmrun dshmctl dshm_agent hello))
endif

# A Slurm cluster of its own, made by slurm.sh.
$(eval $(call test,slurm_test,dsm/tests/slurm_test.cpp,testbench ipc04,,dsmexec demo))

# Programs that share by System V calls, on hosts of their own. They know nothing of us.
dshm_stress := $(patsubst %,dsm/tests/%.cpp,dshm_stress dshm_stress_calls dshm_stress_records)
$(eval $(call program,dshm_stress,$(dshm_stress),,-lboost_program_options))

# The same litmus tests on their segments.
$(eval $(call program,dshm_litmus,dsm/tests/dshm_litmus.cpp $(litmus_plays),,-lboost_program_options))

# What each System V call does, line by line: on a bare kernel and under dshmrun it must be the same. Stands on nothing of ours.
sysv_table := $(patsubst %,dsm/tests/%.cpp,sysv_table $(addprefix sysv_table_,get attach process set operate age pair))
$(eval $(call program,sysv_table,$(sysv_table),,))
$(eval $(call test,sysv_table_test,dsm/tests/sysv_table_test.cpp,,,sysv_table))

# All of them on hosts made by hosts.sh, under dshmrun and natively.
dshm_hosts_tests := $(patsubst %,dsm/tests/%.cpp,hosts_bench daemon_bench dshm_bench dshm_scripts dshm_languages_test dshm_hosts_test dshm_litmus_test dshm_failure_test)
$(BUILD)/tests/dshm_hosts_test: | $(LIB)/libdshm.so
$(eval $(call test,dshm_hosts_test,$(dshm_hosts_tests) dsm/tests/litmus_shapes.cpp,testbench ipc06 ipc04,,dsmd dshmrun dshmctl dshm_agent dshm_stress dshm_litmus dshm_example sysv_table shm_random shm_writer shm_reader dsm_slow_link))

# make install, with what has been built.
$(eval $(call test,install_test,dsm/tests/install_test.cpp,testbench ipc04,,dsmexec dsmd dsmtop dshmrun dshm_agent dshmctl))
$(BUILD)/tests/install_test: | $(addprefix $(LIB)/,libdsm.a libdsm.so libdshm.a libdshm.so)
