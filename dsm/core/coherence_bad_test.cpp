// What a peer may not say. In each situation a legal message is about to arrive; one field of it is changed at a time, and
// the few changes that make another legal message are listed. All others end the job: one Abort, and the state as before.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "dsm/core/explorer_talk.hpp"
#include "dsm/core/explorer_text.hpp"

namespace {

using dsm::core::Abort;
using dsm::core::Access;
using dsm::core::Action;
using dsm::core::Actions;
using dsm::core::Coherence;
using dsm::core::Message;
using dsm::core::Node;
using dsm::core::Page;
using dsm::core::Protocol;
using dsm::core::Received;
using dsm::core::Seq;
using dsm::core::explorer::Talk;
using Kind = Message::Kind;

constexpr Access none = Access::none, read = Access::read, write = Access::write;

struct Arrival {
  Node from;
  Message msg;
};

// True if the node ends the job over it. An Abort stands alone, blames the sender, and changes nothing.
bool refuses(const Coherence& node, const Arrival& arrival) {
  Coherence copy = node;
  Actions out;
  copy.step(Received{.from = arrival.from, .lane = 1, .msg = arrival.msg, .now = 1000}, out);
  bool aborted = false;
  for (const Action& action : out) aborted = aborted || std::holds_alternative<Abort>(action);
  if (!aborted) return false;
  const std::string said = dsm::core::explorer::text(arrival.msg);
  EXPECT_EQ(out.size(), 1U) << said;
  const auto& abort = std::get<Abort>(out[0]);
  EXPECT_EQ(abort.why, Abort::Why::bad_message) << said;
  EXPECT_EQ(abort.who, arrival.from) << said;
  EXPECT_EQ(copy.digest(), node.digest()) << said;
  return true;
}

std::vector<Arrival> one_field_changed(const Arrival& good) {
  std::vector<Arrival> out;
  const auto change = [&](auto&& edit) {
    Arrival changed = good;
    edit(changed);
    if (changed.from != good.from || !(changed.msg == good.msg)) out.push_back(changed);
  };
  for (const Node from : {Node{0}, Node{1}, Node{2}, Node{3}, Node{255}}) change([=](Arrival& a) { a.from = from; });
  for (unsigned kind = 0; kind <= 11; ++kind) change([=](Arrival& a) { a.msg.kind = static_cast<Kind>(kind); });
  for (unsigned access = 0; access <= 4; ++access)
    change([=](Arrival& a) { a.msg.access = static_cast<Access>(access); });
  for (const Page page : {Page{0}, Page{1}, Page{2}, Page{3}, Page{4}, ~Page{0}})
    change([=](Arrival& a) { a.msg.page = page; });
  for (const int by : {-2, -1, 1, 2, 1000, -1000}) change([=](Arrival& a) { a.msg.seq += static_cast<Seq>(by); });
  change([](Arrival& a) { a.msg.carries_page = !a.msg.carries_page; });
  change([](Arrival& a) { a.msg.have = !a.msg.have; });
  change([](Arrival& a) { a.msg.prefetch = !a.msg.prefetch; });
  return out;
}

// What else the node would have taken, one a line.
std::string also_taken(const Coherence& node, const Arrival& good) {
  EXPECT_FALSE(refuses(node, good)) << dsm::core::explorer::text(good.msg);
  std::string taken;
  for (const Arrival& changed : one_field_changed(good)) {
    if (refuses(node, changed)) continue;
    taken += dsm::core::explorer::text(changed.msg) + " from " + std::to_string(changed.from) + "\n";
  }
  return taken;
}

Talk settled(Protocol protocol, Node node, Access access) {
  Talk talk(3, protocol);
  talk.fault(node, 0, access);
  talk.settle();
  return talk;
}

// Another node, another page that lives here, a prefetch, a copy that has been invalidated meanwhile: all may be.
TEST(CoherenceBad, Want) {
  Talk talk(3, Protocol::msi);
  EXPECT_EQ(also_taken(talk.core(0), {1, {.kind = Kind::want, .access = write, .page = 0}}), R"(want write p0 from 2
want read p0 from 1
want write p3 from 1
want write p0 have from 1
)");
  EXPECT_EQ(also_taken(talk.core(0), {1, {.kind = Kind::want, .access = read, .page = 0}}), R"(want read p0 from 2
want write p0 from 1
want read p3 from 1
want read p0 prefetch from 1
)");
}

// How many exclusive grants there have been only the home knows; that the number does not go back is checked.
// Who has had no grant cannot know that a number is an old one: it can be any.
TEST(CoherenceBad, Grant) {
  Talk talk(3, Protocol::msi);
  talk.fault(1, 0, write);
  const Message good{.kind = Kind::grant, .access = write, .carries_page = true, .page = 0, .seq = 2};
  EXPECT_EQ(also_taken(talk.core(1), {0, good}), R"(grant write p0 #1 +page from 0
grant write p0 #3 +page from 0
grant write p0 #4 +page from 0
grant write p0 #1002 +page from 0
grant write p0 #4294966298 +page from 0
)");
  Talk upgrader = settled(Protocol::msi, 1, read);
  upgrader.fault(1, 0, write);
  const Message upgrade{.kind = Kind::grant, .access = write, .page = 0, .seq = 2};
  EXPECT_EQ(also_taken(upgrader.core(1), {0, upgrade}), R"(grant write p0 #3 from 0
grant write p0 #4 from 0
grant write p0 #1002 from 0
grant write p0 #2 +page from 0
)");
}

TEST(CoherenceBad, GrantThatNobodyWanted) {
  for (const Protocol protocol : {Protocol::migrate, Protocol::msi}) {
    const Talk quiet(3, protocol);
    for (const Access access : {read, write}) {
      for (const Seq seq : {0U, 1U, 2U}) {
        const Message grant{.kind = Kind::grant, .access = access, .carries_page = true, .page = 0, .seq = seq};
        EXPECT_TRUE(refuses(quiet.core(1), {0, grant}));
      }
    }
  }
}

// A recall of an older grant has crossed a write-back: it gets an empty answer.
TEST(CoherenceBad, Recall) {
  Talk talk = settled(Protocol::msi, 1, write);
  EXPECT_EQ(also_taken(talk.core(1), {0, {.kind = Kind::recall, .access = none, .page = 0, .seq = 2}}),
            R"(recall read p0 #2 from 0
recall none p0 #0 from 0
recall none p0 #1 from 0
recall none p0 #4294966298 from 0
)");
}

// The owner may have written the page back before the recall came: then its answer is empty.
TEST(CoherenceBad, Recalled) {
  Talk talk = settled(Protocol::msi, 1, write);
  talk.fault(2, 0, write);
  talk.arrive(2, 0);
  const Message good{.kind = Kind::recalled, .carries_page = true, .page = 0, .seq = 2};
  EXPECT_EQ(also_taken(talk.core(0), {1, good}), R"(write_back p0 #2 +page from 1
recalled none p0 #2 from 1
)");
}

// Copies are dropped in silence, so an invalidation of one that has gone is answered.
TEST(CoherenceBad, Invalidate) {
  Talk talk = settled(Protocol::msi, 1, read);
  EXPECT_EQ(also_taken(talk.core(1), {0, {.kind = Kind::invalidate, .page = 0, .seq = 1}}), R"(recall none p0 #1 from 0
invalidate p0 #4294967295 from 0
invalidate p0 #0 from 0
invalidate p0 #4294966297 from 0
)");
}

TEST(CoherenceBad, Invalidated) {
  Talk talk = settled(Protocol::msi, 1, read);
  talk.fault(2, 0, write);
  talk.arrive(2, 0);
  const Message good{.kind = Kind::invalidated, .page = 0, .seq = 1};
  EXPECT_EQ(also_taken(talk.core(0), {1, good}), "recalled none p0 #1 from 1\n");
}

TEST(CoherenceBad, WriteBack) {
  Talk talk = settled(Protocol::msi, 1, write);
  EXPECT_EQ(also_taken(talk.core(0), {1, {.kind = Kind::write_back, .carries_page = true, .page = 0, .seq = 2}}), "");
}

TEST(CoherenceBad, Migrate) {
  Talk fresh(3, Protocol::migrate);
  EXPECT_EQ(also_taken(fresh.core(0), {1, {.kind = Kind::want, .access = write, .page = 0}}),
            "want write p0 from 2\nwant write p3 from 1\n");
  Talk talk = settled(Protocol::migrate, 1, write);
  EXPECT_EQ(also_taken(talk.core(1), {0, {.kind = Kind::recall, .page = 0, .seq = 2}}), R"(recall none p0 #0 from 0
recall none p0 #1 from 0
recall none p0 #4294966298 from 0
)");
  EXPECT_EQ(also_taken(talk.core(0), {1, {.kind = Kind::write_back, .carries_page = true, .page = 0, .seq = 2}}), "");
  talk.fault(2, 0, write);
  talk.arrive(2, 0);
  const Message good{.kind = Kind::recalled, .carries_page = true, .page = 0, .seq = 2};
  EXPECT_EQ(also_taken(talk.core(0), {1, good}), "write_back p0 #2 +page from 1\nrecalled none p0 #2 from 1\n");
}

// Every message of a conversation, said once more than it may be.
TEST(CoherenceBad, SaidTwice) {
  for (const Protocol protocol : {Protocol::migrate, Protocol::msi}) {
    Talk talk = settled(protocol, 1, write);
    talk.fault(2, 0, write);
    talk.arrive(2, 0);
    const Message want{.kind = Kind::want, .access = write, .page = 0};
    const Message recalled{.kind = Kind::recalled, .carries_page = true, .page = 0, .seq = 2};
    const Message granted{.kind = Kind::grant, .access = write, .carries_page = true, .page = 0, .seq = 3};
    EXPECT_TRUE(refuses(talk.core(0), {2, want}));
    talk.arrive(0, 1);
    talk.arrive(1, 0);
    EXPECT_TRUE(refuses(talk.core(0), {1, recalled}));
    talk.arrive(0, 2);
    EXPECT_TRUE(refuses(talk.core(2), {0, granted}));
    talk.write_back(2, 0);
    talk.settle();
    EXPECT_TRUE(refuses(talk.core(0), {2, {.kind = Kind::write_back, .carries_page = true, .page = 0, .seq = 3}}));
  }
  Talk talk = settled(Protocol::msi, 1, read);
  talk.fault(2, 0, write);
  talk.settle();
  EXPECT_TRUE(refuses(talk.core(0), {1, {.kind = Kind::invalidated, .page = 0, .seq = 1}}));
}

TEST(CoherenceBad, ARecallIsPendingAlready) {
  for (const Protocol protocol : {Protocol::migrate, Protocol::msi}) {
    Talk talk(3, protocol);
    talk.fault(1, 0, write);
    const Message recall{.kind = Kind::recall, .page = 0, .seq = 2};
    talk.say(0, 1, 0, recall);  // overtakes its grant
    EXPECT_TRUE(refuses(talk.core(1), {0, recall}));
    EXPECT_TRUE(
        refuses(talk.core(1), {0, {.kind = Kind::grant, .access = write, .carries_page = true, .page = 0, .seq = 3}}));
  }
}

// One node may want many pages at one time, but not without bound.
TEST(CoherenceBad, MoreRequestsThanThereIsRoomFor) {
  constexpr Page pages = 30;
  Talk talk(3, Protocol::msi, 0, pages);
  unsigned taken = 0;
  for (Page page = 0; page < pages; page += 3) talk.say(2, 0, 1, {.kind = Kind::want, .access = write, .page = page});
  for (Page page = 0; page < pages; page += 3, ++taken) {
    const Message want{.kind = Kind::want, .access = write, .page = page};
    if (refuses(talk.core(0), {1, want})) break;
    talk.say(1, 0, 1, want);
  }
  EXPECT_EQ(taken, talk.core(0).config().requests);
}

}  // namespace
