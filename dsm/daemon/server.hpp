// dsm/daemon/server.hpp - dsmd at work: the poll loop in which guests, the door, signals and the sessions meet.
//
// A guest is a connection that has proved the key. It has `enter` to say which session it comes for; then it is its
// session's, until that dismisses it, or it goes. What dsmd says to one guest in all its life fits into any socket's
// buffer: so nothing here blocks, whoever does not read. One thread. Not async-signal-safe.
#pragma once
#include <map>
#include <optional>
#include <string>

#include "dsm/daemon/options.hpp"
#include "dsm/daemon/sessions.hpp"
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
    bool entered = false;    // it is a session's
    bool dismissed = false;  // all has been said; what it says is not listened to
  };
  using Guests = std::map<GuestId, Guest>;

  void turn();
  [[nodiscard]] int timeout_ms(Time now) const;
  void hear(Time now);
  bool hear(GuestId id, Guest& guest, Time now);  // false: the connection is to be closed
  bool take(GuestId id, Guest& guest, const net::FrameHeader& header, const std::uint8_t* body, Time now);
  void carry_out(Time now);
  static void dismiss(Guest& guest, Time now);
  void take_in(Time now);
  void read_signals();
  void open_window(const Session& session);
  void watch(const Session& session, GuestId guest, int segment);
  void say(const std::string& line);
  void log(const std::string& line);

  const bool verbose_, once_;
  ipc::SignalFd signals_;
  net::Acceptor door_;
  Sessions sessions_;
  Guests guests_;                             // by age
  std::map<const Session*, Window> windows_;  // of those that have started
  GuestId next_ = 1;
  std::size_t unsaid_ = 0;  // lines, since the last that could be said
  int signo_ = 0;           // that came; 0: none
  bool ending_ = false;     // nobody is let in any more; it waits for those who are here to go
};

}  // namespace dsm::daemon
