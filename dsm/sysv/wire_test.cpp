#include "dsm/sysv/wire.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <random>
#include <stdexcept>

namespace dsm::sysv {
namespace {

using Bytes = std::vector<std::uint8_t>;
using core::Message;

constexpr Call calls[] = {
    Call::get,         Call::attach,       Call::fork,         Call::detach,         Call::exec,
    Call::exit,        Call::remove,       Call::hello,        Call::beat,           Call::leave,
    Call::stat,        Call::stat_index,   Call::set,          Call::lock,           Call::unlock,
    Call::info,        Call::operate,      Call::cancel,       Call::get_value,      Call::get_all,
    Call::set_value,   Call::set_all,      Call::get_pid,      Call::get_ncnt,       Call::get_zcnt,
    Call::report,      Call::local_hello,  Call::local_mapped, Call::local_unmapped, Call::local_fork,
    Call::local_fault, Call::local_lowered};

// Each field has a value of its own.
Question question(Call call) {
  Question q;
  q.call = call;
  q.request = 0x01020304;
  q.caller = {{5, -6}, 7, 0xfffffff8, {9, 10, 11}};
  q.kind = Object::set;
  q.process = 0x1112131415161718, q.other = 0x2122232425262728;
  q.id = -1, q.key = 0x31323334, q.flags = 01600, q.number = 0x7fffffff;
  q.size = 0x4142434445464748, q.address = 0x5152535455565758;
  q.timeout_ns = -2;
  q.uid = 12, q.gid = 13, q.mode = 0640, q.tenure = 14;
  q.ops = {{1, -2, 04000}, {65535, 32767, -1}};
  q.values = {0, 1, 65535};
  q.text = std::string("a host\0and more", 15);
  return q;
}

Answer answer() {
  Answer a;
  a.request = 0x01020304;
  a.error = 11;
  a.value = -0x1112131415161718;
  a.tenure = 2;
  a.slot = 63;
  a.values = {3, 4};
  a.text = "line\nline\n";
  const Permissions perm{-5, 6, 7, 8, 9, 01777, 10};
  a.segment = SegmentStat{11, perm, 12, -13, 14, 15, {16, 17}, {18, 19}, 20};
  a.set = SetStat{21, perm, 22, 23, 24};
  a.segment_totals = SegmentTotals{{25, 26, 27}, 28, 29, 30};
  a.set_totals = SetTotals{{31, 32, 33, 34, 35}, 36, 37, 38};
  return a;
}

PageFrame page(Message::Kind kind, bool with_bytes) {
  PageFrame frame;
  frame.tenure = 0xfefdfcfb;
  frame.message = {.kind = kind,
                   .access = core::Access::write,
                   .carries_page = with_bytes,
                   .have = true,
                   .prefetch = true,
                   .page = 0x01020304,
                   .seq = 0xfffffffe};
  if (with_bytes) {
    frame.bytes.resize(page_bytes);
    std::iota(frame.bytes.begin(), frame.bytes.end(), std::uint8_t{1});
  }
  return frame;
}

PageFrame last_page() {
  PageFrame frame;
  frame.tenure = 3;
  frame.last = true;
  frame.message.page = 7;
  frame.bytes.assign(page_bytes, 0xee);
  return frame;
}

std::vector<Frame> frames() {
  std::vector<Frame> all{answer(), Answer{}, last_page()};
  for (const Call call : calls) {
    Question empty;
    empty.call = call;
    all.insert(all.end(), {question(call), empty});
  }
  for (auto kind = Message::Kind::want; kind <= Message::Kind::write_back;
       kind = static_cast<Message::Kind>(static_cast<int>(kind) + 1)) {
    all.insert(all.end(), {page(kind, false), page(kind, true)});
  }
  return all;
}

template <class T>
T decoded(const Bytes& bytes) {
  std::string why;
  const std::optional<Frame> frame = decode(bytes, why);
  if (!frame) throw std::runtime_error("not decoded: " + why);
  return std::get<T>(*frame);
}

std::string refusal(const Bytes& bytes) {
  std::string why;
  return decode(bytes, why) ? "taken" : why;
}

TEST(Wire, EachFieldOfAQuestionArrives) {
  const Question q = decoded<Question>(encode(question(Call::operate))), sent = question(Call::operate);
  EXPECT_EQ(q.call, sent.call);
  EXPECT_EQ(q.request, sent.request);
  EXPECT_EQ(q.caller.pid, sent.caller.pid);
  EXPECT_EQ(q.caller.uid, sent.caller.uid);
  EXPECT_EQ(q.caller.gid, sent.caller.gid);
  EXPECT_EQ(q.caller.groups, sent.caller.groups);
  EXPECT_EQ(q.kind, sent.kind);
  EXPECT_EQ(q.process, sent.process);
  EXPECT_EQ(q.other, sent.other);
  EXPECT_EQ(q.id, sent.id);
  EXPECT_EQ(q.key, sent.key);
  EXPECT_EQ(q.flags, sent.flags);
  EXPECT_EQ(q.number, sent.number);
  EXPECT_EQ(q.size, sent.size);
  EXPECT_EQ(q.address, sent.address);
  EXPECT_EQ(q.timeout_ns, sent.timeout_ns);
  EXPECT_EQ(q.uid, sent.uid);
  EXPECT_EQ(q.gid, sent.gid);
  EXPECT_EQ(q.mode, sent.mode);
  EXPECT_EQ(q.tenure, sent.tenure);
  EXPECT_EQ(q.ops, sent.ops);
  EXPECT_EQ(q.values, sent.values);
  EXPECT_EQ(q.text, sent.text);
}

void expect_equal(const Permissions& one, const Permissions& other) {
  EXPECT_EQ(one.key, other.key);
  EXPECT_EQ(one.uid, other.uid);
  EXPECT_EQ(one.gid, other.gid);
  EXPECT_EQ(one.cuid, other.cuid);
  EXPECT_EQ(one.cgid, other.cgid);
  EXPECT_EQ(one.mode, other.mode);
  EXPECT_EQ(one.seq, other.seq);
}

TEST(Wire, EachFieldOfAnAnswerArrives) {
  const Answer a = decoded<Answer>(encode(answer())), sent = answer();
  EXPECT_EQ(a.request, sent.request);
  EXPECT_EQ(a.error, sent.error);
  EXPECT_EQ(a.value, sent.value);
  EXPECT_EQ(a.tenure, sent.tenure);
  EXPECT_EQ(a.slot, sent.slot);
  EXPECT_EQ(a.values, sent.values);
  EXPECT_EQ(a.text, sent.text);
}

TEST(Wire, EachFieldOfAnAnswersPartsArrives) {
  const Answer a = decoded<Answer>(encode(answer())), sent = answer();
  ASSERT_TRUE(a.segment && a.set && a.segment_totals && a.set_totals);
  EXPECT_EQ(a.segment->id, sent.segment->id);
  expect_equal(a.segment->perm, sent.segment->perm);
  EXPECT_EQ(a.segment->size, sent.segment->size);
  EXPECT_EQ(a.segment->atime, sent.segment->atime);
  EXPECT_EQ(a.segment->dtime, sent.segment->dtime);
  EXPECT_EQ(a.segment->ctime, sent.segment->ctime);
  EXPECT_EQ(a.segment->cpid, sent.segment->cpid);
  EXPECT_EQ(a.segment->lpid, sent.segment->lpid);
  EXPECT_EQ(a.segment->nattch, sent.segment->nattch);
  EXPECT_EQ(a.set->id, sent.set->id);
  expect_equal(a.set->perm, sent.set->perm);
  EXPECT_EQ(a.set->otime, sent.set->otime);
  EXPECT_EQ(a.set->ctime, sent.set->ctime);
  EXPECT_EQ(a.set->count, sent.set->count);
  EXPECT_EQ(a.segment_totals->limits.max_size, sent.segment_totals->limits.max_size);
  EXPECT_EQ(a.segment_totals->limits.max_pages, sent.segment_totals->limits.max_pages);
  EXPECT_EQ(a.segment_totals->limits.max_count, sent.segment_totals->limits.max_count);
  EXPECT_EQ(a.segment_totals->used, sent.segment_totals->used);
  EXPECT_EQ(a.segment_totals->highest_index, sent.segment_totals->highest_index);
  EXPECT_EQ(a.segment_totals->pages, sent.segment_totals->pages);
  EXPECT_EQ(a.set_totals->limits.per_set, sent.set_totals->limits.per_set);
  EXPECT_EQ(a.set_totals->limits.all, sent.set_totals->limits.all);
  EXPECT_EQ(a.set_totals->limits.per_call, sent.set_totals->limits.per_call);
  EXPECT_EQ(a.set_totals->limits.sets, sent.set_totals->limits.sets);
  EXPECT_EQ(a.set_totals->limits.max_value, sent.set_totals->limits.max_value);
  EXPECT_EQ(a.set_totals->sets, sent.set_totals->sets);
  EXPECT_EQ(a.set_totals->semaphores, sent.set_totals->semaphores);
  EXPECT_EQ(a.set_totals->highest_index, sent.set_totals->highest_index);
}

TEST(Wire, AnAnswerHasThePartsThatItWasGiven) {
  Answer sent;
  sent.set = SetStat{.id = 3};
  const Answer a = decoded<Answer>(encode(sent));
  EXPECT_TRUE(!a.segment && a.set && !a.segment_totals && !a.set_totals);
}

TEST(Wire, EachFieldOfAPageFrameArrives) {
  for (const bool with_bytes : {false, true}) {
    const PageFrame sent = page(Message::Kind::grant, with_bytes), got = decoded<PageFrame>(encode(sent));
    EXPECT_EQ(got.tenure, sent.tenure);
    EXPECT_EQ(got.last, sent.last);
    EXPECT_EQ(got.message, sent.message);
    EXPECT_EQ(got.bytes, sent.bytes);
  }
  const PageFrame got = decoded<PageFrame>(encode(last_page()));
  EXPECT_TRUE(got.last);
  EXPECT_EQ(got.message, Message{.page = 7});
  EXPECT_EQ(got.bytes, last_page().bytes);
}

// PROTOCOL.md says so.
TEST(Wire, NumbersAreInNetworkByteOrder) {
  const Bytes head{1, 1, 1, 1, 2, 3, 4, 1, 0, 5, 0xff, 0xff, 0xff, 0xfa};
  const Bytes whole = encode(question(Call::get));
  EXPECT_EQ(Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(head.size())), head);
  const Bytes page_head{6, 3, 0xfe, 0xfd, 0xfc, 0xfb, 2, 2, 6, 1, 2, 3, 4, 0xff, 0xff, 0xff, 0xfe};
  EXPECT_EQ(encode(page(Message::Kind::recall, false)), page_head);
  EXPECT_EQ(encode(Question{.call = Call::beat}).size(), 110u);
  EXPECT_EQ(encode(Answer{}).size(), 32u);
  EXPECT_EQ(encode(last_page()).size(), 17u + page_bytes);
}

TEST(Wire, TheFirstByteIsTheType) {
  const auto first = [](const Frame& frame) { return static_cast<Type>(encode(frame).front()); };
  EXPECT_EQ(first(question(Call::get)), Type::create);
  EXPECT_EQ(first(question(Call::attach)), Type::attach);
  EXPECT_EQ(first(question(Call::fork)), Type::attach);
  EXPECT_EQ(first(question(Call::exec)), Type::detach);
  EXPECT_EQ(first(question(Call::remove)), Type::remove);
  EXPECT_EQ(first(question(Call::operate)), Type::control);
  EXPECT_EQ(first(answer()), Type::control);
  EXPECT_EQ(first(page(Message::Kind::want, false)), Type::read);
  EXPECT_EQ(first(page(Message::Kind::grant, true)), Type::read);
  EXPECT_EQ(first(page(Message::Kind::recalled, true)), Type::write);
  EXPECT_EQ(first(last_page()), Type::write);
  for (const Call call : calls) {
    EXPECT_EQ(type_of(call).has_value(), call < Call::local_hello);
    EXPECT_EQ(encode(question(call)).front() == 0, !type_of(call));
  }
  EXPECT_FALSE(type_of(Call{0}));
  EXPECT_FALSE(type_of(Call{2}));
  EXPECT_FALSE(type_of(Call{60}));
}

TEST(Wire, EachFrameComesBackAsItWas) {
  for (const Frame& frame : frames()) {
    const Bytes bytes = encode(frame);
    std::string why;
    const std::optional<Frame> again = decode(bytes, why);
    ASSERT_TRUE(again) << why << "; frame " << ::testing::PrintToString(bytes);
    EXPECT_EQ(again->index(), frame.index());
    EXPECT_EQ(encode(*again), bytes);
  }
}

TEST(Wire, WhatIsCutAnywhereIsNoFrame) {
  for (const Frame& frame : frames()) {
    const Bytes whole = encode(frame);
    for (std::size_t size = 0; size < whole.size(); ++size) {
      const Bytes part(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size));
      ASSERT_NE(refusal(part), "taken") << size << " of " << whole.size() << " bytes";
    }
  }
}

TEST(Wire, WhatHasMoreBehindItIsNoFrame) {
  for (const Frame& frame : frames()) {
    Bytes bytes = encode(frame);
    bytes.push_back(0);
    EXPECT_EQ(refusal(bytes), "there is more than one frame");
  }
}

// What is still taken is another frame, and exactly what is written for it.
void check_changed(const Bytes& changed) {
  std::string why;
  const std::optional<Frame> frame = decode(changed, why);
  if (frame) {
    ASSERT_EQ(encode(*frame), changed);
  } else {
    ASSERT_FALSE(why.empty());
  }
}

TEST(Wire, EachBitMattersOrIsRefused) {
  for (const Frame& frame : frames()) {
    const Bytes whole = encode(frame);
    for (std::size_t bit = 0; bit < std::min<std::size_t>(whole.size(), 400) * 8; ++bit) {
      Bytes changed = whole;
      changed[bit / 8] = static_cast<std::uint8_t>(changed[bit / 8] ^ (1u << bit % 8));
      check_changed(changed);
    }
  }
}

TEST(Wire, RandomChangesAreRefusedOrComeBackAsTheyWere) {
  const char* const text = std::getenv("WIRE_TEST_SEED");
  const auto seed = text != nullptr ? static_cast<std::uint32_t>(std::stoul(text)) : std::random_device{}();
  std::printf("WIRE_TEST_SEED=%u\n", seed);
  std::mt19937 random(seed);
  const std::vector<Frame> all = frames();
  for (int round = 0; round < 20'000; ++round) {
    Bytes bytes = encode(all[random() % all.size()]);
    for (auto changes = 1 + random() % 8; changes > 0; --changes) {
      bytes[random() % std::min<std::size_t>(bytes.size(), 200)] = static_cast<std::uint8_t>(random());
    }
    check_changed(bytes);
  }
}

// Where the list's length is in an otherwise empty question: behind it are the lists that follow.
TEST(Wire, AListLongerThanTheFrameIsRefusedBeforeItIsMade) {
  const Bytes empty = encode(Question{.call = Call::set_all});
  for (const std::size_t behind : {4u, 8u, 12u}) {
    for (const std::uint8_t high : {std::uint8_t{1}, std::uint8_t{0xff}}) {
      Bytes lying = empty;
      lying[lying.size() - behind] = high;
      EXPECT_EQ(refusal(lying), "a list longer than the frame");
    }
    Bytes by_one = empty;
    by_one[by_one.size() - behind + 3] = 12;  // 12 bytes and more are not there, whatever follows
    EXPECT_NE(refusal(by_one), "taken");
  }
}

TEST(Wire, FramesHaveALongestSize) {
  Question all{.call = Call::set_all};
  all.values.assign(32000, 7);  // SEMMSL
  EXPECT_EQ(decoded<Question>(encode(all)).values, all.values);
  all.text.assign(max_frame, 'x');
  EXPECT_THROW((void)encode(all), std::length_error);
  EXPECT_EQ(refusal(Bytes(max_frame + 1)), "it is longer than frames may be");
}

TEST(Wire, APageHasItsSize) {
  PageFrame frame = page(Message::Kind::grant, true);
  frame.bytes.pop_back();
  EXPECT_THROW((void)encode(frame), std::logic_error);
  frame = page(Message::Kind::want, false);
  frame.bytes.resize(page_bytes);
  EXPECT_THROW((void)encode(frame), std::logic_error);
}

TEST(Wire, EachMistakeHasItsClause) {
  const auto changed = [](const Frame& frame, std::size_t at, std::uint8_t to) {
    Bytes bytes = encode(frame);
    bytes[at] = to;
    return refusal(bytes);
  };
  const Question get{.call = Call::get};
  const PageFrame want = page(Message::Kind::want, false);
  EXPECT_EQ(refusal({}), "it ends too early");
  EXPECT_EQ(changed(get, 0, 2), "a call in a frame of another type");
  EXPECT_EQ(changed(get, 1, 0), "it is neither question nor answer nor page");
  EXPECT_EQ(changed(get, 1, 4), "it is neither question nor answer nor page");
  EXPECT_EQ(changed(get, 2, 2), "an unknown call");
  EXPECT_EQ(changed(get, 2, 86), "an unknown call");
  EXPECT_EQ(changed(get, 7, 2), "an unknown kind of object");
  EXPECT_EQ(changed(Answer{}, 0, 1), "an answer that is no control frame");
  EXPECT_EQ(changed(Answer{}, 31, 16), "an unknown part");
  EXPECT_EQ(changed(want, 0, 6), "a message in a frame of another type");
  EXPECT_EQ(changed(want, 6, static_cast<std::uint8_t>(Message::Kind::perform)), "an unknown message about a page");
  EXPECT_EQ(changed(want, 6, 200), "an unknown message about a page");
  EXPECT_EQ(changed(want, 7, 3), "an unknown access");
  EXPECT_EQ(changed(want, 8, 16), "an unknown flag");
  EXPECT_EQ(changed(last_page(), 6, 1), "a last page that says more than its bytes");
  EXPECT_EQ(changed(last_page(), 16, 1), "a last page that says more than its bytes");
}

}  // namespace
}  // namespace dsm::sysv
