// Agents that say anything: whatever comes, dsmd answers each call once, ends who misbehaves and no other, and has
// nothing left of them when all have gone. SYSV_TEST_SEED=N SYSV_TEST_ROUNDS=N
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <random>

#include "dsm/daemon/sysv_home_testing.hpp"

namespace dsm::daemon::testing {
namespace {

using Agent = Scene::Agent;
using core::Message;

std::uint32_t from_environment(const char* name, std::uint32_t otherwise) {
  const char* const text = std::getenv(name);
  return text != nullptr ? static_cast<std::uint32_t>(std::stoul(text)) : otherwise;
}

class Random {
 public:
  explicit Random(std::uint32_t seed) : engine_(seed) {}
  std::uint32_t below(std::uint32_t limit) { return static_cast<std::uint32_t>(engine_() % limit); }
  bool one_in(std::uint32_t count) { return below(count) == 0; }

 private:
  std::mt19937 engine_;
};

constexpr Call likely[] = {
    Call::get,     Call::get,     Call::attach,  Call::attach,  Call::fork,       Call::detach,    Call::exec,
    Call::exit,    Call::remove,  Call::beat,    Call::stat,    Call::stat_index, Call::set,       Call::lock,
    Call::unlock,  Call::info,    Call::operate, Call::operate, Call::cancel,     Call::get_value, Call::set_value,
    Call::get_all, Call::set_all, Call::get_pid, Call::report,  Call::get_ncnt,   Call::get_zcnt};

Question any_question(Random& random, std::uint32_t request) {
  Question q = Agent::question(likely[random.below(std::size(likely))], random.one_in(4) ? 1000 : 0);
  q.request = request;
  q.kind = static_cast<Object>(random.below(2));
  q.process = random.below(4), q.other = q.call == Call::cancel ? random.below(request + 1) : random.below(4);
  q.id = static_cast<std::int32_t>(random.below(6));
  if (random.one_in(4)) q.id += static_cast<std::int32_t>(random.below(3) * 32768);
  q.key = static_cast<std::int32_t>(random.below(5));
  q.flags = static_cast<std::int32_t>(random.one_in(3) ? random.below(4096) : 01666u);
  q.number = static_cast<std::int32_t>(random.below(4));
  q.size = random.one_in(8) ? random.below(~0u) : 1 + random.below(3 * 4096);
  if (q.kind == Object::set) q.size %= 5;
  q.timeout_ns = random.one_in(2) ? -1 : static_cast<std::int64_t>(random.below(1'000'000'000));
  q.mode = random.below(01000);
  for (auto count = random.below(3); count > 0; --count) {
    q.ops.push_back({static_cast<std::uint16_t>(random.below(3)),
                     static_cast<std::int16_t>(static_cast<int>(random.below(5)) - 2),
                     static_cast<std::int16_t>(random.one_in(2) ? 0x1000 : 0)});
  }
  q.values.assign(random.below(5), 3);
  return q;
}

// Agents of one scene, some with good manners about pages, some without.
class Crowd : public Scene {
 public:
  explicit Crowd(std::uint32_t seed)
      : Scene({.segments = {.max_size = 1u << 16U}, .agents = 12, .waiting = 50}), random_(seed) {}

  void act() {
    if (random_.one_in(40) || live().empty()) {
      if (agents.size() < 400) come("lab" + std::to_string(random_.below(4)));
      return;
    }
    Agent& agent = *live()[random_.below(static_cast<std::uint32_t>(live().size()))];
    switch (random_.below(10)) {
      case 0:
        return touch_something(agent);
      case 1:
        return touch_something(agent);
      case 2:
        return random_.one_in(20) ? say_any_page(agent) : touch_something(agent);
      case 3:
        if (random_.one_in(10)) agent.go();
        return;
      case 4:
        return after_with_beats(std::chrono::milliseconds(random_.below(400)));
      case 5:
        if (random_.one_in(10)) after(std::chrono::milliseconds(random_.below(6000)));
        return;
      case 6:
        return leave_something(agent);
      default:
        return ask_something(agent);
    }
  }

  void end() {
    for (Agent* agent : live()) agent->go();
    after(6s);
    Agent& last = come("last");
    const sysv::SegmentTotals totals = last.call(Agent::question(Call::info)).segment_totals.value();
    for (std::int32_t index = 0; index <= totals.highest_index; ++index) {
      Question q = Agent::question(Call::stat_index);
      q.number = index;
      const Answer answer = last.call(q);
      EXPECT_EQ(answer.segment.value_or(sysv::SegmentStat{}).nattch, 0u);
    }
    EXPECT_EQ(last.report().find("lost; its pages"), std::string::npos);
  }

 private:
  std::vector<Agent*> live() {
    std::vector<Agent*> out;
    for (auto& [guest, agent] : agents) {
      if (!agent->gone && !agent->ended) out.push_back(agent.get());
    }
    return out;
  }

  void ask_something(Agent& agent) {
    const std::uint32_t request = 1'000'000 + next_request_++;
    Question q = any_question(random_, request);
    if (q.call == Call::attach) {
      agent.attach(q.process, q.id);
      return;
    }
    hear(agent.guest, q);
    const bool answered = agent.answer_to(request) != nullptr;
    const bool may_wait = agent.ended || q.call == Call::operate;
    EXPECT_TRUE(q.call == Call::cancel ? !answered : answered || may_wait) << "call " << static_cast<int>(q.call);
  }

  void touch_something(Agent& agent) {
    if (agent.open.empty()) return;
    auto at = agent.open.begin();
    std::advance(at, random_.below(static_cast<std::uint32_t>(agent.open.size())));
    if (at->second.access.empty()) return;
    const auto page = static_cast<core::Page>(random_.below(static_cast<std::uint32_t>(at->second.access.size())));
    (void)agent.touch(at->first, page, random_.one_in(2) ? Access::read : Access::write);
  }

  void leave_something(Agent& agent) {
    if (agent.open.empty()) return;
    const std::int32_t id = agent.open.begin()->first;
    for (sysv::ProcessNumber process = 1; process < 4; ++process) {
      while (agent.detach(process, id) == 0) {
      }
    }
    agent.leave(id, !random_.one_in(4));
  }

  // From now on what it is told does not fit to what its core has asked.
  void say_any_page(Agent& agent) {
    agent.deaf = true;
    sysv::PageFrame frame{.tenure = random_.below(40)};
    if (!agent.open.empty() && !random_.one_in(4)) frame.tenure = agent.open.begin()->second.tenure;
    frame.last = random_.one_in(8);
    frame.message.page = random_.below(4);
    if (!frame.last) {
      frame.message.kind = static_cast<Message::Kind>(random_.below(7));
      frame.message.access = static_cast<Access>(random_.below(3));
      frame.message.carries_page = random_.one_in(2);
      frame.message.have = random_.one_in(4);
      frame.message.seq = random_.below(3);
    }
    if (frame.last || frame.message.carries_page) frame.bytes.assign(sysv::page_bytes, 1);
    hear(agent.guest, frame);
  }

  Random random_;
  std::uint32_t next_request_ = 0;
};

TEST(SysvHomeRandom, WhateverIsSaidNothingIsLeft) {
  const std::uint32_t first = from_environment("SYSV_TEST_SEED", std::random_device{}() % 1'000'000);
  const std::uint32_t rounds = from_environment("SYSV_TEST_ROUNDS", 30);
  std::printf("SYSV_TEST_SEED=%u\n", first);
  std::fflush(stdout);  // a sanitizer may end the program
  for (std::uint32_t seed = first; seed < first + rounds; ++seed) {
    SCOPED_TRACE("SYSV_TEST_SEED=" + std::to_string(seed) + " SYSV_TEST_ROUNDS=1");
    Crowd crowd(seed);
    for (int i = 0; i < 1500; ++i) crowd.act();
    crowd.end();
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace dsm::daemon::testing
