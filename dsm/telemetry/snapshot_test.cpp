#include "dsm/telemetry/snapshot.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <random>
#include <string>

namespace dsm::telemetry {
namespace {

// Shown when a test fails; the same again with --gtest_random_seed=N.
struct Random {
  unsigned seed = GTEST_FLAG_GET(random_seed) != 0 ? static_cast<unsigned>(GTEST_FLAG_GET(random_seed))
                                                   : std::random_device{}() % 99999 + 1;
  std::mt19937 engine{seed};
  unsigned operator()() { return static_cast<unsigned>(engine()); }
  [[nodiscard]] std::string trace() const { return "--gtest_random_seed=" + std::to_string(seed); }
};

RankSample some_rank(std::uint32_t rank) {
  RankSample out;
  out.rank = rank;
  out.host = "node" + std::to_string(rank);
  out.pid = 4711 + rank;
  out.state = RankState::lock;
  out.on_page = UINT64_MAX;
  out.read_faults = 1;
  out.write_faults = 127;
  out.messages = 128;
  out.bytes_out = UINT64_MAX;
  out.bytes_in = 1u << 31;
  out.invalidations = 6;
  out.recalls = 7;
  out.grants = 8;
  out.wasted_grants = 9;
  out.lock_waits = 10;
  out.barriers = 11;
  out.owned = INT64_MIN;
  out.copies = -3;
  return out;
}

void expect_same(const Snapshot& a, const Snapshot& b) {
  EXPECT_EQ(a.job, b.job);
  EXPECT_EQ(a.program, b.program);
  EXPECT_EQ(a.protocol, b.protocol);
  EXPECT_EQ(a.page_size, b.page_size);
  EXPECT_EQ(a.pages, b.pages);
  EXPECT_EQ(a.elapsed_us, b.elapsed_us);
  EXPECT_EQ(a.ended, b.ended);
  EXPECT_EQ(a.pages_left_out, b.pages_left_out);
  ASSERT_EQ(a.ranks.size(), b.ranks.size());
  for (std::size_t i = 0; i < a.ranks.size(); ++i) {
    const RankSample &x = a.ranks[i], &y = b.ranks[i];
    EXPECT_TRUE(x.rank == y.rank && x.host == y.host && x.pid == y.pid && x.state == y.state && x.on_page == y.on_page);
    EXPECT_TRUE(x.read_faults == y.read_faults && x.write_faults == y.write_faults && x.messages == y.messages);
    EXPECT_TRUE(x.bytes_out == y.bytes_out && x.bytes_in == y.bytes_in && x.invalidations == y.invalidations);
    EXPECT_TRUE(x.recalls == y.recalls && x.grants == y.grants && x.wasted_grants == y.wasted_grants);
    EXPECT_TRUE(x.lock_waits == y.lock_waits && x.barriers == y.barriers && x.owned == y.owned && x.copies == y.copies);
  }
  ASSERT_EQ(a.pages_touched.size(), b.pages_touched.size());
  for (std::size_t i = 0; i < a.pages_touched.size(); ++i) {
    const PageSample &x = a.pages_touched[i], &y = b.pages_touched[i];
    ASSERT_TRUE(x.page == y.page && x.state == y.state && x.owner == y.owner && x.home == y.home && x.moves == y.moves)
        << "page " << x.page;
  }
}

Snapshot some_snapshot() {
  Snapshot s;
  s.job = "demo-17";
  s.program = "demo";
  s.protocol = "msi";
  s.page_size = 4096;
  s.pages = 262144;
  s.elapsed_us = 12'480'000;
  s.ranks = {some_rank(0), some_rank(1), some_rank(63)};
  s.pages_touched = {{0, 1, 0, 0, 0}, {1, 2, 3, 1, 7}, {5, 3, 255, 1, UINT32_MAX}, {262143, 2, 2, 3, 1}};
  return s;
}

TEST(Snapshot, SurvivesTheJourney) {
  Snapshot s = some_snapshot();
  s.ended = true;
  s.pages_left_out = 9;
  const auto back = decode(encode(s));
  ASSERT_TRUE(back);
  expect_same(s, *back);
}

TEST(Snapshot, EmptySurvivesTheJourney) {
  const auto back = decode(encode(Snapshot{}));
  ASSERT_TRUE(back);
  expect_same(Snapshot{}, *back);
}

TEST(Snapshot, RandomPagesSurviveTheJourney) {
  Random random;
  SCOPED_TRACE(random.trace());
  for (int round = 0; round < 200; ++round) {
    Snapshot s = some_snapshot();
    s.pages_touched.clear();
    const unsigned density = 1 + random() % 8, ranks = 1 + random() % 256;
    for (std::uint32_t page = random() % 3; page < 500; page += 1 + random() % density) {
      s.pages_touched.push_back({page, static_cast<std::uint8_t>(random() % 4),
                                 static_cast<std::uint8_t>(random() % ranks),
                                 static_cast<std::uint8_t>(random() % ranks), random() >> (random() % 32)});
    }
    const auto back = decode(encode(s));
    ASSERT_TRUE(back);
    expect_same(s, *back);
  }
}

TEST(Snapshot, QuietPagesAreSmallWhateverTheirHomes) {
  for (const bool cyclic : {true, false}) {
    Snapshot s = some_snapshot();
    s.pages_touched.clear();
    for (std::uint32_t page = 0; page < 262144; ++page) {
      const auto home = static_cast<std::uint8_t>(cyclic ? page % 4 : page / 65536);
      s.pages_touched.push_back({page, 2, static_cast<std::uint8_t>(page / 65536), home, 1});
    }
    EXPECT_LT(encode(s).size(), 1000u) << "cyclic: " << cyclic;
    std::erase_if(s.pages_touched, [](const PageSample& p) { return p.page % 4 != 2; });  // what one rank's segment has
    EXPECT_LT(encode(s).size(), 1000u) << "cyclic: " << cyclic;
  }
}

TEST(Snapshot, EveryTruncationIsMalformed) {
  const std::string whole = encode(some_snapshot());
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_FALSE(decode(std::string_view(whole).substr(0, size))) << size << " of " << whole.size() << " bytes";
  }
  EXPECT_FALSE(decode(whole + '\0'));
}

TEST(Snapshot, DamageIsRefusedOrHarmless) {
  Random random;
  SCOPED_TRACE(random.trace());
  const std::string whole = encode(some_snapshot());
  for (int round = 0; round < 20000; ++round) {
    std::string damaged = whole;
    for (unsigned i = 1 + random() % 3; i > 0; --i) damaged[random() % damaged.size()] = static_cast<char>(random());
    const auto back = decode(damaged);
    if (!back) continue;
    ASSERT_LE(back->pages_touched.size(), max_pages_touched);
    for (std::size_t i = 1; i < back->pages_touched.size(); ++i) {
      ASSERT_LT(back->pages_touched[i - 1].page, back->pages_touched[i].page);
    }
    for (const PageSample& page : back->pages_touched) ASSERT_TRUE(page.page < back->pages && page.state <= 3);
    for (const RankSample& rank : back->ranks) ASSERT_LE(rank.state, RankState::lost);
  }
}

TEST(Snapshot, ARunCannotPromiseMorePagesThanTheRegionHas) {
  Snapshot s;
  s.pages = 3;
  s.pages_touched = {{0, 1, 0, 0, 0}, {1, 1, 0, 0, 0}, {2, 1, 0, 0, 0}};
  ASSERT_TRUE(decode(encode(s)));
  s.pages = 2;
  EXPECT_FALSE(decode(encode(s)));
}

TEST(Snapshot, LongTextIsCut) {
  Snapshot s;
  s.program.assign(10'000, 'x');
  const auto back = decode(encode(s));
  ASSERT_TRUE(back);
  EXPECT_EQ(back->program.size(), max_text_bytes);
}

TEST(Merge, UnitesPagesAndReplacesRanks) {
  Snapshot into;
  into.job = "demo-17";
  into.ranks.resize(2);
  into.ranks[1].rank = 1;
  into.ranks[1].host = "b";
  into.ranks[1].pid = 5;
  into.pages_touched = {{0, 1, 0, 0, 0}, {4, 1, 0, 0, 0}};

  Snapshot part;
  part.protocol = "migrate";
  part.page_size = 4096;
  part.pages = 100;
  part.ranks.resize(2);
  part.ranks[0].rank = 1;
  part.ranks[0].grants = 9;
  part.ranks[1].rank = 7;
  part.ranks[1].pid = 70;
  part.pages_touched = {{1, 2, 1, 1, 3}, {4, 2, 1, 0, 1}, {9, 2, 1, 1, 1}};
  merge(into, part);

  EXPECT_EQ(into.job, "demo-17");
  EXPECT_EQ(into.protocol, "migrate");
  EXPECT_EQ(into.page_size, 4096u);
  EXPECT_EQ(into.pages, 100u);
  ASSERT_EQ(into.ranks.size(), 3u);
  EXPECT_EQ(into.ranks[1].host, "b");
  EXPECT_EQ(into.ranks[1].pid, 5);
  EXPECT_EQ(into.ranks[1].grants, 9u);
  EXPECT_EQ(into.ranks[2].rank, 7u);
  ASSERT_EQ(into.pages_touched.size(), 4u);
  EXPECT_EQ(into.pages_touched[1].page, 1u);
  EXPECT_EQ(into.pages_touched[2].page, 4u);
  EXPECT_EQ(into.pages_touched[2].state, 2);
}

}  // namespace
}  // namespace dsm::telemetry
