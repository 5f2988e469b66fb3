#include "viewer/model.hpp"

#include <gtest/gtest.h>

#include "viewer/sample_test.hpp"

namespace viewer {
namespace {

TEST(Model, OneSnapshotHasNoRates) {
  Model model;
  Snapshot s = sample_snapshot(5'000'000);
  add_pages(s);
  model.update(s);
  EXPECT_FALSE(model.rates(0));
  EXPECT_FALSE(model.moves_per_s(0));
  for (std::size_t i = 0; i < s.pages_touched.size(); ++i) EXPECT_FALSE(model.ping_pong(i));
}

TEST(Model, RatesAreDifferencesOverTheLastSecond) {
  const Model model = sample_model();
  for (std::uint32_t rank = 0; rank < 4; ++rank) {
    const auto rates = model.rates(rank);
    ASSERT_TRUE(rates);
    EXPECT_DOUBLE_EQ(rates->faults, 10.0 * (rank + 3));
    EXPECT_DOUBLE_EQ(rates->bytes_in, 40960.0 * (rank + 1));
    EXPECT_DOUBLE_EQ(rates->bytes_out, 50000.0);
  }
}

TEST(Model, ARateForgetsWhatIsLongerAgoThanASecond) {
  Model model;
  Snapshot s = sample_snapshot(0, 1);
  for (int t = 0; t <= 30; ++t) {
    s.elapsed_us = static_cast<std::uint64_t>(t) * 100'000;
    s.ranks[0].read_faults = t < 10 ? static_cast<std::uint64_t>(t) * 100 : 1000;
    s.ranks[0].write_faults = 0;
    model.update(s);
  }
  EXPECT_DOUBLE_EQ(model.rates(0)->faults, 0);
}

TEST(Model, APageThatGoesToAndFroIsAPingPong) {
  const Model model = sample_model();
  for (std::size_t i = 0; i < model.now().pages_touched.size(); ++i) {
    const bool expected = model.now().pages_touched[i].page == 0x13;
    EXPECT_EQ(model.ping_pong(i), expected) << i;
    EXPECT_DOUBLE_EQ(*model.moves_per_s(i), expected ? 10 : 0) << i;
  }
}

TEST(Model, HotPagesAreSortedAndSayWhoWasSeen) {
  const Model model = sample_model();
  const auto hot = model.hot(3);
  ASSERT_EQ(hot.size(), 3u);
  EXPECT_EQ(hot[0].page.page, 0x13u);
  EXPECT_DOUBLE_EQ(*hot[0].moves_per_s, 10);
  EXPECT_EQ(hot[0].owners, (std::vector<std::uint8_t>{1, 2}));
  EXPECT_EQ(hot[1].page.page, 1u) << "equal ones by number; page 0 never moved";
  for (const HotPage& page : model.hot(100)) EXPECT_NE(page.page.moves, 0u);
}

TEST(Model, APageNewInTheWindowMovedFromZero) {
  Model model;
  model.update(sample_snapshot(1'000'000));
  Snapshot s = sample_snapshot(1'500'000);
  s.pages_touched.push_back({7, 2, 1, 0, 5});
  model.update(s);
  EXPECT_DOUBLE_EQ(*model.moves_per_s(0), 10);
  EXPECT_TRUE(model.ping_pong(0));
}

TEST(Model, AnotherJobStartsAnew) {
  Model model = sample_model();
  Snapshot s = sample_snapshot(99'000'000);
  s.job = "other-1";
  model.update(s);
  EXPECT_FALSE(model.rates(0));
  EXPECT_EQ(model.now().job, "other-1");
}

TEST(Model, TimeThatGoesBackStartsAnewAndTimeThatStandsStillReplaces) {
  Model model = sample_model();
  Snapshot s = sample_snapshot(12'000'000);
  s.ended = true;
  model.update(s);
  EXPECT_TRUE(model.now().ended);
  EXPECT_TRUE(model.rates(0));
  model.update(sample_snapshot(11'000'000));
  EXPECT_FALSE(model.rates(0));
}

TEST(Model, ACounterThatFallsIsNoRate) {
  Model model;
  model.update(sample_snapshot(2'000'000));
  Snapshot s = sample_snapshot(2'100'000);
  s.ranks[0].read_faults = s.ranks[0].write_faults = 0;
  model.update(s);
  EXPECT_DOUBLE_EQ(model.rates(0)->faults, 0);
}

TEST(Model, RanksThatComeLaterHaveNoRateYet) {
  Model model;
  model.update(sample_snapshot(1'000'000, 1));
  model.update(sample_snapshot(1'100'000, 2));
  EXPECT_TRUE(model.rates(0));
  EXPECT_FALSE(model.rates(1));
}

TEST(Model, HistoryHasOneValueForEachSecondAndGapsWhereNobodyLooked) {
  Model model = sample_model(2, 3);  // seconds 0 to 2, and the first tenth of 3
  for (std::uint64_t t = 95; t <= 98; ++t) model.update(sample_snapshot(t * 100'000, 2));  // after a gap
  const auto all = model.history(11);
  ASSERT_EQ(all.size(), 11u);
  EXPECT_FALSE(all[0]) << "before the job began";
  for (std::size_t i = 1; i <= 3; ++i) EXPECT_DOUBLE_EQ(all[i].value(), 70) << i;
  EXPECT_FALSE(all[4]) << "a tenth of a second is too little to tell";
  for (std::size_t i = 5; i <= 9; ++i) EXPECT_FALSE(all[i]) << i;
  EXPECT_DOUBLE_EQ(all[10].value(), 70);
  EXPECT_DOUBLE_EQ(model.history(1, 0)[0].value(), 30);
  EXPECT_DOUBLE_EQ(model.history(1, 1)[0].value(), 40);
  EXPECT_FALSE(Model().history(1)[0]);
}

}  // namespace
}  // namespace viewer
