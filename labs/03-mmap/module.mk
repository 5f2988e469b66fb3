$(eval $(call library,ipc03,labs/03-mmap/src/mapping.cpp))
$(eval $(call test,ipc03_test,labs/03-mmap/tests/mapping_test.cpp,ipc03 ipc01))

$(eval $(call library,lab03,labs/03-mmap/src/counted_pages.cpp))
$(eval $(call program,writer,labs/03-mmap/src/writer.cpp,ipc03,-lboost_program_options))
$(eval $(call program,reader,labs/03-mmap/src/reader.cpp,ipc03,-lboost_program_options))
$(eval $(call program,fault_counter,labs/03-mmap/src/fault_counter.cpp,lab03 ipc03 ipc01,-lboost_program_options))
$(eval $(call test,lab03_test,$(patsubst %,labs/03-mmap/tests/%_test.cpp,programs counted_pages),lab03 ipc03 ipc01,,writer reader fault_counter))
