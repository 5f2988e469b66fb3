$(eval $(call library,bench,dsm/bench/limits.cpp dsm/bench/report.cpp))
$(eval $(call program,dsm_bench,dsm/bench/main.cpp dsm/bench/rank.cpp,bench node core pager net telemetry ipc01 ipc02 ipc03 ipc04 ipc06,-lsodium -lboost_program_options -lfmt))
$(eval $(call test,bench_test,dsm/bench/limits_test.cpp dsm/bench/report_test.cpp,bench ipc01 ipc03 ipc04 ipc06,-lfmt))
