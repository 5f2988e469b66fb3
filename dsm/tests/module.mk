# Several real processes: what only a whole job can show.
$(eval $(call program,dsm_stress,dsm/tests/stress.cpp,node core pager net telemetry ipc01 ipc02 ipc03 ipc04 ipc06,-lsodium -lboost_program_options))
