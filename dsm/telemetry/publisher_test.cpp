#include "dsm/telemetry/publisher.hpp"

#include <gtest/gtest.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <string>

#include "dsm/telemetry/sampler.hpp"

namespace dsm::telemetry {
namespace {

using State = core::View::State;

bool segment_exists(int id) {
  struct shmid_ds stat {};
  return ::shmctl(id, IPC_STAT, &stat) == 0;
}

TEST(Publisher, WhatIsStoredIsSampled) {
  Publisher publisher(2, 4, 4096, 1000, "migrate");
  ASSERT_GE(publisher.id(), 0) << publisher.why_not();
  Sampler sampler;
  ASSERT_EQ(sampler.attach(publisher.id(), 2), "");

  publisher.count(&Counters::read_faults);
  publisher.count(&Counters::bytes_out, 4096);
  publisher.access_changed(core::Access::none, core::Access::read);
  publisher.access_changed(core::Access::none, core::Access::read);
  publisher.access_changed(core::Access::read, core::Access::write);
  publisher.page(2, State::exclusive, 3);
  publisher.page(998, State::shared, 2);
  publisher.begin_wait(RankState::fault, 17);

  const Snapshot s = sampler.sample();
  EXPECT_EQ(s.protocol, "migrate");
  EXPECT_EQ(s.page_size, 4096u);
  EXPECT_EQ(s.pages, 1000u);
  ASSERT_EQ(s.ranks.size(), 1u);
  EXPECT_EQ(s.ranks[0].rank, 2u);
  EXPECT_EQ(s.ranks[0].pid, ::getpid());
  EXPECT_EQ(s.ranks[0].state, RankState::fault);
  EXPECT_EQ(s.ranks[0].on_page, 17u);
  EXPECT_EQ(s.ranks[0].read_faults, 1u);
  EXPECT_EQ(s.ranks[0].bytes_out, 4096u);
  EXPECT_EQ(s.ranks[0].owned, 1);
  EXPECT_EQ(s.ranks[0].copies, 1);
  ASSERT_EQ(s.pages_touched.size(), 2u);
  EXPECT_EQ(s.pages_touched[0].page, 2u);
  EXPECT_EQ(s.pages_touched[0].owner, 3);
  EXPECT_EQ(s.pages_touched[0].home, 2);
  EXPECT_EQ(s.pages_touched[0].moves, 1u);  // from its home, where it was zero-filled
  EXPECT_EQ(s.pages_touched[1].page, 998u);
  EXPECT_EQ(s.pages_touched[1].moves, 0u);
}

TEST(Publisher, AMoveIsAChangeOfTheOwnerBetweenStableStates) {
  Publisher publisher(1, 4, 4096, 8, "msi");
  const PageCell& cell = publisher.segment().cells()[3];
  publisher.page(3, State::moving, 0);
  EXPECT_EQ(cell.owner, 1) << "a page that was never granted is leaving its home";
  EXPECT_EQ(cell.moves, 0u);
  publisher.page(3, State::exclusive, 2);
  EXPECT_EQ(cell.moves, 1u);
  publisher.page(3, State::exclusive, 2);
  EXPECT_EQ(cell.moves, 1u);
  publisher.page(3, State::moving, 0);
  EXPECT_EQ(cell.owner, 2);
  publisher.page(3, State::exclusive, 3);
  EXPECT_EQ(cell.moves, 2u);
  publisher.page(3, State::shared, 1);
  EXPECT_EQ(cell.moves, 3u);
  publisher.page(8, State::exclusive, 0);  // beyond the region: ignored
  EXPECT_EQ(publisher.segment().cells_used, 4u);
}

// Of four ranks' pages in turn this one has no more cells than it needs.
TEST(Publisher, PagesInTurnHaveDenseCells) {
  Publisher publisher(1, 4, 4096, 8, "msi", 4);
  publisher.page(1, State::exclusive, 1);
  publisher.page(5, State::shared, 1);
  EXPECT_EQ(publisher.segment().cells_used, 2u);
  EXPECT_EQ(Segment::bytes(8, 4) - Segment::bytes(0, 4), 2 * sizeof(PageCell));
  Sampler sampler;
  ASSERT_EQ(sampler.attach(publisher.id(), 1), "");
  const Snapshot s = sampler.sample();
  ASSERT_EQ(s.pages_touched.size(), 2u);
  EXPECT_EQ(s.pages_touched[0].page, 1u);
  EXPECT_EQ(s.pages_touched[1].page, 5u);
  EXPECT_EQ(s.pages_touched[1].home, 1);
}

TEST(Publisher, ARankWaitsWhileAnyThreadWaits) {
  Publisher publisher(0, 1, 4096, 8, "msi");
  publisher.begin_wait(RankState::fault, 5);
  publisher.begin_wait(RankState::lock, 6);
  publisher.end_wait();
  EXPECT_EQ(publisher.segment().state, RankState::lock);
  publisher.end_wait();
  EXPECT_EQ(publisher.segment().state, RankState::running);
}

TEST(Publisher, TheSegmentGoesWithItsLastUser) {
  int id = -1;
  Sampler sampler;
  {
    Publisher publisher(0, 1, 4096, 8, "msi");
    id = publisher.id();
    EXPECT_TRUE(publisher.segment().magic == segment_magic);
    ASSERT_EQ(sampler.attach(id, 0), "");
    publisher.count(&Counters::grants, 3);
  }
  EXPECT_EQ(sampler.sample().ranks.at(0).grants, 3u) << "a dead rank's last words";
  sampler.detach(0);
  EXPECT_FALSE(segment_exists(id));
  EXPECT_NE(sampler.attach(id, 0), "");
}

TEST(Publisher, AForkedChildDoesNotKeepTheSegment) {
  auto publisher = std::make_unique<Publisher>(0u, 1u, 4096u, std::uint64_t{8}, "msi");
  const int id = publisher->id();
  int hold[2];
  ASSERT_EQ(::pipe(hold), 0);
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    ::close(hold[1]);
    char byte;
    (void)!::read(hold[0], &byte, 1);  // until the parent has looked
    ::_exit(0);
  }
  publisher.reset();
  EXPECT_FALSE(segment_exists(id));
  ::close(hold[0]);
  ::close(hold[1]);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
}

// A foreign segment made to look nearly right; `damage` makes it wrong.
std::string attach_damaged(void (*damage)(Segment&), std::uint64_t cells = 8) {
  auto raw = ipc::SysvSegment::create(Segment::bytes(cells, 1));
  raw.remove();
  auto& segment = *static_cast<Segment*>(raw.data());
  segment.magic = segment_magic;
  segment.rank = 1;
  segment.ranks = 2;
  segment.page_size = 4096;
  segment.pages = 8;
  segment.stride = 1;
  std::strcpy(segment.protocol, "msi");
  damage(segment);
  Sampler sampler;
  std::string why = sampler.attach(raw.id(), 1);
  (void)sampler.sample();
  return why;
}

TEST(Sampler, RefusesWhatDoesNotFit) {
  EXPECT_EQ(attach_damaged([](Segment&) {}), "");
  EXPECT_NE(attach_damaged([](Segment& s) { s.magic ^= 1; }), "");
  EXPECT_NE(attach_damaged([](Segment& s) { s.rank = 0; }), "");
  EXPECT_NE(attach_damaged([](Segment& s) { s.ranks = 1; }), "");
  EXPECT_NE(attach_damaged([](Segment& s) { s.page_size = 4095; }), "");
  EXPECT_NE(attach_damaged([](Segment& s) { s.page_size = 0; }), "");
  EXPECT_NE(attach_damaged([](Segment& s) { s.pages = 9; }), "");
  EXPECT_NE(attach_damaged([](Segment& s) { s.pages = UINT64_MAX; }), "");
  EXPECT_NE(attach_damaged([](Segment& s) { s.stride = 0; }), "");
  EXPECT_NE(attach_damaged([](Segment& s) { s.stride = 3; }), "") << "neither 1 nor the number of ranks";
  EXPECT_NE(attach_damaged([](Segment& s) { std::memset(s.protocol, 'x', sizeof s.protocol); }), "");
  EXPECT_NE(Sampler().attach(-1, 0), "");
  auto tiny = ipc::SysvSegment::create(8);
  tiny.remove();
  EXPECT_NE(Sampler().attach(tiny.id(), 0), "");
}

TEST(Sampler, ClipsWhatIsScribbledLater) {
  auto raw = ipc::SysvSegment::create(Segment::bytes(8, 1));
  raw.remove();
  auto& segment = *static_cast<Segment*>(raw.data());
  segment.magic = segment_magic;
  segment.ranks = 1;
  segment.page_size = 4096;
  segment.pages = 8;
  segment.stride = 1;
  Sampler sampler;
  ASSERT_EQ(sampler.attach(raw.id(), 0), "");
  std::memset(raw.data(), 0xff, Segment::bytes(8, 1));
  const Snapshot s = sampler.sample();
  EXPECT_EQ(s.pages, 8u);
  EXPECT_TRUE(s.pages_touched.empty()) << "there is no such state";
  EXPECT_EQ(s.ranks.at(0).state, RankState::lost);
  EXPECT_TRUE(decode(encode(s)));
}

}  // namespace
}  // namespace dsm::telemetry
