// The frames of System V IPC, and behind the authentication: agents that say anything to the home of all objects.
#include <algorithm>
#include <set>
#include <vector>

#include "dsm/daemon/sysv_home.hpp"
#include "dsm/sysv/wire.hpp"
#include "dsm/tests/fuzz/harness.hpp"

namespace dsm::fuzz {
namespace {

using namespace std::chrono_literals;
using daemon::GuestId;
using daemon::SysvHome;
using sysv::Call;
using sysv::Question;

constexpr std::size_t steps_max = 400;

void check_frame(Input bytes) {
  std::string why;
  const auto frame = sysv::decode(bytes, why);
  if (!frame) return check_line(why, "the refusal of a frame is not one line");
  const auto again = sysv::encode(*frame);
  check(std::equal(again.begin(), again.end(), bytes.begin(), bytes.end()), "a frame does not come back as it was");
}

// Small limits, so that a short script meets them.
daemon::SysvLimits limits() {
  daemon::SysvLimits out;
  out.segments.max_size = 1u << 16U;
  out.segments.max_count = 8;
  out.sets.per_set = 8;
  out.sets.sets = 8;
  out.agents = 3;
  out.processes = 3;
  out.attaches = 6;
  out.waiting = 3;
  out.segments.max_pages = 40;
  out.sets.all = 24;
  out.sets.undos = 6, out.sets.all_undos = 9;
  out.sets.together = 4;
  out.all_processes = 5, out.all_attaches = 9, out.all_waiting = 5;
  return out;
}

// Calls with numbers that have a chance to be somebody's.
Question question(Script& script) {
  Question q;
  q.call = static_cast<Call>(script.byte());
  if (!sysv::type_of(q.call)) q.call = script.below(2) == 0 ? Call::attach : Call::operate;
  q.request = script.byte();
  q.kind = static_cast<sysv::Object>(script.below(2));
  q.caller = {
      {static_cast<sysv::HostNumber>(script.below(4)), 100}, static_cast<std::uint32_t>(script.below(2)), 0, {}};
  q.process = script.below(5), q.other = script.byte();
  q.id = static_cast<std::int32_t>(script.below(9));
  q.key = static_cast<std::int32_t>(script.below(4));
  q.flags = static_cast<std::int32_t>(script.byte()) << 2U | 0600;
  q.number = static_cast<std::int32_t>(script.below(9)) - 1;
  q.size = script.byte() * (q.kind == sysv::Object::set ? 1u : 257u);
  q.timeout_ns = static_cast<std::int64_t>(script.byte()) * 10'000'000 - 20'000'000;
  q.mode = script.byte();
  q.tenure = script.byte();
  for (std::size_t count = script.below(4); count > 0; --count) {
    const auto change = static_cast<std::int16_t>(static_cast<int>(script.below(7)) - 3);
    const auto flags = static_cast<std::int16_t>(script.below(2) == 0 ? 0 : 0x1000);
    q.ops.push_back({static_cast<std::uint16_t>(script.below(4)), change, flags});
  }
  const std::size_t values = script.below(9);
  q.values.assign(values, script.byte());
  return q;
}

sysv::PageFrame page(Script& script) {
  sysv::PageFrame frame;
  frame.tenure = script.byte();
  frame.last = script.below(4) == 0;
  frame.message.page = script.byte() % 20u;
  if (!frame.last) {
    frame.message.kind = static_cast<core::Message::Kind>(script.below(7));
    frame.message.access = static_cast<core::Access>(script.below(3));
    const std::uint8_t flags = script.byte();
    frame.message.carries_page = (flags & 1u) != 0;
    frame.message.have = (flags & 2u) != 0;
    frame.message.prefetch = (flags & 4u) != 0;
    frame.message.seq = script.byte();
  }
  if (frame.last || frame.message.carries_page) frame.bytes.assign(sysv::page_bytes, script.byte());
  return frame;
}

class World {
 public:
  explicit World(Script& script)
      : script_(script),
        home_({.limits = limits(),
               .seconds = [] { return std::int64_t{1'000'000}; },
               .say = [](const std::string& line) { check_line(line, "what is said of hosts is not one line"); },
               .log = [](const std::string& line) { check_line(line, "what is logged is not one line"); }}) {}

  void step() {
    const GuestId guest = 1 + script_.below(4);
    switch (script_.below(8)) {
      case 0:
        come(guest);
        break;
      case 1:
        home_.gone(guest, "its connection ended", now_);
        break;
      case 2:
        now_ += script_.byte() * 30ms;
        home_.tick(now_);
        break;
      case 3:
        say(guest, script_.bytes(script_.byte() * 2u));
        break;
      case 4:
      case 5:
        say(guest, page(script_));
        break;
      default:
        say(guest, question(script_));
    }
    hear();
  }

  // All go, all leases end: nothing of them is left.
  void end() {
    for (GuestId guest = 1; guest <= 4; ++guest) home_.gone(guest, "its connection ended", now_);
    now_ += 6s;
    home_.tick(now_);
    (void)home_.take_commands();
    check(home_.agents() == 0, "an agent is still here");
    check(home_.next_deadline() == daemon::Time::max(), "something is still waited for");
    come(1);
    for (int index = 0; index < 8; ++index) {
      Question q;
      q.call = Call::stat_index;
      q.number = index, q.flags = 1;
      say(1, q);
    }
    for (const SysvHome::Command& command : home_.take_commands()) {
      std::string why;
      const auto frame = sysv::decode(command.frame, why);
      const auto* answer = frame ? std::get_if<sysv::Answer>(&*frame) : nullptr;
      check(answer != nullptr, "a call has no answer");
      check(!answer->segment || answer->segment->nattch == 0, "an attach is left of those who have gone");
    }
  }

 private:
  void come(GuestId guest) {
    Question hello;
    hello.call = Call::hello;
    hello.size = sysv::wire_version;
    hello.text = std::string(1, static_cast<char>('a' + script_.below(3)));
    say(guest, hello);
  }
  void say(GuestId guest, const sysv::Frame& frame) {
    const auto bytes = sysv::encode(frame);
    home_.heard(guest, "10.0.0.1", bytes, now_);
  }
  void say(GuestId guest, const std::string& bytes) {
    home_.heard(guest, "10.0.0.1", {reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()}, now_);
  }
  void hear() {
    std::set<GuestId> ended;
    for (const SysvHome::Command& command : home_.take_commands()) {
      check(!ended.contains(command.to), "somebody is told more after the last");
      if (command.end) ended.insert(command.to);
      if (command.frame.empty()) continue;
      std::string why;
      const auto frame = sysv::decode(command.frame, why);
      check(frame.has_value() && !std::holds_alternative<Question>(*frame), "an agent is told what is no frame for it");
    }
  }

  Script& script_;
  SysvHome home_;
  daemon::Time now_{1h};
};

}  // namespace

void sysv(Input input) {
  if (input.empty()) return;
  if (input[0] % 2 == 0) return check_frame(input.subspan(1));
  Script script(input.subspan(1));
  World world(script);
  for (std::size_t steps = 0; !script.is_over() && steps < steps_max; ++steps) world.step();
  world.end();
}

}  // namespace dsm::fuzz
