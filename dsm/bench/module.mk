# What a page fault costs, beside what the machine itself takes for its parts.
BENCH := dsm/bench
$(eval $(call library,bench,$(BENCH)/limits.cpp $(BENCH)/report.cpp))
$(eval $(call program,dsm_bench,$(BENCH)/main.cpp $(BENCH)/rank.cpp,bench node core pager net telemetry ipc01 ipc02 ipc03 ipc04 ipc06,-lsodium -lboost_program_options -lfmt))
$(eval $(call test,bench_test,$(patsubst %,$(BENCH)/%_test.cpp,limits report job),bench ipc01 ipc03 ipc04 ipc06,-lfmt,dsm_bench dsmexec))

# The same for System V segments between two hosts. It runs itself under dshmrun.
$(eval $(call program,dshm_bench,$(BENCH)/sysv_main.cpp $(BENCH)/sysv_member.cpp dsm/dshm/userfault.cpp,bench ipc01 ipc03 ipc04 ipc06,-lboost_program_options -lfmt))
$(BIN)/dshm_bench: | $(addprefix $(BIN)/,dsmd dshmrun dshm_agent) $(LIB)/libdshm.so
# Not with ThreadSanitizer (dsm/dshm/module.mk).
ifneq ($(SANITIZER),thread)
$(eval $(call test,dshm_bench_test,$(BENCH)/sysv_test.cpp,ipc04,,dshm_bench))
endif
