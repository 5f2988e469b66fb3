# libdsm's shell: the thread that faults, the service thread, the C API.
$(eval $(call library,node,dsm/node/node.cpp dsm/node/actions.cpp dsm/node/wait.cpp dsm/node/sync.cpp dsm/node/service.cpp dsm/node/heap.cpp dsm/node/api.cpp dsm/node/api_sync.cpp dsm/node/api_collective.cpp dsm/node/api_heap.cpp))
$(eval $(call test,node_test,dsm/node/node_test.cpp dsm/node/sync_test.cpp dsm/node/heap_test.cpp,node pager net core telemetry ipc06 ipc04 ipc03 ipc02 ipc01,-lsodium))
