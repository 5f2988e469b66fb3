# System V IPC as values, the tables of objects, and the frames in which it is talked about.

$(eval $(call library,sysv,$(patsubst %,dsm/sysv/%.cpp,wire permissions segments semaphore_set semaphores)))
$(eval $(call test,sysv_wire_test,dsm/sysv/wire_test.cpp,sysv))
$(eval $(call test,sysv_test,$(patsubst %,dsm/sysv/%.cpp,permissions_test segments_test semaphores_test semaphores_limits_test differential_test differential_kernel differential_model),sysv))
