# dsmexec and its per-host agent.
launch_sources := $(addprefix dsm/launch/,agent.cpp agent_connection.cpp agent_start.cpp classroom.cpp control.cpp control_fifo.cpp \
  coordinator.cpp debugger.cpp dry_run.cpp feed.cpp guard.cpp input.cpp job.cpp job_judge.cpp machine_file.cpp options.cpp orphan_segments.cpp output.cpp \
  processes.cpp program.cpp region.cpp remote.cpp runner.cpp runner_agents.cpp site.cpp slurm.cpp srun.cpp ssh.cpp stacks.cpp status.cpp)
launch_tests := $(patsubst %,dsm/launch/%_test.cpp,classroom control control_fifo dry_run feed job job_keep_going \
  machine_file options orphan_segments output processes program remote site slurm srun ssh stacks status)
launch_run_tests := $(patsubst %,dsm/tests/launch_%.cpp,rank run_test debug_test output_test options_test orphan_test join_test \
  srun_test)
launch_stands_on := launch telemetry net core ipc06_watchdog ipc06 ipc05 ipc04 ipc03 ipc02 ipc01
launch_links := -lsodium -lboost_program_options -lfmt

$(eval $(call library,launch,$(launch_sources)))
# For a job dsmexec is executed twice on this machine, and twice on each other one. Shared libraries would take
# most of the time of a short job: so all that can be in the file is (a library without an archive is linked as usual).
# With a sanitizer, which has libraries of its own, it is as the other programs.
archive = $(or $(filter /%,$(shell $(CXX) -print-file-name=lib$(1).a)),-l$(1))
launch_whole = -Wl,--build-id=sha1 -static-libstdc++ -static-libgcc $(call archive,sodium) $(call archive,boost_program_options)
$(eval $(call program,dsmexec,dsm/launch/main.cpp dsm/launch/format.cpp,$(launch_stands_on),$(launch_links)))
ifeq ($(SANITIZER),)
$(BIN)/dsmexec: LDLIBS_ = $(launch_whole)
endif
$(eval $(call test,launch_test,$(launch_tests),$(launch_stands_on),$(launch_links)))

# From the outside: runs the real dsmexec, which lies in bin/ beside the folder of the test.
$(eval $(call test,launch_run_test,$(launch_run_tests),testbench $(launch_stands_on),$(launch_links)))
$(BUILD)/tests/launch_run_test: $(BIN)/dsmexec
