$(eval $(call library,ipc06,labs/06-sockets/src/socket.cpp labs/06-sockets/src/transfer.cpp))
$(eval $(call program,server,labs/06-sockets/src/server.cpp,ipc06 ipc01,-lboost_program_options))
$(eval $(call program,client,labs/06-sockets/src/client.cpp,ipc06,-lboost_program_options))
$(eval $(call test,ipc06_test,$(addprefix labs/06-sockets/tests/,socket_test.cpp transfer_test.cpp),ipc06))
$(eval $(call test,lab06_test,$(addprefix labs/06-sockets/tests/,programs_test.cpp bad_clients_test.cpp),ipc06 ipc01,-lboost_program_options,server client))

# 6C. The watchdog module stands on ipc04 (spawn) and ipc01; link.cpp is what dispatcher and worker share.
$(eval $(call library,ipc06_watchdog,labs/06-sockets/src/heartbeat.cpp labs/06-sockets/src/supervised.cpp))
$(eval $(call library,lab06_link,labs/06-sockets/src/link.cpp))
lab06_libraries := lab06_link ipc06_watchdog ipc06 ipc04 ipc02 ipc01
$(eval $(call program,watchdog,labs/06-sockets/src/watchdog.cpp,$(lab06_libraries),-lboost_program_options))
$(eval $(call program,dispatcher,labs/06-sockets/src/dispatcher.cpp,$(lab06_libraries),-lboost_program_options))
$(eval $(call program,worker,labs/06-sockets/src/worker.cpp,$(lab06_libraries),-lboost_program_options))
$(eval $(call program,request,labs/06-sockets/src/request.cpp,lab06_link ipc06 ipc04 ipc02,-lboost_program_options))
lab06_programs := watchdog dispatcher worker request
$(eval $(call test,watchdog_module_test,$(addprefix labs/06-sockets/tests/,watchdog_module_test.cpp watchdog_peer_test.cpp),$(lab06_libraries),,$(lab06_programs)))
$(eval $(call test,watchdog_programs_test,labs/06-sockets/tests/watchdog_programs_test.cpp,ipc06,,$(lab06_programs)))
$(eval $(call test,watchdog_faults_test,labs/06-sockets/tests/watchdog_faults_test.cpp,ipc06,,$(lab06_programs)))
