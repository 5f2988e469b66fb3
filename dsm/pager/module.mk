$(eval $(call library,pager,dsm/pager/region.cpp dsm/pager/own_thread.cpp dsm/pager/sigsegv.cpp dsm/pager/uffd.cpp dsm/pager/kind.cpp dsm/pager/disposition.cpp dsm/pager/mask.cpp dsm/pager/interpose.cpp))
$(eval $(call test,pager_test,dsm/pager/any_pager_test.cpp dsm/pager/sigsegv_test.cpp dsm/pager/uffd_test.cpp dsm/pager/disposition_test.cpp dsm/pager/mask_test.cpp,pager ipc03 ipc01,-ldl))
