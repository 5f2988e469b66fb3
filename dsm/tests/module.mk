# Several real processes: what only a whole job can show.
$(eval $(call program,dsm_stress,dsm/tests/stress.cpp dsm/tests/stress_sync.cpp dsm/tests/stress_messages.cpp,node core pager net telemetry ipc01 ipc02 ipc03 ipc04 ipc06,-lsodium -lboost_program_options))
$(eval $(call library,testbench,dsm/tests/launch_bench.cpp))
$(eval $(call test,dsm_run_test,dsm/tests/dsm_run_test.cpp,testbench ipc04,,dsmexec dsm_stress double_touch hello))

# Litmus tests, and the same program over a core with a bug in it (dsm/core/mutants), which must be found.
litmus := dsm/tests/litmus.cpp dsm/tests/litmus_shapes.cpp
litmus_stands_on := node pager net telemetry ipc01 ipc02 ipc03 ipc04 ipc06
litmus_mutant := $(MUTANTS)/acknowledged-copy-kept
$(eval $(call program,dsm_litmus,$(litmus),$(litmus_stands_on) core,-lsodium -lboost_program_options))
$(eval $(call test,litmus_test,dsm/tests/litmus_test.cpp dsm/tests/litmus_shapes.cpp,testbench ipc04,,dsmexec dsm_litmus))
$(eval $(call test_long,litmus_long_test,dsm/tests/litmus_long_test.cpp,testbench ipc04,,dsmexec dsm_litmus))
$(litmus_mutant)/dsm_litmus: $(litmus_mutant)/mutant.o $(call objects,$(litmus)) $(filter-out $(OBJ)/dsm/core/state.o,$(OBJECTS.core)) $(call archives,$(litmus_stands_on))
	$(call say,LINK,$@)
	$(Q)$(CXX) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group -lsodium -lboost_program_options
$(BUILD)/tests/litmus_test: | $(litmus_mutant)/dsm_litmus

# What a user has: the header, the libraries, a compiler.
$(eval $(call test,library_test,dsm/tests/library_test.cpp,ipc04,,dsmexec))
$(BUILD)/tests/library_test: | $(LIB)/libdsm.a $(LIB)/libdsm.so $(BIN)/dsmc++
