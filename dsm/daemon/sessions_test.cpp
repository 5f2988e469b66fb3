// Sessions as values: who is let in, who is refused with which words, who is lost in which phase.
#include "dsm/daemon/sessions_testing.hpp"

namespace dsm::daemon {
namespace {

using namespace std::chrono_literals;
using testing::expect_part;
using testing::Phase;
using Scene = testing::SessionsScene;

TEST(Sessions, RanksAreGivenInTheOrderOfComing) {
  Scene s;
  for (const GuestId guest : {11, 12, 13}) {
    const auto* place = std::get_if<net::Place>(&s.enters(guest)->what);
    ASSERT_NE(place, nullptr);
    EXPECT_EQ(place->rank, static_cast<int>(guest) - 11);
    EXPECT_EQ(place->nonce[0], 1) << "one for the session";
    EXPECT_EQ(place->patience_s, 600);
  }
}

TEST(Sessions, WhenAllHaveJoinedEachIsToldOfAll) {
  Scene s;
  for (const GuestId guest : {1, 2, 3}) s.enters(guest);
  for (const int rank : {2, 0}) s.joins(static_cast<GuestId>(rank + 1), rank);
  EXPECT_EQ(s.told_a<net::Welcome>(1), nullptr);
  EXPECT_TRUE(s.said.empty());
  s.joins(2, 1);
  for (const GuestId guest : {1, 2, 3}) {
    const auto* welcome = s.told_a<net::Welcome>(guest);
    ASSERT_NE(welcome, nullptr);
    ASSERT_EQ(welcome->peers.size(), 3u);
    EXPECT_EQ(welcome->peers[1].address, "10.0.0.7");
    EXPECT_EQ(welcome->peers[1].port, 1002);
    EXPECT_EQ(welcome->size, 1u << 30);
    EXPECT_EQ(welcome->page_size, 4096u);
    EXPECT_EQ(welcome->lanes, 4u);
    EXPECT_EQ(welcome->spin_us, 0u) << "three on two cores";
  }
  EXPECT_EQ(s.said, std::vector<std::string>{"session 'pi' has started"});
}

TEST(Sessions, SpinningIsForHostsWithCoresToSpare) {
  Scene s;
  auto enter = Scene::enter_for("pi", 2);
  enter.cores = 4;
  s.enters(1, enter);
  s.enters(2, enter);
  for (const GuestId guest : {1, 2}) s.joins(guest, static_cast<int>(guest) - 1);
  ASSERT_NE(s.told_a<net::Welcome>(1), nullptr);
  EXPECT_EQ(s.told_a<net::Welcome>(1)->spin_us, 50u);
}

TEST(Sessions, AGoodEndIsOneAndTheSessionIsForgotten) {
  Scene s;
  s.run(1, 3);
  s.finalize(1, 3);
  EXPECT_EQ(s.sessions.count(), 0u);
  EXPECT_EQ(s.said.back(), "session 'pi' has ended well");
  for (const GuestId guest : {1, 2, 3}) EXPECT_EQ(s.verdict(guest), "no verdict");
  EXPECT_FALSE(s.sessions.take_losses());
  EXPECT_EQ(s.sessions.next_deadline(), Time::max());
}

TEST(Sessions, AMemberThatGoesBeforeTheStartGivesItsPlaceBack) {
  Scene s;
  s.enters(1);
  s.enters(2);
  s.joins(2, 1);
  s.sessions.gone(1);
  const auto* place = std::get_if<net::Place>(&s.enters(3)->what);
  ASSERT_NE(place, nullptr);
  EXPECT_EQ(place->rank, 0);
  s.joins(3, 0);
  s.enters(4);
  s.joins(4, 2);
  ASSERT_NE(s.told_a<net::Welcome>(4), nullptr);
  EXPECT_EQ(s.told_a<net::Welcome>(4)->peers[0].port, 1003);
}

TEST(Sessions, ThatAllHaveLeftBeforeTheStartLeavesNothing) {
  Scene s;
  s.enters(1);
  s.sessions.gone(1);
  EXPECT_EQ(s.sessions.count(), 0u);
  EXPECT_TRUE(s.said.empty());
  EXPECT_TRUE(std::holds_alternative<net::Place>(s.enters(2, "pi", 2)->what)) << "with another number of members, too";
}

TEST(Sessions, OneThatWasToldAnotherNumberIsRefusedAndTheOthersGoOn) {
  Scene s;
  s.enters(1, "pi", 3);
  s.enters(2, "pi", 4);
  expect_part(s.refusal(2), "it has 3 members, as the first of them said, and this program was told 4");
  s.enters(3, "pi", 3);
  s.enters(4, "pi", 3);
  EXPECT_NE(s.told_a<net::Place>(4), nullptr);
}

TEST(Sessions, ASurplusOneAndALateOneAreRefusedAndTheOthersGoOn) {
  Scene s;
  for (const GuestId guest : {1, 2, 3}) s.enters(guest);
  s.enters(4);
  EXPECT_EQ(s.refusal(4), "its 3 members have come already; wait until it is over, or choose another name");
  for (const GuestId guest : {1, 2, 3}) s.joins(guest, static_cast<int>(guest) - 1);
  s.enters(5);
  EXPECT_EQ(s.refusal(5),
            "its 3 members have come already, and it runs; wait until it is over, or choose another name");
  for (const GuestId guest : {1, 2, 3}) s.reports(guest, Phase::running);
  s.finalize(1, 3);
  EXPECT_EQ(s.said.back(), "session 'pi' has ended well");
}

TEST(Sessions, AnotherVersionOrPlatformIsRefusedByName) {
  Scene s;
  auto enter = Scene::enter_for("pi", 3);
  enter.platform.version += 1;
  s.enters(1, enter);
  expect_part(s.refusal(1), "speaks version " + std::to_string(enter.platform.version) +
                                " of the protocol, and this dsmd " + std::to_string(enter.platform.version - 1) +
                                "; build both from the same sources");
  EXPECT_EQ(s.sessions.count(), 0u);
  s.enters(2);
  enter = Scene::enter_for("pi", 3);
  enter.platform.architecture = "pdp11";
  s.enters(3, enter);
  expect_part(s.refusal(3), "its architecture is pdp11, that of its first member is ");
  enter = Scene::enter_for("large", 2);
  enter.platform.page_size = 65536;
  s.enters(4, enter);
  expect_part(s.refusal(4),
              "its page size is 65536, and this dsmd's sessions have 4096; start dsmd with --page-size 64K");
  s.enters(5, "many", 65);
  expect_part(s.refusal(5), "at most 64 members");
}

TEST(Sessions, WhoComesByLoopbackAndWhoComesFromElsewhereCouldNotReachEachOther) {
  Scene s;
  s.enters(1, Scene::enter_for("pi", 2), "127.0.0.1");
  s.enters(2, Scene::enter_for("pi", 2), "10.0.0.8");
  expect_part(s.refusal(2), "this program comes from 10.0.0.8, and another member from 127.0.0.1");
  s.enters(3, Scene::enter_for("pi", 2), "127.0.0.1");
  EXPECT_NE(s.told_a<net::Place>(3), nullptr);
}

TEST(Sessions, ASessionThatIsNotCompleteInTimeIsGivenUp) {
  Scene s;
  s.enters(1);
  s.joins(1, 0);
  s.after(599s);
  s.enters(2);
  s.joins(2, 1);
  EXPECT_EQ(s.sessions.next_deadline(), s.now + 1s);
  s.after(1s);
  for (const GuestId guest : {1, 2}) {
    EXPECT_EQ(s.refusal(guest), "only 2 of its 3 members have come within 600 s; start all of them anew");
  }
  EXPECT_EQ(s.said.back(),
            "session 'pi' is over: only 2 of its 3 members have come within 600 s; start all of them anew");
  EXPECT_EQ(s.sessions.count(), 0u);
}

TEST(Sessions, OneThatDoesNotOpenItsPartOfTheMeshGivesItsPlaceBack) {
  Scene s;
  s.enters(1);
  s.enters(2);
  s.joins(2, 1);
  s.after(30s);
  expect_part(s.refusal(1), "did not open its part of the mesh within 30 s");
  EXPECT_EQ(s.told_a<net::Refusal>(2), nullptr);
  const auto* place = std::get_if<net::Place>(&s.enters(3)->what);
  ASSERT_NE(place, nullptr);
  EXPECT_EQ(place->rank, 0);
}

// Guests 1, 2, 3; 2 (rank 1) is lost.
void expect_lost(Scene& s, const std::string& when) {
  const std::string line = "session 'pi' is over: rank 1 (10.0.0.7, pid 4711) was lost " + when +
                           ": its process has ended, or its host is silent";
  for (const GuestId guest : {1, 3}) EXPECT_EQ(s.verdict(guest), line);
  EXPECT_EQ(s.verdict(2), "no verdict");
  EXPECT_EQ(s.said.back(), line);
  EXPECT_EQ(s.sessions.count(), 0u);
  EXPECT_TRUE(s.sessions.take_losses());
}

TEST(Sessions, AMemberLostAtTheStartIsNamed) {
  Scene s;
  s.gather(1, 3);
  s.reports(1, Phase::running);
  s.reports(3, Phase::lost_peer, 1);
  s.sessions.gone(2);
  expect_lost(s, "in dsm_init");
}

TEST(Sessions, AMemberLostWhileItRunsIsNamed) {
  Scene s;
  s.run(1, 3);
  s.sessions.gone(2);
  expect_lost(s, "before dsm_finalize");
}

TEST(Sessions, AMemberLostInFinalizeIsNamedAndThoseWhoAreOutAreNotTold) {
  Scene s;
  s.run(1, 3);
  s.reports(1, Phase::finalized);
  s.sessions.gone(2);
  EXPECT_EQ(s.verdict(1), "no verdict");
  expect_part(s.verdict(3), "rank 1 (10.0.0.7, pid 4711) was lost in dsm_finalize");
  EXPECT_EQ(s.sessions.count(), 0u);
}

TEST(Sessions, TheNameIsFreeAtOnceAfterALoss) {
  Scene s;
  s.run(1, 3);
  s.sessions.gone(2);
  for (const GuestId guest : {4, 5, 6}) EXPECT_TRUE(std::holds_alternative<net::Place>(s.enters(guest)->what));
  EXPECT_EQ(s.told_a<net::Place>(6)->nonce[0], 2) << "another session";
}

TEST(Sessions, TheNameIsFreeOnceAllHaveReachedTheEndThoughSomeAreStillLeaving) {
  Scene s;
  s.run(1, 3);
  s.reports(2, Phase::finalized);
  EXPECT_TRUE(std::holds_alternative<net::Place>(s.enters(4)->what));
  EXPECT_EQ(s.sessions.count(), 2u);
  s.reports(1, Phase::finalized);
  s.reports(3, Phase::finalized);
  for (const GuestId guest : {1, 2, 3}) s.sessions.gone(guest);
  EXPECT_EQ(s.said.back(), "session 'pi' has ended well");
  EXPECT_EQ(s.sessions.count(), 1u);
}

TEST(Sessions, TwoThatLoseEachOtherAreNamedIfNothingElseExplainsItInTime) {
  Scene s;
  s.run(1, 3);
  s.reports(1, Phase::lost_peer, 1);
  s.after(1999ms);
  EXPECT_EQ(s.verdict(3), "no verdict");
  s.after(1ms);
  for (const GuestId guest : {1, 2, 3}) {
    EXPECT_EQ(s.verdict(guest),
              "session 'pi' is over: rank 0 (10.0.0.7, pid 4711) and rank 1 (10.0.0.7, pid 4711) lost the connection "
              "between them");
  }
}

TEST(Sessions, OneThatGoesBecauseItLostAnotherIsNotTheOneToBlame) {
  Scene s;
  s.gather(1, 3);
  s.reports(1, Phase::lost_peer, 1);
  s.sessions.gone(1);
  expect_part(s.verdict(3), "rank 0 (10.0.0.7, pid 4711) and rank 1 (10.0.0.7, pid 4711) lost the connection");
}

TEST(Sessions, WhoBreaksTheProtocolIsNamed) {
  Scene s;
  s.run(1, 3);
  s.reports(3, Phase::bad_peer, 0);
  s.after(2s);
  expect_part(s.verdict(2), "rank 0 (10.0.0.7, pid 4711) was lost: it broke the protocol, says rank 2");
}

TEST(Sessions, SenselessReportsDoNoHarm) {
  Scene s;
  s.run(1, 3);
  for (const int rank : {-1, 0, 3, 1 << 30}) s.reports(1, Phase::lost_peer, rank);
  s.reports(99, Phase::lost_peer, 0);
  s.sessions.gone(99);
  s.joins(99, 0);
  s.after(1h);
  EXPECT_EQ(s.sessions.count(), 1u);
  s.finalize(1, 3);
  EXPECT_EQ(s.said.back(), "session 'pi' has ended well");
}

TEST(Sessions, WhoSaysWhatNoMemberSaysIsDismissed) {
  Scene s;
  s.enters(1);
  s.reports(1, Phase::running);
  expect_part(s.refusal(1), "it sent a report before the session had started");
  s.enters(2);
  s.joins(2, 1);
  expect_part(s.refusal(2), "it sent a Join that cannot be");
  EXPECT_EQ(s.sessions.count(), 0u);
  s.run(3, 3);
  s.joins(4, 1);
  expect_part(s.verdict(3), "rank 1 (10.0.0.7, pid 4711) was lost before dsm_finalize: it sent a Join that cannot be");
  expect_part(s.verdict(4), "it sent a Join that cannot be");
}

TEST(Sessions, TheMeshAndFinalizeHaveTheirDeadlines) {
  Scene s;
  s.gather(1, 3);
  s.reports(1, Phase::running);
  s.reports(3, Phase::running);
  EXPECT_EQ(s.sessions.next_deadline(), s.now + 60s);
  s.after(60s);
  expect_part(s.verdict(1), "rank 1 (10.0.0.7, pid 4711) has not connected to the others within 60 s (dsm_init)");
  s.run(4, 3);
  s.reports(4, Phase::finalized);
  s.reports(6, Phase::finalized);
  s.after(60s);
  expect_part(s.verdict(5), "rank 1 (10.0.0.7, pid 4711) did not come out of dsm_finalize within 60 s of the first");
  EXPECT_EQ(s.verdict(4), "no verdict");
  EXPECT_EQ(s.sessions.count(), 0u);
}

TEST(Sessions, TheEndOfDsmdIsToldToAll) {
  Scene s;
  s.enters(1, "waits");
  s.run(2, 2, "runs");
  s.sessions.give_up("dsmd was ended by SIGTERM");
  EXPECT_EQ(s.refusal(1), "dsmd was ended by SIGTERM");
  for (const GuestId guest : {2, 3}) EXPECT_EQ(s.verdict(guest), "session 'runs' is over: dsmd was ended by SIGTERM");
  EXPECT_EQ(s.said.back(), "session 'runs' is over: dsmd was ended by SIGTERM");
  EXPECT_EQ(s.sessions.count(), 0u);
}

TEST(Sessions, ManyAtOnceDoNotTouchEachOther) {
  Scene s;
  for (GuestId session = 0; session < 10; ++session) s.run(100 * session, 3, "s" + std::to_string(session));
  EXPECT_EQ(s.sessions.count(), 10u);
  s.sessions.gone(501);
  EXPECT_EQ(s.sessions.count(), 9u);
  for (GuestId session = 0; session < 10; ++session) {
    for (GuestId rank = 0; rank < 3; ++rank) {
      EXPECT_EQ(s.verdict(100 * session + rank) != "no verdict", session == 5 && rank != 1);
    }
  }
}

}  // namespace
}  // namespace dsm::daemon
