# Its hand-outs name programs of all labs (whose module.mk come before this one).
$(eval $(call test,handouts_test,labs/common/handouts_test.cpp,,,$(PROGRAMS)))
