# Counters that a rank publishes, and how they travel: rank -> agent -> dsmexec -> dsmtop.
$(eval $(call library,telemetry,$(addprefix dsm/telemetry/,snapshot.cpp publisher.cpp sampler.cpp viewer_port.cpp viewer_client.cpp)))
$(eval $(call test,telemetry_test,$(addprefix dsm/telemetry/,snapshot_test.cpp publisher_test.cpp viewer_port_test.cpp),telemetry ipc02 ipc06,))
