# dsmd: sessions of programs that were not started by dsmexec, and the home of System V objects (door 3).
daemon_stands_on := daemon sysv_home sysv launch telemetry net core ipc06_watchdog ipc06 ipc05 ipc04 ipc03 ipc02 ipc01
daemon_links := -lsodium -lboost_program_options -lfmt
$(eval $(call library,sysv_home,$(patsubst %,dsm/daemon/%.cpp,sysv_home sysv_calls sysv_pages sysv_report outbox)))
$(eval $(call library,daemon,$(patsubst %,dsm/daemon/%.cpp,session sessions options turned_away window server)))
$(eval $(call program,dsmd,dsm/daemon/main.cpp,$(daemon_stands_on),$(daemon_links)))
$(eval $(call test,daemon_test,$(patsubst %,dsm/daemon/%_test.cpp,sessions sessions_once options turned_away),$(daemon_stands_on),$(daemon_links)))

sysv_home_tests := $(patsubst %,dsm/daemon/%.cpp,sysv_home_testing sysv_home_test sysv_home_calls_test \
  sysv_home_pages_test sysv_home_random_test outbox_test)
$(eval $(call test,sysv_home_test,$(sysv_home_tests),sysv_home sysv net core ipc06 ipc04 ipc03 ipc02 ipc01,-lsodium -lfmt))
