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

// Hosts whose pages live at a daemon.
struct Hosts : explorer::Talk {
  explicit Hosts(std::uint8_t hosts, Micros hold = 0)
      : explorer::Talk(hosts, Protocol::msi, hold, 4, 0, Placement::daemon) {}
  // The want of a fault arrives; what it leads to does not yet.
  void want(Node host, Access access) {
    fault(host, 0, access);
    arrive(host, daemon_node);
    (void)text();
  }
  // Nobody waits for p0 any more.
  void expect_at_rest(std::uint8_t hosts) {
    EXPECT_TRUE(quiet());
    EXPECT_EQ(core(daemon_node).view(0).queued, 0U);
    EXPECT_NE(core(daemon_node).view(0).state, View::State::moving);
    for (Node n = 0; n < hosts; ++n) EXPECT_FALSE(core(n).view(0).asked) << unsigned{n};
  }
};

}  // namespace dsm::core::testing
