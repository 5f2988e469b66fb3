// dsm/daemon/sessions_testing.hpp - members without processes: what they would say, said to one Sessions. For tests.
//
// No socket, no waiting: time goes on when the test says so. Thread-safety: none.
#pragma once
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "dsm/daemon/sessions.hpp"

namespace dsm::daemon::testing {

using namespace std::chrono_literals;
using Phase = net::Report::Phase;

class SessionsScene {
 public:
  explicit SessionsScene(int only = 0)
      : sessions({.limits = {},
                  .only = only,
                  .nonce =
                      [this] {
                        net::SessionNonce nonce{};
                        nonce[0] = ++nonces_;
                        return nonce;
                      },
                  .say = [this](const std::string& line) { said.push_back(line); },
                  .log = [](const std::string&) {}}) {}

  static net::Enter enter_for(const std::string& session, int members) {
    return {session, members, 4711, 2, net::Platform::here()};
  }
  // A guest comes. What it is told.
  const Command* enters(GuestId guest, const net::Enter& enter, const std::string& address = "10.0.0.7") {
    sessions.entered(guest, enter, address, now);
    return told(guest);
  }
  const Command* enters(GuestId guest, const std::string& session = "pi", int members = 3) {
    return enters(guest, enter_for(session, members));
  }
  void joins(GuestId guest, int rank) {
    sessions.joined(guest, {rank, 4711, static_cast<std::uint16_t>(1000 + guest), net::Platform::here()}, now);
  }
  void reports(GuestId guest, Phase phase, int value = 0) { sessions.reported(guest, {phase, value}, now); }
  void after(milliseconds time) {
    now += time;
    sessions.tick(now);
  }
  // Guests first .. first + count - 1 are ranks 0 .. count - 1.
  void gather(GuestId first, int count, const std::string& session = "pi") {
    for (int rank = 0; rank < count; ++rank) {
      enters(first + static_cast<GuestId>(rank), session, count);
      joins(first + static_cast<GuestId>(rank), rank);
    }
  }
  void run(GuestId first, int count, const std::string& session = "pi") {
    gather(first, count, session);
    for (int rank = 0; rank < count; ++rank) reports(first + static_cast<GuestId>(rank), Phase::running);
  }
  void finalize(GuestId first, int count) {
    for (int rank = 0; rank < count; ++rank) reports(first + static_cast<GuestId>(rank), Phase::finalized);
    for (int rank = 0; rank < count; ++rank) sessions.gone(first + static_cast<GuestId>(rank));
  }

  // The last that this guest was told; null if nothing.
  const Command* told(GuestId guest) {
    for (Command& command : sessions.take_commands()) told_.insert_or_assign(command.to, std::move(command));
    const auto found = told_.find(guest);
    return found == told_.end() ? nullptr : &found->second;
  }
  template <class What>
  const What* told_a(GuestId guest) {
    const Command* const command = told(guest);
    return command == nullptr ? nullptr : std::get_if<What>(&command->what);
  }
  std::string refusal(GuestId guest) {
    const auto* refused = told_a<net::Refusal>(guest);
    return refused == nullptr ? "not refused" : refused->why;
  }
  std::string verdict(GuestId guest) {
    const auto* verdict = told_a<Verdict>(guest);
    return verdict == nullptr ? "no verdict" : verdict->why;
  }

  Time now{1h};
  std::vector<std::string> said;
  Sessions sessions;

 private:
  std::map<GuestId, Command> told_;
  std::uint8_t nonces_ = 0;
};

inline void expect_part(const std::string& text, const std::string& part) {
  EXPECT_NE(text.find(part), std::string::npos) << text;
  EXPECT_EQ(text.find('\n'), std::string::npos) << text;
}

}  // namespace dsm::daemon::testing
