$(eval $(call library,ipc02,labs/02-shm/src/sysv_segment.cpp labs/02-shm/src/posix_segment.cpp))
$(eval $(call program,shm_random,labs/02-shm/src/shm_random.cpp,ipc02 ipc01,-lboost_program_options))
$(foreach p,shm_writer shm_reader,$(eval $(call program,$(p),labs/02-shm/src/$(p).cpp,,-lboost_program_options)))
$(eval $(call test,ipc02_test,labs/02-shm/tests/sysv_segment_test.cpp labs/02-shm/tests/posix_segment_test.cpp,ipc02))
$(eval $(call test,lab02_test,labs/02-shm/tests/programs_test.cpp labs/02-shm/tests/by_key_test.cpp,,,shm_random shm_writer shm_reader))
$(BUILD)/tests/lab02_test: | $(BUILD)/tests/handler_watch.so
