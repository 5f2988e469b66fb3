$(eval $(call library,ipc04,$(addprefix labs/04-pipes/src/,spawn.cpp read_write.cpp line_mux.cpp)))
$(eval $(call test,ipc04_test,$(patsubst %,labs/04-pipes/tests/%_test.cpp,spawn spawn_child read_write line_mux),ipc04))

$(eval $(call program,pipe_sum,labs/04-pipes/src/pipe_sum.cpp,ipc04 ipc01,-lboost_program_options))
$(eval $(call program,pipeline,labs/04-pipes/src/pipeline.cpp,ipc04 ipc01,-lboost_program_options))
$(eval $(call test,lab04_test,$(patsubst %,labs/04-pipes/tests/%_test.cpp,pipe_sum pipeline),ipc04,-lutil,pipe_sum pipeline))
