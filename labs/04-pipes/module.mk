$(eval $(call library,ipc04,$(addprefix labs/04-pipes/src/,spawn.cpp read_write.cpp line_mux.cpp)))
$(eval $(call test,ipc04_test,$(patsubst %,labs/04-pipes/tests/%_test.cpp,spawn spawn_child read_write line_mux),ipc04))
