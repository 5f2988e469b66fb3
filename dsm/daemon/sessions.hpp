// dsm/daemon/sessions.hpp - all sessions of one dsmd, by name, as a value.
//
// Who comes is brought to the session of that name, which is begun if there is none; what members say, and that they go,
// is passed on. A session that is over is forgotten, and a word is said about it. The server (server.hpp) tells what
// happened and when, and carries out the commands. Thread-safety: none. Not async-signal-safe.
#pragma once
#include <functional>
#include <list>
#include <string>
#include <vector>

#include "dsm/daemon/session.hpp"

namespace dsm::daemon {

class Sessions {
 public:
  struct Config {
    launch::Region region{};
    Limits limits{};
    int only = 0;  // --once: one session, of so many members; 0: as many sessions as come
    std::function<net::SessionNonce()> nonce{};
    std::function<void(const std::string&)> say{};  // what becomes of sessions
    std::function<void(const std::string&)> log{};  // and all else (-v)
    // For those who watch: a session has started; a member has named its segment; it is over, and will be gone.
    std::function<void(const Session&)> started{};
    std::function<void(const Session&, GuestId, int segment)> telemetry{};
    std::function<void(const Session&)> over{};
  };
  explicit Sessions(Config config) : config_(std::move(config)) {}

  void entered(GuestId guest, const net::Enter& enter, const std::string& address, Time now);
  // Of a guest that is in no session any more, these are ignored.
  void joined(GuestId guest, const net::Join& join, Time now);
  void reported(GuestId guest, net::Report report, Time now);
  void misbehaved(GuestId guest, const std::string& how);
  void gone(GuestId guest);
  void give_up(const std::string& why);  // all of them
  void tick(Time now);

  [[nodiscard]] std::vector<Command> take_commands() { return std::exchange(commands_, {}); }
  [[nodiscard]] Time next_deadline() const;
  [[nodiscard]] std::size_t count() const { return sessions_.size(); }
  // --once: its session has been, and is over.
  [[nodiscard]] bool served() const { return config_.only != 0 && ended_ != Ended::not_yet; }
  [[nodiscard]] bool served_well() const { return ended_ == Ended::well; }
  // Since the last call, sessions have lost members.
  [[nodiscard]] bool take_losses() { return std::exchange(losses_, false); }

 private:
  enum class Ended { not_yet, well, badly };

  [[nodiscard]] std::string against(const net::Enter& enter) const;
  [[nodiscard]] Session& session_for(const net::Enter& enter, Time now);
  template <class Tell>
  void tell(GuestId guest, const Tell& tell);
  void look(Session& session);  // what has come of it
  void sweep();

  Config config_;
  std::list<Session> sessions_;
  std::vector<Command> commands_;
  Ended ended_ = Ended::not_yet;
  bool losses_ = false;
};

}  // namespace dsm::daemon
