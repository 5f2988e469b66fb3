$(eval $(call library,ipc01,labs/01-signals/src/signals.cpp labs/01-signals/src/child.cpp))
$(eval $(call program,hello_signals,labs/01-signals/src/hello_signals.cpp,ipc01,-lboost_program_options))
$(eval $(call test,ipc01_test,labs/01-signals/tests/signals_test.cpp labs/01-signals/tests/child_test.cpp,ipc01))
$(eval $(call test,lab01_test,labs/01-signals/tests/programs_test.cpp,,,hello_signals))

# What finds unsafe calls in signal handlers, and what it must find. Without a sanitizer in any build: both of them stand
# before malloc().
SOURCES += labs/common/unsafe_handler.cpp
$(BUILD)/tests/unsafe_handler: $(OBJ)/labs/common/unsafe_handler.o
$(BUILD)/tests/handler_watch.so: labs/common/handler_watch.cpp $(BUILD)/flags
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CXX) -std=c++20 $(OPT) $(WARN) -fPIC -shared -o $@ $<
$(BUILD)/tests/lab01_test: | $(BUILD)/tests/handler_watch.so $(BUILD)/tests/unsafe_handler
