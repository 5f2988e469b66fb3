// dsm/daemon/server.hpp - dsmd at work: the poll loop in which guests, the door, signals, the sessions and the System V
// objects meet.
//
// A guest is a connection that has proved the key. It has `enter` to say which session it comes for; then it is its
// session's, until that dismisses it, or it goes. What dsmd says to one member in all its life fits into any socket's
// buffer. Or it is a host's agent of System V IPC, and its first frame says so; what waits to be sent to that is in an
// Outbox. So nothing here blocks, whoever does not read. One thread. Not async-signal-safe.
#pragma once
#include <map>
#include <optional>
#include <span>
#include <string>

#include "dsm/daemon/options.hpp"
#include "dsm/daemon/outbox.hpp"
#include "dsm/daemon/sessions.hpp"
#include "dsm/daemon/sysv_home.hpp"
#include "dsm/daemon/turned_away.hpp"
#include "dsm/daemon/window.hpp"
#include "dsm/net/acceptor.hpp"
#include "ipc/signals.hpp"

namespace dsm::daemon {

class Server {
 public:
  // Takes TERM, INT and HUP into its own hands, and listens. Throws std::system_error, with one line that says what to do.
  Server(const Options& options, const net::JobKey& key);
  Server(const Server&) = delete;
  [[nodiscard]] std::uint16_t port() const noexcept { return door_.port(); }
  // Until a signal comes, or, with --once, its session is over. False: with --once, if that has not ended well.
  bool run();

 private:
  struct Guest {
    net::Channel channel;
    std::string address;
    Time until;              // ... it has entered; ... it has gone, once dismissed
    bool entered = false;    // it is a session's, or an agent
    bool dismissed = false;  // all has been said; what it says is not listened to
    bool agent = false;      // of System V IPC
    bool more = false;       // it had more to say than one gets a hearing for in one turn
    Outbox out{};            // to an agent
    bool shut = false;       // and it has been told that this was all
  };
  using Guests = std::map<GuestId, Guest>;

  void turn();
  [[nodiscard]] int timeout_ms(Time now) const;
  void hear(Time now);
  bool hear(GuestId id, Guest& guest, Time now);  // false: the connection is to be closed
  bool take(GuestId id, Guest& guest, const net::FrameHeader& header, const std::uint8_t* body, Time now);
  bool take_sysv(GuestId id, Guest& guest, const net::FrameHeader& header, const std::uint8_t* body);
  void refuse_sysv(Guest& guest, std::span<const std::uint8_t> hello, Time now);  // --once
  void carry_out(Time now);
  void hand_out(Time now);  // what the System V objects' home has to say
  void flush(Time now);
  static void shut_if_over(Guest& guest);
  static void dismiss(Guest& guest, Time now);
  void take_in(Time now);
  void read_signals();
  void open_window(const Session& session);
  void watch(const Session& session, GuestId guest, int segment);
  void say(const std::string& line);
  void log(const std::string& line);

  const bool verbose_, once_;
  ipc::SignalFd signals_;
  TurnedAway turned_away_;
  net::Acceptor door_;
  Sessions sessions_;
  SysvHome sysv_;
  Guests guests_;                             // by age
  std::map<const Session*, Window> windows_;  // of those that have started
  GuestId next_ = 1;
  std::size_t told_ = 0;    // bytes to agents in this turn
  std::size_t unsaid_ = 0;  // lines, since the last that could be said
  int signo_ = 0;           // that came; 0: none
  bool ending_ = false;     // nobody is let in any more; it waits for those who are here to go
};

}  // namespace dsm::daemon
