# The coherence protocols, locks and barriers as values; the explorer that walks all their interleavings.

CORE := dsm/core
$(eval $(call library,core,$(patsubst %,$(CORE)/%.cpp,coherence state migrate msi sync)))
$(eval $(call library,explorer,$(patsubst %,$(CORE)/%.cpp,explorer explorer_world explorer_node explorer_ladder explorer_talk explorer_text)))
$(eval $(call test,core_test,$(patsubst %,$(CORE)/%_test.cpp,coherence coherence_race coherence_bad explorer),explorer core))
