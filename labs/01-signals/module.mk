$(eval $(call library,ipc01,labs/01-signals/src/signals.cpp))
$(eval $(call test,ipc01_test,labs/01-signals/tests/signals_test.cpp,ipc01))
