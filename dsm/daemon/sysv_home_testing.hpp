// dsm/daemon/sysv_home_testing.hpp - hosts without machines: agents that are values, around one SysvHome. For tests.
//
// An agent here does what a real one does with a segment's pages, with a core of its own. Nothing waits: what is under
// way is carried to and fro until nobody has anything to say.
#pragma once
#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "dsm/core/coherence.hpp"
#include "dsm/daemon/sysv_home.hpp"

namespace dsm::daemon::testing {

using namespace std::chrono_literals;
using core::Access;
using sysv::Answer;
using sysv::Call;
using sysv::Object;
using sysv::Question;

class Scene {
 public:
  explicit Scene(SysvLimits limits = {})
      : home({.limits = limits,
              .seconds = [this] { return seconds; },
              .say = [this](const std::string& line) { said.push_back(line); },
              .log = [this](const std::string& line) { logged.push_back(line); }}) {}

  class Agent;
  Agent& come(const std::string& name = "lab1", const std::string& address = "10.0.0.1");
  // Says so to `guest`, and carries on.
  void hear(GuestId guest, const sysv::Frame& frame) { hear(guest, sysv::encode(frame)); }
  void hear(GuestId guest, const std::vector<std::uint8_t>& bytes) {
    home.heard(guest, "10.0.0.1", bytes, now);
    pump();
  }
  void after(std::chrono::nanoseconds time) {
    now += time;
    home.tick(now);
    pump();
  }
  // The same, but all agents that are here have beaten meanwhile.
  void after_with_beats(std::chrono::nanoseconds time);
  void pump();
  [[nodiscard]] std::string last_said() const { return said.empty() ? "" : said.back(); }

  Time now{1h};
  std::int64_t seconds = 1'000'000;
  std::vector<std::string> said, logged;
  SysvHome home;
  std::map<GuestId, std::unique_ptr<Agent>> agents;  // whoever has ever come
  GuestId next_guest = 1;
};

class Scene::Agent {
 public:
  Agent(Scene& scene, GuestId number) : guest(number), scene_(scene) {}

  // ---- calls ----
  static Question question(Call call, std::uint32_t uid = 0, std::int32_t pid = 100) {
    Question q;
    q.call = call;
    q.caller = {{0, pid}, uid, uid, {}};
    return q;
  }
  // Sends it; the number of the request.
  std::uint32_t ask(Question q) {
    q.request = ++request_;
    scene_.hear(guest, q);
    return request_;
  }
  [[nodiscard]] const Answer* answer_to(std::uint32_t request) const {
    const auto found = answers.find(request);
    return found == answers.end() ? nullptr : &found->second;
  }
  // REQUIRES: it is answered at once.
  Answer call(const Question& q) {
    const Answer* const answer = answer_to(ask(q));
    if (answer == nullptr) ADD_FAILURE() << "no answer to call " << static_cast<int>(q.call);
    return answer == nullptr ? Answer{.error = -1} : *answer;
  }
  std::int32_t get(std::uint64_t size, std::int32_t key = 0, std::int32_t flags = 01666) {
    Question q = question(Call::get);
    q.size = size, q.key = key, q.flags = flags;
    const Answer answer = call(q);
    return answer.error == 0 ? static_cast<std::int32_t>(answer.value) : -answer.error;
  }
  std::int32_t get_set(std::uint64_t count, std::int32_t key = 0) {
    Question q = question(Call::get);
    q.kind = Object::set;
    q.size = count, q.key = key, q.flags = 01666;
    return static_cast<std::int32_t>(call(q).value);
  }
  int attach(sysv::ProcessNumber process, std::int32_t id, std::int32_t pid = 100);
  int process_call(Call call_, sysv::ProcessNumber process, std::int32_t id = 0, std::int32_t pid = 100) {
    Question q = question(call_, 0, pid);
    q.process = process, q.id = id;
    return call(q).error;
  }
  int detach(sysv::ProcessNumber process, std::int32_t id) { return process_call(Call::detach, process, id); }
  int fork(sysv::ProcessNumber child, sysv::ProcessNumber parent) {
    Question q = question(Call::fork);
    q.process = child, q.other = parent;
    return call(q).error;
  }
  int remove(std::int32_t id, Object kind = Object::segment, std::uint32_t uid = 0) {
    Question q = question(Call::remove, uid);
    q.kind = kind, q.id = id;
    return call(q).error;
  }
  Answer stat(std::int32_t id, Object kind = Object::segment, std::uint32_t uid = 0) {
    Question q = question(Call::stat, uid);
    q.kind = kind, q.id = id;
    return call(q);
  }
  sysv::SegmentStat segment(std::int32_t id) { return stat(id).segment.value_or(sysv::SegmentStat{.nattch = ~0ULL}); }
  // One operation on semaphore 0. The number of the request.
  std::uint32_t operate(sysv::ProcessNumber process, std::int32_t id, int change, std::int16_t flags = 0,
                        std::int64_t timeout_ns = -1) {
    Question q = question(Call::operate);
    q.process = process, q.id = id, q.timeout_ns = timeout_ns;
    q.ops = {{0, static_cast<std::int16_t>(change), flags}};
    return ask(q);
  }
  // What became of that: -1, if it is not over.
  [[nodiscard]] int over(std::uint32_t request) const {
    const Answer* const answer = answer_to(request);
    return answer == nullptr ? -1 : answer->error;
  }
  std::int64_t value(std::int32_t id, Call call_ = Call::get_value) {
    Question q = question(call_);
    q.id = id;
    const Answer answer = call(q);
    return answer.error == 0 ? answer.value : -answer.error;
  }
  std::string report() { return call(question(Call::report)).text; }
  void beat() { call(question(Call::beat)); }

  // ---- pages ----
  struct Open {
    std::uint32_t tenure = 0;
    core::Node slot = 0;
    std::unique_ptr<core::Coherence> core;
    std::vector<std::uint8_t> memory;
    std::vector<Access> access;
  };
  // One of its processes touches the page. False: it must wait.
  bool touch(std::int32_t id, core::Page page, Access want);
  // REQUIRES: the page is here so, or comes at once.
  void write(std::int32_t id, core::Page page, std::uint8_t value) {
    ASSERT_TRUE(touch(id, page, Access::write)) << "page " << page << " does not come";
    open.at(id).memory.at(std::size_t{page} * sysv::page_bytes) = value;
  }
  int read(std::int32_t id, core::Page page) {
    if (!touch(id, page, Access::read)) return -1;
    return open.at(id).memory.at(std::size_t{page} * sysv::page_bytes);
  }
  // All processes have detached it: sends what it holds for writing, and leaves.
  int leave(std::int32_t id, bool send_pages = true);
  void go(const std::string& how = "its connection ended") {
    gone = true;
    scene_.home.gone(guest, how, scene_.now);
    scene_.pump();
  }
  void receive(const sysv::Frame& frame);
  void say(std::int32_t id, const core::Message& message);

  const GuestId guest;
  sysv::HostNumber host = 0;
  std::map<std::int32_t, Open> open;  // by segment
  std::map<std::uint32_t, Answer> answers;
  std::size_t page_frames = 0;  // that it was sent
  bool ended = false;           // dsmd ends the connection
  bool gone = false;
  bool deaf = false;  // it does not act on what it hears of pages, but keeps it
  std::deque<sysv::PageFrame> unheard;

 private:
  friend class Scene;
  static constexpr std::uint16_t waiters = core::max_waiters;  // touches that wait at one time
  void step(std::int32_t id, const core::Event& event, const std::vector<std::uint8_t>& bytes);

  Scene& scene_;
  std::uint32_t request_ = 0;
  std::size_t waiter_ = 0;
};

inline void expect_part(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << text << "\nhas no: " << part;
}

}  // namespace dsm::daemon::testing
