# The coherence protocols, locks and barriers as values; the explorer that walks all their interleavings.

CORE := dsm/core
$(eval $(call library,core,$(patsubst %,$(CORE)/%.cpp,coherence state migrate msi sync)))
$(eval $(call library,explorer,$(patsubst %,$(CORE)/%.cpp,explorer explorer_world explorer_node explorer_ladder explorer_text)))
