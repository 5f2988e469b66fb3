// dsm/daemon/turned_away.hpp - what is said of those whom the door has turned away, however many they are.
//
// The first of each kind is named; further ones are counted, and their number is said once, ten seconds after the first.
// Thread-safety: none. Not async-signal-safe.
#pragma once
#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <utility>

#include "dsm/daemon/session.hpp"

namespace dsm::daemon {

class TurnedAway {
 public:
  explicit TurnedAway(std::function<void(const std::string&)> say) : say_(std::move(say)) {}
  // `line`: an Acceptor's, "127.0.0.1:41234: wrong first bytes".
  void add(const std::string& line, Time now);
  void tick(Time now);
  [[nodiscard]] Time next_deadline() const;  // when tick() is due; max() if never

 private:
  struct Kind {
    Time until;
    std::size_t more = 0;
  };
  std::function<void(const std::string&)> say_;
  std::map<std::string, Kind> kinds_;  // by what was wrong
};

}  // namespace dsm::daemon
