// dsm/daemon/sysv_home.hpp - the home of all System V objects, as a value: agents come, ask, move pages, and go.
//
// No socket, no clock: the server (server.hpp) tells what came from whom and when, and carries out the commands. An agent
// is known by the number of its connection. What an agent sends is checked here; one that says what no agent may say is
// ended, and no other. PROTOCOL.md (dsm/sysv) has the conversation.
//
// An agent that goes without a word (killed, its network cut) may have processes that go on reading its pages for as
// long as their lease lasts. So its attaches and undo values end at once, but its pages are given to others only when
// dsmd has not heard it for dshm_agent::silence_ns. One that has said `leave` for a segment has no pages of it.
//
// Thread-safety: none. Not async-signal-safe.
#pragma once
#include <array>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "dsm/daemon/session.hpp"
#include "dsm/daemon/sysv_pages.hpp"
#include "dsm/sysv/segments.hpp"
#include "dsm/sysv/semaphores.hpp"
#include "dsm/sysv/wire.hpp"

namespace dsm::daemon {

// How much of dsmd agents may use, whatever they say.
struct SysvLimits {
  sysv::SegmentLimits segments{};
  sysv::SetLimits sets{};
  std::size_t agents = 1024;
  std::size_t processes = 32'768;   // of one agent, that dsmd must remember
  std::size_t attaches = 1u << 20;  // of one agent
  std::size_t waiting = 16'384;     // calls of one agent
  std::size_t all_processes = 1u << 20, all_attaches = 1u << 22, all_waiting = 1u << 17;  // and of all agents
};

class SysvHome {
 public:
  struct Config {
    SysvLimits limits{};
    std::function<std::int64_t()> seconds{};        // since 1970
    std::function<void(const std::string&)> say{};  // what hosts have lost
    std::function<void(const std::string&)> log{};  // who comes and goes, and all else (-v)
  };
  // To an agent. If `end`, this was the last: nothing that it says matters any more.
  struct Command {
    GuestId to;
    std::vector<std::uint8_t> frame;  // an encoded one; empty: nothing to say
    bool end = false;
  };
  explicit SysvHome(Config config);
  SysvHome(const SysvHome&) = delete;
  SysvHome& operator=(const SysvHome&) = delete;
  ~SysvHome();

  // ---- what happened ----
  // An encoded frame has come. `address`: where from, numeric. Who is new must say hello.
  void heard(GuestId guest, const std::string& address, std::span<const std::uint8_t> frame, Time now);
  // Its connection has ended; `how`: one clause. Ignored if it is no agent (any more).
  void gone(GuestId guest, const std::string& how, Time now);
  void tick(Time now);

  // ---- what follows ----
  [[nodiscard]] std::vector<Command> take_commands() { return std::exchange(commands_, {}); }
  [[nodiscard]] Time next_deadline() const;  // when tick() is due; max() if never
  [[nodiscard]] std::size_t agents() const { return agents_.size(); }

  // For tests.
  [[nodiscard]] const SysvPages* pages(std::int32_t id) const;

 private:
  struct Host {  // by its name; remembered after it has gone, for pids of it are in the objects
    sysv::HostNumber number = 0;
    std::size_t agents = 0;
    std::uint64_t left = 0;  // counts departures: the lowest has been gone the longest
  };
  struct Process {
    sysv::Pid pid{};
    std::map<std::int32_t, std::uint32_t> attaches;  // by segment
    std::set<std::uint32_t> waiting;                 // requests
  };
  struct Tenure {
    std::int32_t segment = 0;
    core::Node slot = 0;
  };
  struct Agent {
    GuestId guest = 0;
    sysv::HostNumber host = 0, number = 0;
    std::string name, address;  // as it has said; where it is
    Time heard{};
    std::map<sysv::ProcessNumber, Process> processes;
    std::map<std::uint32_t, Tenure> tenures;
    std::map<std::int32_t, std::uint32_t> tenure_of;  // by segment
    std::map<std::uint32_t, sysv::Ticket> waiting;    // by request
    std::size_t attaches = 0;
    std::uint64_t writes = 0;  // pages that it holds for writing
  };
  struct Lease {  // of an agent that was lost
    std::int32_t segment = 0;
    core::Node slot = 0;
    std::string who;
  };
  using Leases = std::multimap<Time, Lease>;  // by when they end
  struct Holder {
    GuestId guest = 0;  // 0: nobody, or lost
    std::uint32_t tenure = 0;
    std::optional<Leases::iterator> lease{};  // if lost
  };
  struct Segment {
    std::unique_ptr<SysvPages> pages;
    std::array<Holder, core::max_ranks> holders{};  // by slot
  };
  struct Waiting {
    GuestId guest = 0;
    std::uint32_t request = 0;
    sysv::ProcessNumber process = 0;
    Time until{};
  };
  struct Loss {
    std::int64_t when = 0;  // seconds since 1970
    std::int32_t segment = 0;
    std::uint64_t pages = 0;
    std::string who;
  };

  // ---- sysv_home.cpp: who is here ----
  void hello(GuestId guest, const std::string& address, const sysv::Question& question, Time now);
  [[nodiscard]] sysv::HostNumber number_for(const std::string& name);
  void refuse(GuestId guest, const sysv::Question& hello, int error, const std::string& why);
  void hear_page(Agent& agent, const sysv::PageFrame& frame, Time now);
  void misbehaved(Agent& agent, const std::string& how, Time now);
  void lose(Agent& agent, const std::string& how, Time now);  // the agent is no more when it returns
  void end_leases(Time now);
  void end_lease(const Lease& lease);
  void deliver(std::int32_t segment, core::Node to, const core::Message& message, const std::uint8_t* page);
  void tell(GuestId to, const sysv::Frame& frame);
  [[nodiscard]] static std::string short_name(const Agent& agent);
  [[nodiscard]] static std::string title(const Agent& agent);
  void forget(std::int32_t segment);
  void settle();  // what follows from what has happened: for segments that are gone, and calls that are over

  // ---- sysv_calls.cpp: what it asks ----
  void ask(Agent& agent, sysv::Question question, Time now);
  // 0, an errno value, or sysv::waits: answered later.
  [[nodiscard]] int call(Agent& agent, const sysv::Question& q, sysv::Answer& a, Time now);
  [[nodiscard]] int call_segment(const sysv::Question& q, sysv::Answer& a);
  [[nodiscard]] int call_set(const Agent& agent, const sysv::Question& q, sysv::Answer& a);
  [[nodiscard]] int attach(Agent& agent, const sysv::Question& q, sysv::Answer& a);
  [[nodiscard]] bool open(Agent& agent, const sysv::SegmentStat& segment, sysv::Answer& a);
  [[nodiscard]] int fork(Agent& agent, const sysv::Question& q);
  [[nodiscard]] int detach(Agent& agent, const sysv::Question& q);
  void detach_all(Agent& agent, Process& process);
  void end_process(Agent& agent, sysv::ProcessNumber number, Process& process);
  void leave(Agent& agent, std::uint32_t tenure);
  [[nodiscard]] int operate(Agent& agent, const sysv::Question& q, Time now);
  void cancel(Agent& agent, std::uint64_t request, int error);
  void answer_waiting(sysv::Ticket ticket, int error);
  [[nodiscard]] bool has_room_for(const Agent& agent, sysv::ProcessNumber process) const;
  [[nodiscard]] bool may_attach(const Agent& agent, std::size_t more) const;
  Process& process_of(Agent& agent, const sysv::Question& q);
  void answer(GuestId to, sysv::HostNumber viewer, sysv::Answer answer);

  // ---- sysv_report.cpp ----
  [[nodiscard]] std::string report(Time now) const;
  [[nodiscard]] std::string line_about(const sysv::SegmentStat& segment) const;

  Config config_;
  sysv::Segments segments_;
  sysv::SemaphoreSets sets_;
  std::map<GuestId, Agent> agents_;
  std::map<std::string, Host> hosts_;
  std::map<std::int32_t, Segment> stores_;  // of segments that have ever been attached
  std::vector<std::int32_t> destroyed_;     // and not swept yet
  Leases leases_;
  std::size_t processes_ = 0, attaches_ = 0;  // of all agents
  std::map<sysv::Ticket, Waiting> waiting_;
  std::set<std::pair<Time, sysv::Ticket>> timeouts_;
  std::vector<Loss> losses_;  // the latest ones
  std::uint64_t pages_lost_ = 0;
  std::vector<Command> commands_;
  sysv::HostNumber next_agent_ = 1;
  std::uint32_t next_tenure_ = 1;
  sysv::Ticket next_ticket_ = 1;
  std::uint64_t departures_ = 0;
};

}  // namespace dsm::daemon
