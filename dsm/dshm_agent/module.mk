# The agent of System V IPC on one host (door 3): frames, faults, and who may touch what.
$(eval $(call library,dshm_local,dsm/dshm_agent/local.cpp))
