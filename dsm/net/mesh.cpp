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
#include "dsm/net/mesh_joining.hpp"
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

// For one handshake. A rank that has the key may be slow: many of them may share a processor. Somebody who sits in a
// debugger gives the ranks more patience, and strangers none.
constexpr std::chrono::milliseconds handshake_patience{60'000};

std::string duration(std::chrono::milliseconds time) {
  return time.count() % 1000 == 0 ? std::to_string(time.count() / 1000) + " s" : std::to_string(time.count()) + " ms";
}

// connect() with a message that says who, to whom, and when in the life of the job.
Channel reach(const Joining& job, const std::string& whom, const Peer& at, const char* phase, std::size_t max_body) {
  const std::string where = " to " + whom + " at " + Address{at.address, at.port}.text();
  try {
    return connect(at.address, at.port, job.credentials, job.deadline, max_body, lane_queue);
  } catch (const std::system_error& error) {
    if (error.code() == std::errc::timed_out) throw_late(job, "no connection" + where, phase);
    throw std::system_error(error.code(), me(job) + "no connection" + where + " (" + phase + ")");
  } catch (const std::runtime_error& error) {
    throw std::runtime_error(me(job) + "no connection" + where + " (" + phase + "): " + error.what());
  }
}

// ---- rendezvous ----

// The door is kept meanwhile: strangers may be many, and others may have their Welcome already.
Welcome await_welcome(const Joining& job, Channel& coordinator, Acceptor& acceptor) {
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
  Gatherer(const Joining& job, Acceptor& acceptor, std::uint32_t lanes, std::vector<Link>& links, Channel* daemon)
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

  const Joining& job_;
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

void open_lanes(const Joining& job, Mesh& mesh, int to) {
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

}  // namespace

std::string me(const Joining& job) {
  const std::string session = job.session.empty() ? "" : "session '" + job.session + "': ";
  return job.rank < 0 ? session : session + "rank " + std::to_string(job.rank) + ": ";
}

void throw_late(const Joining& job, const std::string& what, const char* phase) {
  throw std::system_error(ETIMEDOUT, std::generic_category(),
                          me(job) + what + " within " + duration(job.patience) + " (" + phase + ")");
}

void build(const Joining& job, Acceptor& acceptor, Mesh& mesh) {
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

Acceptor::Options door(const Joining& job, Channel& coordinator, std::function<void(const std::string&)> log) {
  Acceptor::Options options;
  options.address = local_address(coordinator.fd()).host;
  options.patience = std::min(job.patience, handshake_patience);
  options.queue = lane_queue;
  options.log = std::move(log);
  return options;
}

void meet(const Joining& job, Acceptor& acceptor, Mesh& mesh) {
  if (send(*mesh.coordinator, Join{job.rank, ::getpid(), acceptor.port(), Platform::here()}) != Io::done)
    throw std::runtime_error(me(job) + "the coordinator has closed the connection (rendezvous)");
  mesh.welcome = await_welcome(job, *mesh.coordinator, acceptor);
  acceptor.set_max_body(mesh.welcome.page_size);
}

Mesh join(const Credentials& credentials, int rank, const std::string& coordinator_host, std::uint16_t coordinator_port,
          std::chrono::milliseconds patience, PortRange ports, std::function<void(const std::string&)> log) {
  const Joining job{credentials, rank, patience, std::chrono::steady_clock::now() + patience};
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

}  // namespace dsm::net
