$(eval $(call library,ipc02,labs/02-shm/src/sysv_segment.cpp))
$(eval $(call test,ipc02_test,labs/02-shm/tests/sysv_segment_test.cpp,ipc02))
