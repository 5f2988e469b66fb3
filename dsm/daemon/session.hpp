// dsm/daemon/session.hpp - the life of one session as a value: who has come, when it starts, whom it has lost.
//
//   gathering   members come, and get the lowest rank that is free; one that goes gives its place back
//   started     all have come, and have been told of each other; who goes now, without dsm_finalize, is lost
//   over        a member is lost: the others have been told; or all have finalized
//
// No socket, no clock: sessions.hpp tells it what happened and when, and takes its commands. Members are known by the
// number of their connection. What a member sends is checked here; one that says what it may not is refused or lost, never
// an exception. Thread-safety: none. Not async-signal-safe.
#pragma once
#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "dsm/launch/region.hpp"
#include "dsm/net/rendezvous.hpp"

namespace dsm::daemon {

using Time = std::chrono::steady_clock::time_point;
using std::chrono::milliseconds;
using GuestId = std::uint64_t;  // a connection; never used again

// How long each phase may take. While a session runs there is no limit: that a member is lost, its connection tells.
struct Limits {
  milliseconds open{30'000};      // from a member's Place to its Join
  milliseconds gather{600'000};   // from the first member's coming to the last one's
  milliseconds mesh{60'000};      // from then until all are connected to each other
  milliseconds settle{2'000};     // for the news that explains why two members have lost each other
  milliseconds finalize{60'000};  // from the first member out of dsm_finalize until all are
};

struct Verdict {
  std::string why;
};
// To a guest. With Refusal and Verdict it is dismissed: it will say nothing more that matters.
struct Command {
  GuestId to;
  std::variant<net::Place, net::Welcome, net::Refusal, Verdict> what;
};

class Session {
 public:
  struct Config {
    std::string name;
    int members = 0;
    net::SessionNonce nonce{};
    launch::Region region{};
    Limits limits{};
    std::function<void(const std::string&)> log{};  // a line for whoever wants to know all (-v)
  };
  Session(Config config, Time now);

  // ---- what happened ----
  // `address`: numeric. What can be said against this member alone has been said (sessions.cpp).
  void entered(GuestId guest, const net::Enter& enter, const std::string& address, Time now);
  void joined(GuestId guest, const net::Join& join, Time now);
  void reported(GuestId guest, net::Report report, Time now);
  // Its connection has ended; `how`: one clause, if there is something to say about that.
  void gone(GuestId guest, const std::string& how = "");
  // It said what no member says; it is dismissed.
  void misbehaved(GuestId guest, const std::string& how);
  // dsmd is about to end.
  void give_up(const std::string& why);
  void tick(Time now);

  // ---- what follows ----
  [[nodiscard]] std::vector<Command> take_commands();
  [[nodiscard]] Time next_deadline() const;  // when tick() is due; max() if never
  [[nodiscard]] const std::string& name() const { return config_.name; }
  [[nodiscard]] int rank_of(GuestId guest) const;  // -1: no member, or no more
  [[nodiscard]] bool has(GuestId guest) const { return rank_of(guest) >= 0; }
  // REQUIRES: started.
  [[nodiscard]] const std::string& address(int rank) const { return at(rank).address; }
  [[nodiscard]] std::int64_t pid(int rank) const { return at(rank).pid; }
  [[nodiscard]] int members() const { return config_.members; }
  [[nodiscard]] bool started() const { return started_; }
  // Its name is another one's to use: the members of this one have all come out of dsm_finalize's barrier, or it failed.
  [[nodiscard]] bool lets_go_of_name() const { return over() || finalize_by_.has_value(); }
  [[nodiscard]] bool over() const;        // nobody is left in it
  [[nodiscard]] bool ended_well() const;  // all members have finalized
  // It has failed, or was given up: one line; else empty.
  [[nodiscard]] const std::string& why() const { return why_; }

 private:
  struct Member {
    GuestId guest = 0;
    std::string address;
    std::int64_t pid = 0;
    int cores = 0;
    std::uint16_t port = 0;  // of its part of the mesh; 0: not open yet
    Time open_by{};
    bool running = false, finalized = false;
    bool here = true;  // connected, and not dismissed
  };
  struct Suspicion {  // two members have lost each other, and both are still here
    int by, suspect;
    bool broke_protocol;
    Time due;
  };

  [[nodiscard]] Member& at(int rank) { return *places_[static_cast<std::size_t>(rank)]; }
  [[nodiscard]] const Member& at(int rank) const { return *places_[static_cast<std::size_t>(rank)]; }
  [[nodiscard]] std::string who(int rank) const;  // "rank 1 (10.0.0.7, pid 4711)"
  [[nodiscard]] std::string title() const { return "session '" + config_.name + "'"; }
  [[nodiscard]] int count() const;                           // members that have come
  [[nodiscard]] int first_that(bool Member::*is_not) const;  // the first that is here and is not so; -1: none
  [[nodiscard]] std::string against(const net::Enter& enter, const std::string& address) const;
  [[nodiscard]] std::uint32_t spin_us() const;
  void refuse(GuestId guest, const std::string& why);
  void start(Time now);
  void fail(const std::string& what);
  void blame(Suspicion suspicion);  // a copy: it clears the list
  void log(const std::string& line) const;

  Config config_;
  std::vector<std::optional<Member>> places_;  // by rank
  std::vector<Command> commands_;
  std::vector<Suspicion> suspicions_;
  std::optional<net::Platform> platform_;  // of the first member
  bool started_ = false;
  std::optional<Time> gather_by_, mesh_by_, finalize_by_;
  std::string why_;
};

}  // namespace dsm::daemon
