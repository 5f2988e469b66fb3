# libdshm: System V IPC at dsmd, for programs that know nothing of it; and dshmrun, which puts it in front of them.
dshm_sources := keys attaches descriptors message userfault agent_start connections process service faults guarded \
  routes objects segment_map fork shm sem memory files transfer masks loading
$(eval $(call library,dshm,$(patsubst %,dsm/dshm/%.cpp,$(dshm_sources))))
$(eval $(call library,dshmrun,dsm/dshm/command_line.cpp))
$(eval $(call program,dshmrun,dsm/dshm/run_main.cpp,dshmrun))
# It uses what it looks after: libdshm, linked statically.
$(eval $(call program,dshmctl,dsm/dshm/dshmctl.cpp,dshm dshm_local sysv pager,-lboost_program_options))
# What it does not interpose is tested here; the rest, from outside, by dshm_run_test.
$(eval $(call test,dshm_test,$(patsubst %,dsm/dshm/%_test.cpp,keys attaches command_line) dsm/dshm/keys.cpp dsm/dshm/attaches.cpp,dshmrun))

# Under dshmrun: a program that knows nothing of it, and programs that are on every machine.
guest := $(patsubst %,dsm/dshm/%.cpp,guest guest_segments guest_sets guest_forks guest_masks guest_transfer guest_host)
$(eval $(call program,dshm_guest,$(guest),))
# And the same program, linked with the library.
$(eval $(call program,dshm_guest_linked,$(guest),))
$(BIN)/dshm_guest_linked: $(LIB)/libdshm.a
# Not with ThreadSanitizer, which must be the first library of a program: the programs here are not built for it.
ifneq ($(SANITIZER),thread)
dshm_run_stands_on := testbench node core pager net telemetry ipc06 ipc04 ipc03 ipc02 ipc01
$(eval $(call test,dshm_run_test,dsm/dshm/run_test.cpp dsm/tests/daemon_bench.cpp,$(dshm_run_stands_on),-lsodium,dsmd dshmrun dshm_guest dshm_guest_linked dshm_agent))
$(BUILD)/tests/dshm_run_test: | $(LIB)/libdshm.so
endif
