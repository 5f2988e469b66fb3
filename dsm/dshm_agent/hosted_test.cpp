// Hosts and their processes at random: no page is written in one place and touched in another, no increment is lost,
// and all come to an end. HOSTED_SEED=N begins with that seed.
#include "dsm/dshm_agent/hosted.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "dsm/dshm_agent/hosted_world.hpp"

namespace dsm::dshm_agent {
namespace {

using testing::Host;
using testing::World;

constexpr std::size_t steps_max = 200'000;

std::uint64_t first_seed() {
  const char* const text = std::getenv("HOSTED_SEED");
  return text == nullptr ? 1 : std::stoull(text);
}

enum class Kinds { uffd, orders, mixed };

bool has_uffd(World& world, Kinds kinds) {
  return kinds == Kinds::uffd || (kinds == Kinds::mixed && world.random() % 2 == 0);
}

void populate(World& world, Kinds kinds, std::size_t processes, int instructions) {
  for (auto& host : world.hosts) {
    for (ProcessNumber number = 1; number <= processes; ++number) {
      host->start(number, has_uffd(world, kinds), 2, instructions);
    }
  }
}

void walk(std::uint64_t seed, Kinds kinds) {
  SCOPED_TRACE("HOSTED_SEED=" + std::to_string(seed));
  World world(seed, 2 + seed % 3, static_cast<Page>(1 + seed % 4), 20);
  populate(world, kinds, 2, 30);
  ASSERT_TRUE(world.finish(steps_max)) << world.failure;
  ASSERT_EQ(world.failure, "");
  ASSERT_EQ(world.total(), world.added);
}

TEST(Hosted, CountsExactlyWhatever) {
  for (std::uint64_t seed = first_seed(); seed < first_seed() + 150; ++seed) {
    for (const Kinds kinds : {Kinds::uffd, Kinds::orders, Kinds::mixed}) {
      walk(seed, kinds);
      if (HasFatalFailure()) return;
    }
  }
}

// Processes are killed with orders unanswered, others come, some are stopped for a while.
TEST(Hosted, GoesOnWithoutThoseWhoEnd) {
  for (std::uint64_t seed = first_seed(); seed < first_seed() + 150; ++seed) {
    SCOPED_TRACE("HOSTED_SEED=" + std::to_string(seed));
    World world(seed, 3, 3, 20);
    populate(world, Kinds::mixed, 3, 60);
    ProcessNumber next = 4;
    for (int i = 0; i < 1500 && world.failure.empty(); ++i) {
      world.step();
      if (world.random() % 50 != 0) continue;
      Host& host = *world.hosts[world.random() % world.hosts.size()];
      auto victim = host.processes.begin();
      if (victim == host.processes.end()) continue;
      std::advance(victim, static_cast<std::ptrdiff_t>(world.random() % host.processes.size()));
      if (world.random() % 2 == 0) {
        victim->second.stopped = !victim->second.stopped;
      } else {
        host.kill(victim->first);
        host.start(next++, has_uffd(world, Kinds::mixed), 1, 40);
      }
    }
    ASSERT_TRUE(world.finish(steps_max)) << world.failure;
    ASSERT_EQ(world.failure, "");
    ASSERT_EQ(world.total(), world.added);
  }
}

// More threads than the core knows places for.
TEST(Hosted, LetsFaultsQueueUp) {
  World world(first_seed(), 2, 2, 20);
  for (auto& host : world.hosts) {
    host->start(1, true, 300, 3);
    host->start(2, false, 300, 3);
  }
  ASSERT_TRUE(world.finish(4 * steps_max)) << world.failure;
  ASSERT_EQ(world.total(), world.added);
}

// A process that is stopped holds its page, and only that: the other pages of the segment go on.
TEST(Hosted, ParksOnePageOnly) {
  World world(first_seed(), 2, 2, 0);
  Host& here = *world.hosts[0];
  here.start(1, false, 2, 1000);
  auto& process = here.processes.at(1);
  process.threads[0] = {.page = 0, .left = 1, .writes = true};
  process.threads[1] = {.page = 1, .left = 1, .writes = true};
  ASSERT_TRUE(world.finish(steps_max)) << world.failure;
  process.stopped = true;

  Host& there = *world.hosts[1];
  there.start(1, true, 1, 1000);
  auto& thread = there.processes.at(1).threads[0];
  thread = {.page = 0, .left = 1, .writes = true};
  for (int i = 0; i < 1000; ++i) world.step();
  EXPECT_TRUE(thread.waits);
  EXPECT_EQ(here.processes.at(1).rights[0], Access::write);

  here.start(2, true, 1, 0);  // another process of the same host, with the other page
  here.processes.at(2).threads[0] = {.page = 1, .left = 1, .writes = true};
  for (int i = 0; i < 1000; ++i) world.step();
  EXPECT_EQ(here.processes.at(2).threads[0].left, 0);
  EXPECT_TRUE(thread.waits);

  ASSERT_TRUE(world.finish(steps_max)) << world.failure;
  EXPECT_EQ(world.total(), world.added);
}

// A grant and the invalidation behind it, both while the page is parked: each is carried out in its turn, and the
// second lowering waits for an answer of its own.
TEST(Hosted, ParksAgainWhatIsLoweredTwice) {
  World world(first_seed(), 1, 1, 0);
  Host& host = *world.hosts[0];
  using Kind = core::Message::Kind;
  const PageBytes page(sysv::page_bytes, 7);
  const auto grant = [&](core::Seq seq) {
    const core::Message message{.kind = Kind::grant, .access = Access::read, .carries_page = true, .seq = seq};
    EXPECT_TRUE(host.hosted.received(message, page, 1));
  };
  const auto invalidate = [&](core::Seq seq) {
    EXPECT_TRUE(host.hosted.received({.kind = Kind::invalidate, .seq = seq}, {}, 1));
  };
  host.start(1, false, 1, 10);
  host.hosted.fault({.process = 1}, 0, Access::read, 1, 1);
  grant(1);
  host.obey(1);
  invalidate(1);
  host.hosted.fault({.process = 1}, 0, Access::read, 1, 1);
  grant(2);
  invalidate(2);
  EXPECT_EQ(host.to_home.size(), 1U) << "the first want, and nothing while the page is parked";
  host.obey(1);
  host.acknowledge(1);
  ASSERT_EQ(host.to_home.size(), 3U) << "the answer, and the second want";
  EXPECT_EQ(host.to_home[1].message.kind, Kind::invalidated);
  EXPECT_EQ(host.to_home[2].message.kind, Kind::want);
  host.obey(1);
  EXPECT_EQ(host.processes.at(1).rights[0], Access::read) << "it has its turn with the second grant";
  host.obey(1);
  EXPECT_EQ(host.to_home.size(), 3U);
  host.acknowledge(1);
  ASSERT_EQ(host.to_home.size(), 4U);
  EXPECT_EQ(host.to_home[3].message.kind, Kind::invalidated);
  EXPECT_EQ(world.failure, "");
}

// A process that says again and again that it waits is told that it cannot have so many threads; another one goes on.
TEST(Hosted, TakesNoMoreFaultsThanAProcessCanHaveThreads) {
  World world(first_seed(), 1, 1, 0);
  Hosted& hosted = world.hosts[0]->hosted;
  hosted.join(1, false);
  hosted.join(2, false);
  for (std::size_t i = 0; i < waits_max; ++i) ASSERT_TRUE(hosted.fault({.process = 1}, 0, Access::read, 1, 1));
  EXPECT_FALSE(hosted.fault({.process = 1}, 0, Access::read, 1, 1));
  EXPECT_TRUE(hosted.fault({.process = 2}, 0, Access::read, 1, 1));
  hosted.leave(1, 1);
  EXPECT_LT(hosted.touchers().size(), waits_max) << "who has left waits for nothing";
}

// What the home may not say changes nothing, and is told.
TEST(Hosted, RefusesAStrangeHome) {
  World world(first_seed(), 1, 1, 0);
  Hosted& hosted = world.hosts[0]->hosted;
  const PageBytes page(sysv::page_bytes);
  core::Message grant{.kind = core::Message::Kind::grant, .access = Access::write, .carries_page = true, .seq = 1};
  EXPECT_FALSE(hosted.received(grant, page, 1));
  EXPECT_EQ(hosted.allowed(0), Access::none);
}

}  // namespace
}  // namespace dsm::dshm_agent
