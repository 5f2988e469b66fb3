$(eval $(call library,ipc06,labs/06-sockets/src/socket.cpp labs/06-sockets/src/transfer.cpp))
$(eval $(call test,ipc06_test,$(addprefix labs/06-sockets/tests/,socket_test.cpp transfer_test.cpp),ipc06))
