# libdsm's shell: the thread that faults, the service thread, the C API.
node_shell := node actions wait evict pin sync service end_session heap
node_api := api join api_sync api_collective api_atomic api_pin api_heap
$(eval $(call library,node,$(patsubst %,dsm/node/%.cpp,$(node_shell) $(node_api))))
$(eval $(call test,node_test,$(patsubst %,dsm/node/%_test.cpp,node sync heap withdraw),node pager net core telemetry ipc06 ipc04 ipc03 ipc02 ipc01,-lsodium))
