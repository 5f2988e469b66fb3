# dsmd: sessions of programs that were not started by dsmexec (door 2).
daemon_stands_on := daemon launch telemetry net core ipc06_watchdog ipc06 ipc05 ipc04 ipc03 ipc02 ipc01
daemon_links := -lsodium -lboost_program_options -lfmt
$(eval $(call library,daemon,$(patsubst %,dsm/daemon/%.cpp,session sessions options window server)))
$(eval $(call program,dsmd,dsm/daemon/main.cpp,$(daemon_stands_on),$(daemon_links)))
$(eval $(call test,daemon_test,$(patsubst %,dsm/daemon/%_test.cpp,sessions options),$(daemon_stands_on),$(daemon_links)))
