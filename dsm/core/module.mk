# The coherence protocols, locks and barriers as values; the explorer that walks all their interleavings, and the
# simulator that walks random ones of larger worlds.

CORE := dsm/core
$(eval $(call library,core,$(patsubst %,$(CORE)/%.cpp,coherence state homes migrate msi left atomic first_touch sync lock semaphore condition)))
$(eval $(call library,explorer,$(patsubst %,$(CORE)/%.cpp,explorer explorer_choices explorer_world explorer_node explorer_ladder explorer_talk explorer_text)))
$(eval $(call library,simulator,$(patsubst %,$(CORE)/%.cpp,simulator simulator_scenario simulator_world simulator_events simulator_atomic simulator_extras)))
$(eval $(call program,dsm_sim,$(CORE)/simulator_main.cpp,simulator explorer core,-lboost_program_options))

core_tests := $(patsubst %,$(CORE)/%_test.cpp,coherence coherence_race coherence_hold coherence_daemon coherence_left coherence_bad homes migrate atomic sync sync_lock sync_walk)
$(eval $(call test,core_test,$(core_tests),explorer core))
$(eval $(call test,explorer_test,$(CORE)/explorer_test.cpp,explorer core))
$(eval $(call test_long,explorer_long_test,$(CORE)/explorer_long_test.cpp,explorer core))
$(eval $(call test_long,explorer_held_long_test,$(CORE)/explorer_held_long_test.cpp,explorer core))
$(eval $(call test_long,explorer_left_long_test,$(CORE)/explorer_left_long_test.cpp,explorer core))
$(eval $(call test,simulator_test,$(CORE)/simulator_test.cpp,simulator explorer core))
$(eval $(call test_long,simulator_long_test,$(CORE)/simulator_long_test.cpp,simulator explorer core))
$(eval $(call test_long,simulator_migrate_long_test,$(CORE)/simulator_migrate_long_test.cpp,simulator explorer core))
# Compiles the core once for each mutant: minutes, so not for every change.
$(eval $(call test_long,mutants_test,$(CORE)/mutants_test.cpp))
# Spin walks a model, not the code: a change to the code cannot break it.
$(eval $(call test_long,model_test,$(CORE)/model/model_test.cpp))

# ---- seeded bugs: each is the core with one text changed, linked with the tests that must find it ----

MUTANTS := $(BUILD)/mutants
core_runner := $(call objects,$(core_tests) $(CORE)/explorer_test.cpp $(CORE)/simulator_test.cpp)
mutant_files := $(sort $(wildcard $(CORE)/mutants/*.mutant))
mutant_names := $(patsubst $(CORE)/mutants/%.mutant,%,$(mutant_files))

define link_runner
	$(call say,LINK,$@)
	$(Q)$(CXX) $(ALL_LDFLAGS) -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group -lgtest_main -lgtest
endef

$(MUTANTS)/sound: $(core_runner) $(call archives,simulator explorer core) | $(MUTANTS)/list
	$(link_runner)

# NAME, the source file that is changed
define mutant
$(MUTANTS)/$(1)/$(2): $(CORE)/mutants/$(1).mutant $(CORE)/mutants/apply $(2) | $(MUTANTS)/list
	$$(Q)$(CORE)/mutants/apply $$< $(MUTANTS)/$(1)
$(MUTANTS)/$(1)/mutant.o: $(MUTANTS)/$(1)/$(2) $(BUILD)/flags
	$$(call say,CXX,$$@)
	$$(Q)$$(CXX) $$(ALL_CXXFLAGS) -MMD -MP -c $$< -o $$@
$(MUTANTS)/$(1)/runner: $(MUTANTS)/$(1)/mutant.o $(core_runner) $(filter-out $(call objects,$(2)),$(OBJECTS.core)) $(call archives,simulator explorer)
	$$(link_runner)
-include $(MUTANTS)/$(1)/mutant.d
$(BUILD)/tests/mutants_test: | $(MUTANTS)/$(1)/runner
endef
$(foreach m,$(mutant_names),$(eval $(call mutant,$(m),$(shell sed -n 's/^file: //p' $(CORE)/mutants/$(m).mutant))))

$(BUILD)/tests/mutants_test: | $(MUTANTS)/list $(MUTANTS)/sound
$(MUTANTS)/list: $(mutant_files) $(CORE)/module.mk
	@mkdir -p $(@D)
	$(Q)awk '/^killed by: / {n = FILENAME; gsub(/.*\/|\.mutant$$/, "", n); print n, $$3}' $(mutant_files) > $@
