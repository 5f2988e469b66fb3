// dsmd --once: one session, and what is said of it in the end.
#include "dsm/daemon/sessions_testing.hpp"

namespace dsm::daemon {
namespace {

using namespace std::chrono_literals;
using testing::expect_part;
using testing::Phase;
using Scene = testing::SessionsScene;

TEST(Once, ServesOneSessionOfSoManyMembers) {
  Scene s(2);
  s.enters(1, "pi", 3);
  expect_part(s.refusal(1), "serves a session of 2 members (--nproc), and this program was told 3");
  s.enters(2, "pi", 2);
  s.enters(3, "other", 2);
  expect_part(s.refusal(3), "this dsmd serves one session only (--once), and has it already");
  s.joins(2, 0);
  s.enters(4, "pi", 2);
  s.joins(4, 1);
  for (const GuestId guest : {2, 4}) s.reports(guest, Phase::running);
  EXPECT_FALSE(s.sessions.served());
  for (const GuestId guest : {2, 4}) s.reports(guest, Phase::finalized);
  s.enters(5, "pi", 2);
  expect_part(s.refusal(5), "its 2 members have come already");
  for (const GuestId guest : {2, 4}) s.sessions.gone(guest);
  EXPECT_TRUE(s.sessions.served());
  EXPECT_TRUE(s.sessions.served_well());
  s.enters(6, "pi", 2);
  expect_part(s.refusal(6), "this dsmd serves one session only (--once)");
}

TEST(Once, ASessionThatIsGivenUpIsServedBadly) {
  Scene s(2);
  s.enters(1, "pi", 2);
  s.joins(1, 0);
  s.after(600s);
  EXPECT_TRUE(s.sessions.served());
  EXPECT_FALSE(s.sessions.served_well());
}

TEST(Once, ASessionThatFailsIsServedBadly) {
  Scene s(2);
  s.enters(9, "gave-up", 2);
  s.sessions.gone(9);
  EXPECT_FALSE(s.sessions.served()) << "nobody had begun";
  s.run(1, 2);
  s.sessions.gone(1);
  EXPECT_TRUE(s.sessions.served());
  EXPECT_FALSE(s.sessions.served_well());
}

}  // namespace
}  // namespace dsm::daemon
