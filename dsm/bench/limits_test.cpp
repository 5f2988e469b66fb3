#include "dsm/bench/limits.hpp"

#include <gtest/gtest.h>
#include <sched.h>

#include <algorithm>
#include <set>

namespace bench {
namespace {

int any_cpu() {
  cpu_set_t set;
  CPU_ZERO(&set);
  EXPECT_EQ(sched_getaffinity(0, sizeof set, &set), 0);
  int cpu = 0;
  while (CPU_ISSET(static_cast<std::size_t>(cpu), &set) == 0) ++cpu;
  return cpu;
}

TEST(Pattern, touches_each_page_once_in_an_order_that_is_always_the_same) {
  const Pattern pattern{100, 3};
  const auto order = pattern.order();
  EXPECT_EQ(order, pattern.order());
  EXPECT_FALSE(std::is_sorted(order.begin(), order.end()));
  const std::set<std::uint32_t> pages(order.begin(), order.end());
  EXPECT_EQ(pages.size(), 100U);
  EXPECT_EQ(*pages.rbegin(), 99U * 3);
  EXPECT_TRUE(std::all_of(order.begin(), order.end(), [](auto page) { return page % 3 == 0; }));
}

TEST(Median, is_the_middle_whatever_the_order) {
  EXPECT_EQ(median({}), 0);
  EXPECT_EQ(median({9, 1, 5}), 5);
}

TEST(Limits, every_kind_gives_as_many_samples_as_asked_for) {
  const int cpu = any_cpu();
  Limits limits(cpu, cpu, Pattern{64, 2});
  for (const auto what :
       {Limits::What::page, Limits::What::echo, Limits::What::read_fault, Limits::What::write_fault}) {
    const Samples samples = limits.measure(what);
    ASSERT_EQ(samples.size(), 64U);
    EXPECT_GT(*std::min_element(samples.begin(), samples.end()), 0);
  }
}

// A write-write-read pattern on a socket without TCP_NODELAY waits for a delayed acknowledgement, 40 ms.
TEST(Limits, a_round_trip_never_waits_for_a_delayed_acknowledgement) {
  const int cpu = any_cpu();
  Limits limits(cpu, cpu, Pattern{64, 1});
  EXPECT_LT(median(limits.measure(Limits::What::page)), 20'000);
}

}  // namespace
}  // namespace bench
