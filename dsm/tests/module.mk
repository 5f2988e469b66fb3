# Several real processes: what only a whole job can show.
$(eval $(call program,dsm_stress,dsm/tests/stress.cpp dsm/tests/stress_sync.cpp,node core pager net telemetry ipc01 ipc02 ipc03 ipc04 ipc06,-lsodium -lboost_program_options))
$(eval $(call program,dsm_litmus,dsm/tests/litmus.cpp dsm/tests/litmus_shapes.cpp,node core pager net telemetry ipc01 ipc02 ipc03 ipc04 ipc06,-lsodium -lboost_program_options))
$(eval $(call library,testbench,dsm/tests/launch_bench.cpp))
$(eval $(call test,dsm_run_test,dsm/tests/dsm_run_test.cpp,testbench ipc04,,dsmexec dsm_stress double_touch hello))
# What a user has: the header, the libraries, a compiler.
$(eval $(call test,library_test,dsm/tests/library_test.cpp,ipc04,,dsmexec))
$(BUILD)/tests/library_test: | $(LIB)/libdsm.a $(LIB)/libdsm.so $(BIN)/dsmc++
