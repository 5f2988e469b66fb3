# dsm/net: authenticated connections, the door, the rendezvous and the mesh of ranks.

NET := dsm/net
$(eval $(call library,net,$(patsubst %,$(NET)/%.cpp,frame job_key handshake handshaking seal channel channel_receive address \
  acceptor port_range rendezvous key_file session_address mesh mesh_session)))
$(eval $(call test,net_test,$(patsubst %,$(NET)/%_test.cpp,frame handshake seal channel channel_queue channel_ended \
  acceptor port_range rendezvous key_file session_address mesh encrypted),net core ipc06 ipc04 ipc03 ipc02 ipc01,-lsodium))
