#include "dsm/dshm/attaches.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <vector>

namespace dsm::dshm {
namespace {

using core::Access;

const Address page = Attaches::page_size();
constexpr Address place = 0x10000000;
constexpr int both = PROT_READ | PROT_WRITE;

TEST(Attaches, AreFoundByAnyOfTheirPages) {
  Attaches all;
  Attach* const one = all.add(7, place, 3, both, false);
  ASSERT_NE(one, nullptr);
  EXPECT_EQ(all.find(place - 1), nullptr);
  EXPECT_EQ(all.find(place), one);
  EXPECT_EQ(all.find(place + 3 * page - 1), one);
  EXPECT_EQ(all.find(place + 3 * page), nullptr);
  EXPECT_EQ(all.begins(place), one);
  EXPECT_EQ(all.begins(place + page), nullptr);
  EXPECT_TRUE(all.maybe(place + page, place + page + 1));
  EXPECT_FALSE(all.maybe(place - page, place));
  EXPECT_FALSE(all.maybe(place + 3 * page, place + 4 * page));
  all.drop(one);
  EXPECT_EQ(all.find(place), nullptr);
  EXPECT_EQ(all.count(), 0U);
  EXPECT_FALSE(all.maybe(0, UINTPTR_MAX));
}

TEST(Attaches, WhatIsLeftOfOneStays) {
  Attaches all;
  Attach* const one = all.add(7, place, 4, both, false);
  Loss loss;
  ASSERT_TRUE(all.take(place, place + page, loss));
  EXPECT_EQ(loss.id, 7);
  EXPECT_EQ(loss.base, place);
  EXPECT_EQ(loss.from, place);
  EXPECT_EQ(loss.to, place + page);
  EXPECT_FALSE(loss.all);
  EXPECT_FALSE(all.take(place, place + page, loss)) << "it is gone already";
  EXPECT_EQ(all.find(place), nullptr);
  EXPECT_EQ(all.find(place + page), one);
  EXPECT_EQ(all.begins(place), one) << "as in Linux, its beginning is where it began";
  EXPECT_FALSE(all.touches(place, place + page));
  EXPECT_TRUE(all.touches(place, place + page + 1));
}

TEST(Attaches, ALossInTheMiddleLeavesTwoRuns) {
  Attaches all;
  (void)all.add(7, place, 5, both, false);
  Loss loss;
  ASSERT_TRUE(all.take(place + 2 * page, place + 3 * page, loss));
  std::vector<std::pair<Address, Address>> runs;
  bool last = false;
  while (all.take(0, UINTPTR_MAX / 2, loss)) {
    runs.emplace_back((loss.from - place) / page, (loss.to - place) / page);
    last = loss.all;
  }
  EXPECT_EQ(runs, (std::vector<std::pair<Address, Address>>{{0, 2}, {3, 5}}));
  EXPECT_TRUE(last);
  EXPECT_EQ(all.count(), 0U);
}

TEST(Attaches, TheOneThatIsPutOverAnotherIsSpared) {
  Attaches all;
  (void)all.add(7, place, 2, both, false);
  Attach* const over = all.add(8, place, 3, both, false);
  Loss loss;
  ASSERT_TRUE(all.take(place, place + 3 * page, loss, over));
  EXPECT_EQ(loss.id, 7);
  EXPECT_TRUE(loss.all);
  EXPECT_FALSE(all.take(place, place + 3 * page, loss, over));
  EXPECT_EQ(all.find(place), over);
}

TEST(Attaches, OfTwoThatBeganAtOnePlaceTheLowerOneIsMeant) {
  Attaches all;
  Attach* const older = all.add(7, place, 3, both, false);
  Loss loss;
  ASSERT_TRUE(all.take(place, place + page, loss));
  Attach* const newer = all.add(8, place, 1, both, false);
  EXPECT_EQ(all.begins(place), newer);
  all.drop(newer);
  EXPECT_EQ(all.begins(place), older);
}

TEST(Attaches, APageIsAllowedWhatBothAllow) {
  Attaches all;
  Attach* const one = all.add(7, place, 2, both, false);
  EXPECT_EQ(one->effective(0, true), both) << "the kernel asks the agent";
  EXPECT_EQ(one->effective(0, false), PROT_NONE);
  one->obey(0, Access::read);
  EXPECT_EQ(one->effective(0, false), PROT_READ);
  one->obey(0, Access::write);
  EXPECT_EQ(one->effective(0, false), both);
  one->set_wish(0, PROT_READ);
  EXPECT_EQ(one->effective(0, false), PROT_READ);
  one->set_wish(0, PROT_NONE);
  EXPECT_EQ(one->effective(0, false), PROT_NONE);
  EXPECT_EQ(one->effective(1, false), PROT_NONE);
  EXPECT_EQ(one->wish(1), both);
}

TEST(Attaches, OrdersAreCountedByPage) {
  Attaches all;
  Attach* const one = all.add(7, place, 2, both, false);
  for (unsigned i = 1; i <= 200; ++i) {
    one->obey(1, Access::write);
    EXPECT_EQ(one->orders(1), i % 64);
    EXPECT_EQ(one->access(1), Access::write);
  }
  EXPECT_EQ(one->orders(0), 0U);
}

}  // namespace
}  // namespace dsm::dshm
