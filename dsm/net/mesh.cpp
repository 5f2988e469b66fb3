#include "dsm/net/mesh.hpp"

#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <exception>
#include <stdexcept>
#include <stop_token>
#include <system_error>
#include <thread>

#include "dsm/net/address.hpp"
#include "ipc/error.hpp"

// Why building the mesh cannot deadlock: every rank has two threads meanwhile. The gatherer waits only in poll(2), for
// whatever comes, and so serves every connection within a bounded time. The thread that called join() connects to one
// rank after another, and each of those calls waits only for the other rank's kernel (TCP) and for who keeps its door:
// the gatherer, or await_welcome() before. They keep it whoever is missing: no circle can form. All have the deadline.
//
// Why the two need no lock: links is laid out before the gatherer starts; the gatherer fills the service lanes of higher
// ranks and all `answers`, the other thread those of lower ranks and all `calls`. Nobody looks at what the gatherer
// filled before it was joined.

namespace dsm::net {
namespace {

constexpr std::size_t queue_size = 2048;  // frames on a lane: more than a home queues requests (core::Config::requests)
                                          // and a rank has waiters (core::max_waiters) together
// For one handshake. A rank that has the key may be slow: many of them may share a processor. Somebody who sits in a
// debugger gives the ranks more patience, and strangers none.
constexpr std::chrono::milliseconds handshake_patience{60'000};

// dsmd says who was lost, once it has made sure; it takes some seconds where only one connection has ended.
constexpr std::chrono::milliseconds verdict_patience{10'000};

struct Job {
  Credentials credentials;
  int rank;  // -1: not known yet
  std::chrono::milliseconds patience;
  Deadline deadline;
  std::string session{};  // empty: a job of dsmexec's
};

std::string duration(std::chrono::milliseconds time) {
  return time.count() % 1000 == 0 ? std::to_string(time.count() / 1000) + " s" : std::to_string(time.count()) + " ms";
}

std::string me(const Job& job) {
  const std::string session = "session '" + job.session + "': ";
  if (job.rank < 0) return session;
  return (job.session.empty() ? "" : session) + "rank " + std::to_string(job.rank) + ": ";
}

[[noreturn]] void throw_late(const Job& job, const std::string& what, const char* phase) {
  throw std::system_error(ETIMEDOUT, std::generic_category(),
                          me(job) + what + " within " + duration(job.patience) + " (" + phase + ")");
}

// connect() with a message that says who, to whom, and when in the life of the job.
Channel reach(const Job& job, const std::string& whom, const Peer& at, const char* phase, std::size_t max_body) {
  const std::string where = " to " + whom + " at " + Address{at.address, at.port}.text();
  try {
    return connect(at.address, at.port, job.credentials, job.deadline, max_body, queue_size);
  } catch (const std::system_error& error) {
    if (error.code() == std::errc::timed_out) throw_late(job, "no connection" + where, phase);
    throw std::system_error(error.code(), me(job) + "no connection" + where + " (" + phase + ")");
  } catch (const std::runtime_error& error) {
    throw std::runtime_error(me(job) + "no connection" + where + " (" + phase + "): " + error.what());
  }
}

// ---- rendezvous ----

// The door is kept meanwhile: strangers may be many, and others may have their Welcome already.
Welcome await_welcome(const Job& job, Channel& coordinator, Acceptor& acceptor) {
  constexpr const char* phase = "rendezvous";
  const std::string it = job.session.empty() ? "the coordinator" : "dsmd";
  const auto fail = [&](const std::string& why) { throw std::runtime_error(me(job) + why + " (" + phase + ")"); };
  for (;;) {
    FrameHeader header;
    const std::uint8_t* body = nullptr;
    const Io io = coordinator.receive(header, body, Ahead::no);
    if (io == Io::closed) fail(it + " has closed the connection");
    if (io == Io::broken) fail(it + " sent a malformed frame");
    if (io == Io::done) {
      std::string why;
      const auto message = read_control(header, body, &why);
      if (!message) fail(it + "'s answer: " + why);
      if (const auto* refusal = std::get_if<Refusal>(&*message)) fail("refused: " + refusal->why);
      const auto* welcome = std::get_if<Welcome>(&*message);
      if (welcome == nullptr) fail(it + "'s answer is neither welcome nor refusal");
      if (welcome->peers.size() <= static_cast<std::size_t>(job.rank))
        fail("the job is smaller than this rank's number");
      return *welcome;
    }
    if (milliseconds_until(job.deadline) == 0) throw_late(job, "not all ranks have joined", phase);
    acceptor.keep_door();
    std::vector<pollfd> set{{coordinator.fd(), POLLIN, 0}};
    acceptor.add_to(set);
    const int wait_ms = milliseconds_until(std::min(job.deadline, acceptor.next_deadline()));
    if (::poll(set.data(), set.size(), wait_ms) < 0 && errno != EINTR) ipc::throw_errno("poll");
  }
}

// ---- sessions ----

// Throws if dsmd has ended the session, or has gone itself.
void hear_verdict(const Job& job, Channel& coordinator) {
  FrameHeader header;
  const std::uint8_t* body = nullptr;
  const Io io = coordinator.receive(header, body, Ahead::no);
  if (io == Io::again) return;
  if (io != Io::done) throw SessionOver(job.rank, "dsmd has ended, or cannot be reached any more");
  const std::string_view line = read_verdict(header, body);
  throw SessionOver(job.rank, line.empty() ? "dsmd sent what no dsmd of this version sends" : std::string(line));
}

// A member is lost, as far as this one can see. Returns if dsmd does not say anything about it in time.
void await_verdict(const Job& job, Channel& coordinator) {
  const Deadline deadline = std::chrono::steady_clock::now() + verdict_patience;
  for (int left_ms = milliseconds_until(deadline); left_ms != 0; left_ms = milliseconds_until(deadline)) {
    hear_verdict(job, coordinator);
    pollfd one{coordinator.fd(), POLLIN, 0};
    if (::poll(&one, 1, left_ms) < 0 && errno != EINTR) ipc::throw_errno("poll");
  }
}

// ---- mesh ----

// Names who is called, too: the handshake proves only that somebody of this job answers. Where addresses are the same
// on several networks, or somebody in between sends connections elsewhere, that may be another rank.
FrameHeader lane_hello(int rank, int to, std::uint32_t lane) {
  FrameHeader header{};
  header.kind = static_cast<std::uint8_t>(FrameKind::lane_hello);
  header.page = static_cast<std::uint32_t>(to);
  header.a = static_cast<std::uint64_t>(rank);
  header.b = lane;
  return header;
}

// Takes the connections that others open to this rank.
class Gatherer {
 public:
  // `daemon`: to be listened to meanwhile, for it may end the session; null in a job.
  Gatherer(const Job& job, Acceptor& acceptor, std::uint32_t lanes, std::vector<Link>& links, Channel* daemon)
      : job_(job),
        acceptor_(acceptor),
        links_(links),
        daemon_(daemon),
        most_unnamed_(links.size() * (lanes + 1)),
        wake_(ipc::check(::eventfd(0, EFD_CLOEXEC), "eventfd")) {}

  // Until all are here, the deadline has passed, or the other thread has failed. Errors are left in error().
  void run(const std::stop_token& stop) noexcept {
    try {
      const std::stop_callback on_stop(stop, [this] { ::eventfd_write(wake_.get(), 1); });
      while (missing() >= 0 && !stop.stop_requested() && milliseconds_until(job_.deadline) != 0) turn();
    } catch (...) {
      error_ = std::current_exception();
    }
  }

  [[nodiscard]] std::exception_ptr error() const { return error_; }
  [[nodiscard]] const std::string& last_refusal() const { return last_refusal_; }

  // A rank of which a connection has not come yet; -1 if there is none.
  [[nodiscard]] int missing() const {
    for (std::size_t rank = 0; rank < links_.size(); ++rank) {
      const bool answers =
          std::all_of(links_[rank].answers.begin(), links_[rank].answers.end(), [](auto& c) { return c != nullptr; });
      const bool service = static_cast<int>(rank) <= job_.rank || links_[rank].service != nullptr;
      if (!answers || !service) return static_cast<int>(rank);
    }
    return -1;
  }

 private:
  void turn() {
    // Before the first wait: who was let in while the Welcome was waited for is announced by no descriptor.
    take_arrivals();
    if (missing() < 0) return;
    if (daemon_ != nullptr) hear_verdict(job_, *daemon_);
    std::vector<pollfd> set{{wake_.get(), POLLIN, 0}};
    if (daemon_ != nullptr) set.push_back({daemon_->fd(), POLLIN, 0});
    acceptor_.add_to(set);
    for (const auto& channel : unnamed_) set.push_back({channel->fd(), POLLIN, 0});
    const int wait_ms = milliseconds_until(std::min(job_.deadline, acceptor_.next_deadline()));
    if (::poll(set.data(), set.size(), wait_ms) < 0 && errno != EINTR) ipc::throw_errno("poll");
  }

  void take_arrivals() {
    for (Acceptor::Arrival& arrival : acceptor_.serve()) {
      // They know the key, and yet: never more than the whole mesh could need.
      if (unnamed_.size() == most_unnamed_) unnamed_.erase(unnamed_.begin());
      unnamed_.push_back(std::make_unique<Channel>(std::move(arrival.channel)));
    }
    std::erase_if(unnamed_, [this](auto& channel) { return settle(channel); });
  }

  // True if the connection has got its place, or is to be dropped.
  bool settle(std::unique_ptr<Channel>& channel) {
    FrameHeader header;
    const std::uint8_t* body = nullptr;
    const Io io = channel->receive(header, body, Ahead::no);
    if (io == Io::again) return false;
    if (io != Io::done) return true;
    std::unique_ptr<Channel>* const place = place_of(header);
    if (place == nullptr || *place != nullptr) {
      last_refusal_ = "a connection that says it is lane " + std::to_string(header.b) + " of rank " +
                      std::to_string(header.a) +
                      (place == nullptr ? " was refused" : " was refused: there is one already");
    } else {
      *place = std::move(channel);
    }
    return true;
  }

  std::unique_ptr<Channel>* place_of(const FrameHeader& header) {
    const std::uint64_t rank = header.a, lane = header.b;
    if (header.kind != static_cast<std::uint8_t>(FrameKind::lane_hello) || header.length != 0 || rank >= links_.size())
      return nullptr;
    if (header.page != static_cast<std::uint32_t>(job_.rank)) return nullptr;
    Link& link = links_[rank];
    if (lane == 0) return static_cast<int>(rank) > job_.rank ? &link.service : nullptr;
    return lane <= link.answers.size() ? &link.answers[lane - 1] : nullptr;
  }

  const Job& job_;
  Acceptor& acceptor_;
  std::vector<Link>& links_;
  Channel* const daemon_;
  const std::size_t most_unnamed_;
  ipc::Fd wake_;
  std::vector<std::unique_ptr<Channel>> unnamed_;  // proved the key, have not said who they are
  std::string last_refusal_;
  std::exception_ptr error_;
};

// The application's signals are for its own threads: a thread that inherits this mask gets none.
class AllSignalsBlocked {
 public:
  AllSignalsBlocked() {
    sigset_t all;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before_);
  }
  AllSignalsBlocked(const AllSignalsBlocked&) = delete;
  ~AllSignalsBlocked() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};

std::jthread start(Gatherer& gatherer) {
  const AllSignalsBlocked blocked;
  return std::jthread([&gatherer](const std::stop_token& stop) { gatherer.run(stop); });
}

void open_lanes(const Job& job, Mesh& mesh, int to) {
  const Peer& peer = mesh.welcome.peers[static_cast<std::size_t>(to)];
  Link& link = mesh.links[static_cast<std::size_t>(to)];
  for (std::uint32_t lane = to < job.rank ? 0 : 1; lane <= mesh.welcome.lanes; ++lane) {
    auto channel =
        std::make_unique<Channel>(reach(job, "rank " + std::to_string(to), peer, "mesh", mesh.welcome.page_size));
    if (channel->send(lane_hello(job.rank, to, lane), nullptr) != Io::done)
      throw std::runtime_error(me(job) + "rank " + std::to_string(to) + " has closed its connection (mesh)");
    (lane == 0 ? link.service : link.calls[lane - 1]) = std::move(channel);
  }
}

void lay_out(Mesh& mesh) {
  mesh.links.resize(mesh.welcome.peers.size());
  for (std::size_t rank = 0; rank < mesh.links.size(); ++rank) {
    if (static_cast<int>(rank) == mesh.rank) continue;
    mesh.links[rank].calls.resize(mesh.welcome.lanes);
    mesh.links[rank].answers.resize(mesh.welcome.lanes);
  }
}

// If even that fails, nobody listens.
void report_lost(Mesh& mesh, int rank) {
  static_cast<void>(report(*mesh.coordinator, {Report::Phase::lost_peer, rank}));
}

void build(const Job& job, Acceptor& acceptor, Mesh& mesh) {
  const int ranks = static_cast<int>(mesh.welcome.peers.size());
  lay_out(mesh);
  Channel* const daemon = job.session.empty() ? nullptr : mesh.coordinator.get();
  Gatherer gatherer(job, acceptor, mesh.welcome.lanes, mesh.links, daemon);
  std::jthread thread = start(gatherer);  // an exception below stops and joins it
  const auto finish = [&] {
    if (thread.joinable()) thread.join();
    if (gatherer.error()) std::rethrow_exception(gatherer.error());
  };
  for (int i = 1; i < ranks; ++i) {
    const int to = (job.rank + i) % ranks;  // not all ranks at the same one at the same time
    try {
      open_lanes(job, mesh, to);
    } catch (...) {
      report_lost(mesh, to);
      if (daemon == nullptr) throw;
      thread.request_stop();
      finish();  // it may have heard already
      await_verdict(job, *daemon);
      throw;
    }
  }
  finish();
  if (const int missing = gatherer.missing(); missing >= 0) {
    report_lost(mesh, missing);
    if (daemon != nullptr) await_verdict(job, *daemon);
    const std::string& refusal = gatherer.last_refusal();
    throw_late(job,
               "no connection from rank " + std::to_string(missing) + (refusal.empty() ? "" : " (" + refusal + ")"),
               "mesh");
  }
}

Acceptor::Options door(const Job& job, Channel& coordinator, std::function<void(const std::string&)> log) {
  Acceptor::Options options;
  options.address = local_address(coordinator.fd()).host;
  options.patience = std::min(job.patience, handshake_patience);
  options.queue = queue_size;
  options.log = std::move(log);
  return options;
}

// From Join to Welcome. The door is open before: whoever learns of its port can connect to it.
void meet(const Job& job, Acceptor& acceptor, Mesh& mesh) {
  if (send(*mesh.coordinator, Join{job.rank, ::getpid(), acceptor.port(), Platform::here()}) != Io::done)
    throw std::runtime_error(me(job) + "the coordinator has closed the connection (rendezvous)");
  mesh.welcome = await_welcome(job, *mesh.coordinator, acceptor);
  acceptor.set_max_body(mesh.welcome.page_size);
}

// ---- dsmd ----

// What dsmd says next: whichever of both it is.
ControlMessage await_answer(const Job& job, Channel& daemon) {
  constexpr const char* phase = "session";
  for (;;) {
    FrameHeader header;
    const std::uint8_t* body = nullptr;
    const Io io = daemon.receive(header, body, Ahead::no);
    if (io == Io::closed) throw std::runtime_error(me(job) + "dsmd has closed the connection");
    if (io == Io::broken) throw std::runtime_error(me(job) + "dsmd sent a malformed frame");
    if (io == Io::done) {
      std::string why;
      auto message = read_control(header, body, &why);
      if (!message) throw std::runtime_error(me(job) + "dsmd's answer: " + why);
      return *std::move(message);
    }
    const int left_ms = milliseconds_until(job.deadline);
    if (left_ms == 0) throw_late(job, "no answer from dsmd", phase);
    pollfd one{daemon.fd(), POLLIN, 0};
    if (::poll(&one, 1, left_ms) < 0 && errno != EINTR) ipc::throw_errno("poll");
  }
}

std::unique_ptr<Channel> reach_daemon(const Job& job, const SessionAddress& where) {
  const std::string at = "dsmd at " + where.daemon();
  try {
    return std::make_unique<Channel>(
        connect(where.host, where.port, job.credentials, job.deadline, max_control_body, queue_size));
  } catch (const std::system_error& error) {
    throw std::system_error(error.code(), me(job) + "no connection to " + at + " (is it running?)");
  } catch (const std::runtime_error& error) {
    throw std::runtime_error(me(job) + at + " does not let this program in: " + error.what() +
                             " (do both have the same key file, and the same version?)");
  }
}

int own_cores() { return std::max(1, static_cast<int>(std::thread::hardware_concurrency())); }

Place ask_for_place(const Job& job, Channel& daemon, int members) {
  if (send(daemon, Enter{job.session, members, ::getpid(), own_cores(), Platform::here()}) != Io::done)
    throw std::runtime_error(me(job) + "dsmd has closed the connection");
  const ControlMessage answer = await_answer(job, daemon);
  if (const auto* refusal = std::get_if<Refusal>(&answer)) throw std::runtime_error(me(job) + refusal->why);
  const auto* const place = std::get_if<Place>(&answer);
  if (place == nullptr) throw std::runtime_error(me(job) + "dsmd's answer is neither place nor refusal");
  return *place;
}

}  // namespace

Mesh join(const Credentials& credentials, int rank, const std::string& coordinator_host, std::uint16_t coordinator_port,
          std::chrono::milliseconds patience, PortRange ports, std::function<void(const std::string&)> log) {
  const Job job{credentials, rank, patience, std::chrono::steady_clock::now() + patience};
  Mesh mesh;
  mesh.rank = rank;
  mesh.coordinator = std::make_unique<Channel>(
      reach(job, "the coordinator", {coordinator_host, coordinator_port}, "rendezvous", max_control_body));
  Acceptor::Options options = door(job, *mesh.coordinator, std::move(log));
  options.ports = ports;
  Acceptor acceptor(credentials, std::move(options));
  meet(job, acceptor, mesh);
  build(job, acceptor, mesh);
  return mesh;
}

Mesh join_session(const JobKey& daemon_key, const SessionAddress& where, std::chrono::milliseconds patience) {
  const auto soon = [patience] { return std::chrono::steady_clock::now() + patience; };
  Job job{daemon_key, -1, patience, soon(), where.session};
  Mesh mesh;
  mesh.session = where.session;
  mesh.coordinator = reach_daemon(job, where);
  const Place place = ask_for_place(job, *mesh.coordinator, where.members);
  mesh.rank = job.rank = place.rank;
  job.credentials = session_key(daemon_key, where.session, place.nonce);
  Acceptor acceptor(job.credentials, door(job, *mesh.coordinator, {}));
  // dsmd gives up first, and says who is missing.
  job.deadline = soon() + std::chrono::seconds(place.patience_s);
  meet(job, acceptor, mesh);
  job.deadline = soon();
  build(job, acceptor, mesh);
  return mesh;
}

}  // namespace dsm::net
