// dsm/examples/acts.hpp - the four acts of demo, each one way in which processes share pages. Collective, all of them.
#pragma once
#include "dsm/examples/stage.hpp"

namespace example {

void read_sharing(Stage& stage);
void ping_pong(Stage& stage);
void false_sharing(Stage& stage);
void stencil(Stage& stage);

}  // namespace example
