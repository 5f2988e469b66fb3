# System V IPC as values, and the frames in which it is talked about.

$(eval $(call library,sysv,$(patsubst %,dsm/sysv/%.cpp,wire)))
$(eval $(call test,sysv_wire_test,dsm/sysv/wire_test.cpp,sysv))
