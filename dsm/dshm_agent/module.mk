# The agent of System V IPC on one host: frames, faults, and who may touch what.
dshm_agent_stands_on := dshm_agent dshm_local sysv net core ipc06 ipc04 ipc03 ipc01
dshm_agent_links := -lsodium -lboost_program_options
$(eval $(call library,dshm_local,dsm/dshm_agent/local.cpp))
$(eval $(call library,dshm_agent,$(patsubst %,dsm/dshm_agent/%.cpp,hosted userfault letters closer lease upstream process segment agent agent_calls agent_processes)))
$(eval $(call program,dshm_agent,dsm/dshm_agent/main.cpp,$(dshm_agent_stands_on),$(dshm_agent_links)))
$(eval $(call test,dshm_agent_test,$(patsubst %,dsm/dshm_agent/%.cpp,hosted_test hosted_world process_test),$(dshm_agent_stands_on),$(dshm_agent_links)))
# Its clients take SIGSEGV: not for ThreadSanitizer.
ifneq ($(SANITIZER),thread)
$(eval $(call test,dshm_agent_run_test,$(patsubst %,dsm/dshm_agent/%.cpp,agent_run_test agent_end_test agent_rude_test testing_client testing_bench) dsm/tests/daemon_bench.cpp,testbench $(dshm_agent_stands_on),$(dshm_agent_links),dshm_agent dsmd))
endif
