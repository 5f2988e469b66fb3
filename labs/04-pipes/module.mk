$(eval $(call library,ipc04,labs/04-pipes/src/spawn.cpp labs/04-pipes/src/line_mux.cpp))
$(eval $(call test,ipc04_test,$(addprefix labs/04-pipes/tests/,spawn_test.cpp transfer_test.cpp line_mux_test.cpp),ipc04))
