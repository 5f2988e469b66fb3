// Strangers at every port of a real job, from before its first rank connects to after its last has ended.
#include <gtest/gtest.h>

#include "dsm/tests/strangers_job.hpp"

namespace dsm::launch::testing {
namespace {

// Without the key nobody gets so far that these lines of -v are about him.
void expect_nobody_let_in(const std::string& log) {
  for (const char* line : {"knows the key but did not join", "said something else than join",
                           "refused: ", "has joined already", "sent what is no report"})
    EXPECT_EQ(count(log, line), 0u) << line;
  EXPECT_EQ(count(log, ") has joined from 127.0.0.1"), 4u);
  EXPECT_EQ(count(log, "all ranks have joined"), 1u);
}

TEST(Strangers, AtEveryPortFromBeforeTheFirstRankToAfterTheLastDoNoHarm) {
  make_room_for_strangers();
  Strangers strangers(handshake_of_another_job());
  const Besieged job = run_besieged({"dsm_stress", "rmw", "--rounds", "4000"}, &strangers);
  EXPECT_EQ(job.end.code(), 0) << job.end.err.substr(0, 2000);
  EXPECT_TRUE(has_line(job.end.out, {"rmw: 4 ranks added "})) << text(job.end).substr(0, 2000);
  expect_nobody_let_in(job.end.err);
  EXPECT_GE(count(job.end.err, ": the peer does not have this job's key"), 4u);
  EXPECT_GE(count(job.end.err, ": wrong first bytes"), 2u);

  std::set<std::uint16_t> ports = job.ranks;
  ports.insert(job.rendezvous);
  ASSERT_EQ(ports.size(), 5u);
  for (const std::uint16_t port : ports) {
    // They were there until nobody listened any more.
    EXPECT_TRUE(wait_until([&] { return strangers.gone(port); })) << port;
    for (std::size_t i = 0; i < kinds; ++i) {
      const auto kind = static_cast<Kind>(i);
      Met met;
      EXPECT_TRUE(wait_until([&] {
        met = strangers.met(port, kind);
        return met.turned_away == met.came;
      })) << port
          << " " << name_of(kind);
      EXPECT_GT(met.came, 0u) << port << " " << name_of(kind);
      EXPECT_EQ(met.let_in, 0u) << port << " " << name_of(kind);
      EXPECT_EQ(met.proofs > 0, proves(kind)) << port << " " << name_of(kind);
    }
  }
  std::printf("started in %.2f s, worked %.2f s\n%s", job.start_s, job.work_s, strangers.table().c_str());
}

}  // namespace
}  // namespace dsm::launch::testing
