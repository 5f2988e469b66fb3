$(eval $(call library,ipc03,labs/03-mmap/src/mapping.cpp))
$(eval $(call test,ipc03_test,labs/03-mmap/tests/mapping_test.cpp,ipc03 ipc01))
