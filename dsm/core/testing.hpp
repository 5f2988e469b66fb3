// dsm/core/testing.hpp - how conversations of the coherence protocols begin: short words for the tests that hold them.
//
// Thread-safety: none.
#pragma once
#include <gtest/gtest.h>

#include "dsm/core/explorer_talk.hpp"

namespace dsm::core::testing {

inline constexpr Access none = Access::none, read = Access::read, write = Access::write;

// p0 lives at node 0, p1 at node 1 ...; the text of how somebody came to have a page is not what a test is about.
inline void has(explorer::Talk& talk, Node node, Page page, Access access) {
  talk.fault(node, page, access);
  talk.settle();
  ASSERT_EQ(talk.core(node).view(page).here, access);
  (void)talk.text();
  (void)talk.messages();
}

}  // namespace dsm::core::testing
