// dispatcher - 6C: takes texts from clients, has the worker count their words, and answers.
//
// Alone in a terminal it listens itself, and starts a worker of its own:
//
//   $ build/bin/dispatcher --socket s &
//   listening on s
//   $ build/bin/request --socket s 'to be or not to be'
//   words=6 bytes=18
//
// If that worker crashes or hangs, the dispatcher says so and ends; who asked hears "error: try again". With
// --supervised it is a child of `watchdog`, which has opened the listening socket and starts both anew.
//
// One client's request is under way at a time (link.hpp says why that cannot get stuck); the others wait in a queue. A
// client sends one frame and gets one. Nobody can hold up the others: the dispatcher never waits for one descriptor
// alone, it reads from a client what is there, it takes no more than a text has at most, and it shows to the door who
// has not sent all of it in time.
// Man pages: unix(7), poll(2), accept(2), pipe(7), signalfd(2).
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "beside.hpp"
#include "ipc/attentive.hpp"
#include "ipc/error.hpp"
#include "ipc/program.hpp"
#include "ipc/signals.hpp"
#include "ipc/socket.hpp"
#include "ipc/spawn.hpp"
#include "ipc/watchdog.hpp"
#include "link.hpp"
#include "record.hpp"

namespace {

using ipc::BeatClock;
using ipc::Milliseconds;

constexpr std::size_t max_clients = 256;  // more wait in the backlog
constexpr const char* try_again = "error: try again";

struct Settings {
  std::string socket, worker;
  std::int64_t beat_ms = 200;
  std::int64_t timeout_ms = 5000;
  bool supervised = false;
};

void stop_if_told(ipc::SignalFd& signals) {
  signalfd_siginfo signal{};
  if (signals.read(signal)) throw ipc::Stopped{static_cast<int>(signal.ssi_signo)};
}

// ---- whose child are we, and who is the worker's parent? ----

// Where the listening socket and the links come from.
class Surroundings {
 public:
  virtual ~Surroundings() = default;
  [[nodiscard]] virtual int listener() const = 0;
  [[nodiscard]] virtual int control() const = 0;  // to be polled
  // Beats, or looks whether the worker is alive. False: stop, nobody is left to work for.
  virtual bool look_around(Link& link) = 0;
  [[nodiscard]] virtual int timeout_ms() const = 0;  // until look_around() must be called again
};

class WithWatchdog : public Surroundings {
 public:
  explicit WithWatchdog(Milliseconds beat)
      : control_(ipc::inherited_socket(ipc::Supervised::control_fd, SOCK_SEQPACKET)),
        listener_(ipc::inherited_socket(listening_fd, SOCK_STREAM)),
        heart_(control_.get(), beat) {}
  [[nodiscard]] int listener() const override { return listener_.get(); }
  [[nodiscard]] int control() const override { return control_.get(); }
  bool look_around(Link& link) override {
    if (!receive_links(control_.get(), link)) return false;
    is_up_ = is_up_ || link;  // the first beat says that all is in place, so it waits for the first link
    return !is_up_ || heart_.beat();
  }
  [[nodiscard]] int timeout_ms() const override { return is_up_ ? heart_.due_ms() : -1; }

 private:
  ipc::Fd control_, listener_;
  ipc::Heartbeat heart_;
  bool is_up_ = false;
};

class Alone : public Surroundings {
 public:
  Alone(const Settings& settings, ipc::SignalFd& signals)
      : socket_(settings.socket),
        signals_(signals),
        listener_(settings.socket, SOCK_STREAM, 128),
        worker_("worker", Milliseconds(settings.beat_ms), 0) {
    ipc::set_nonblocking(listener_.fd());
    worker_.start(worker_options(settings.worker, settings.beat_ms));
  }
  [[nodiscard]] int listener() const override { return listener_.fd(); }
  [[nodiscard]] int control() const override { return worker_.control(); }
  bool look_around(Link& link) override {
    if (const auto ended = worker_.look(BeatClock::now())) throw std::runtime_error("the worker " + *ended);
    if (segment_is_made_) return true;
    NewLink made = make_link();
    if (!send_link(worker_.control(), made.worker, made.segment.id())) return true;  // look() will say what happened
    link = std::move(made.dispatcher);
    link.segment = std::move(made.segment);
    segment_is_made_ = true;
    // If nobody reads this, the worker is well and beats meanwhile; and we can be stopped.
    ipc::say_attentively("listening on " + socket_, signals_.fd(), [this] { stop_if_told(signals_); });
    return true;
  }
  [[nodiscard]] int timeout_ms() const override {
    return ipc::milliseconds_until(*worker_.next_step(), BeatClock::now());
  }

 private:
  std::string socket_;
  ipc::SignalFd& signals_;
  ipc::UnixListener listener_;
  ipc::Supervised worker_;
  bool segment_is_made_ = false;
};

// ---- a client ----

// Sends an answer and hangs up. It is the first thing that goes to this client, so there is room for it: no waiting.
void answer(const ipc::Fd& client, std::string_view text) {
  static_cast<void>(ipc::send_frame(client.get(), std::as_bytes(std::span(text))));  // it may be gone; so be it
}

// A client that has not sent all of its frame yet.
struct Caller {
  ipc::Fd fd;
  BeatClock::time_point deadline;
  std::array<std::byte, ipc::frame_prefix_size> prefix{};
  std::size_t received = 0;  // bytes, those of the prefix included
  std::string text = {};

  enum class State { sending, complete, gone, too_long };
  // Reads what is there, and not one byte beyond the frame.
  State read_more() {
    //@ solution 06.read_more
    for (;;) {
      const bool in_prefix = received < prefix.size();
      const iovec part = in_prefix
                             ? iovec{prefix.data() + received, prefix.size() - received}
                             : iovec{text.data() + (received - prefix.size()), text.size() + prefix.size() - received};
      const ipc::Transfer got = ipc::receive_some(fd.get(), {&part, 1});
      if (got.error == EAGAIN) return State::sending;
      if (got.end || got.error != 0) return State::gone;
      received += got.bytes;
      if (in_prefix && received == prefix.size()) {
        const std::size_t length = ipc::frame_length(prefix);
        if (length > max_text) return State::too_long;  // before a single byte is set aside for it
        text.resize(length);
      }
      if (received == prefix.size() + text.size() && received >= prefix.size()) return State::complete;
    }
    //@ starter
    // TODO 06.read_more: a frame comes in pieces, of any size. Collect the prefix, then so many bytes; never wait, and
    // believe no length before you have checked it.
    //| return State::gone;
    //@ end
  }
};

// A client that waits for its answer.
struct Waiting {
  ipc::Fd fd;
  std::string text;
};

// ---- the dispatcher ----

class Dispatcher {
 public:
  Dispatcher(Surroundings& surroundings, ipc::SignalFd& signals, Milliseconds patience)
      : surroundings_(surroundings), signals_(signals), patience_(patience) {}

  void run() {
    while (surroundings_.look_around(new_link_)) {
      if (new_link_) replace_link();
      hand_out();
      turn();
    }
  }

  // Nobody is left without a word.
  ~Dispatcher() {
    fail_under_way();
    for (const Waiting& client : queue_) answer(client.fd, try_again);
  }
  Dispatcher(Dispatcher&&) = delete;

 private:
  // One wait, and what came of it.
  void turn() {
    const std::array<int, 4> fixed = {signals_.fd(), surroundings_.control(),
                                      may_accept() ? surroundings_.listener() : -1, link_.in.get()};
    std::vector<pollfd> set;
    for (const int fd : fixed) set.push_back({fd, POLLIN, 0});
    for (const auto& [fd, caller] : callers_) set.push_back({fd, POLLIN, 0});
    if (::poll(set.data(), set.size(), timeout_ms()) == -1 && errno != EINTR) ipc::throw_errno("poll");

    stop_if_told(signals_);
    if (set[3].revents != 0) take_reply();
    for (std::size_t i = fixed.size(); i < set.size(); ++i) {
      if (set[i].revents != 0) hear(set[i].fd);
    }
    dismiss_late();
    if (set[2].revents != 0) accept_client();
  }

  [[nodiscard]] int timeout_ms() const {
    int least = surroundings_.timeout_ms();
    const auto now = BeatClock::now();
    for (const auto& [fd, caller] : callers_) {
      const int left = ipc::milliseconds_until(caller.deadline, now);
      least = least == -1 ? left : std::min(least, left);
    }
    return least;
  }

  [[nodiscard]] bool may_accept() const {
    return callers_.size() + queue_.size() < max_clients && BeatClock::now() >= accept_again_;
  }

  void accept_client() {
    ipc::Fd client(::accept4(surroundings_.listener(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!client) {
      if (errno == EBADF || errno == EINVAL || errno == ENOTSOCK) ipc::throw_errno("accept");
      // Of a client that has gone, or a machine that is full at the moment (EMFILE ...), nobody dies; who waits stays
      // in the backlog, and we do not run in circles meanwhile.
      accept_again_ = BeatClock::now() + Milliseconds(100);
      return;
    }
    const int fd = client.get();
    callers_.emplace(fd, Caller{std::move(client), BeatClock::now() + patience_});
  }

  void hear(int fd) {
    const auto caller = callers_.find(fd);
    switch (caller->second.read_more()) {
      case Caller::State::sending:
        return;
      case Caller::State::complete:
        queue_.push_back({std::move(caller->second.fd), std::move(caller->second.text)});
        break;
      case Caller::State::too_long:
        answer(caller->second.fd, "error: a text has at most " + std::to_string(max_text) + " bytes");
        break;
      case Caller::State::gone:
        break;
    }
    callers_.erase(caller);
  }

  void dismiss_late() {
    const auto now = BeatClock::now();
    std::erase_if(callers_, [&](const auto& entry) {
      if (entry.second.deadline > now) return false;
      answer(entry.second.fd, "error: no text within " + std::to_string(patience_.count()) + " ms");
      return true;
    });
  }

  // ---- the worker's side ----

  // The first of the queue goes to the worker, if that is free.
  void hand_out() {
    //@ solution 06.hand_out
    if (!link_ || under_way_ || queue_.empty()) return;
    const Waiting& next = queue_.front();
    std::memcpy(link_.text(), next.text.data(), next.text.size());
    const Request request{++number_, next.text.size()};
    if (ipc::write_full(link_.out.get(), &request, sizeof request) != sizeof request) return lose_link();
    under_way_ = std::move(queue_.front().fd);
    queue_.pop_front();
    //@ starter
    // TODO 06.hand_out: put the text of the first in the queue into the segment, and write a Request. When may you not?
    // What if the worker has just died: is that this client's fault?
    //| static_cast<void>(number_), static_cast<void>(&Dispatcher::lose_link);
    //| while (!queue_.empty()) {
    //|   answer(queue_.front().fd, try_again);
    //|   queue_.pop_front();
    //| }
    //@ end
  }

  void take_reply() {
    //@ solution 06.take_reply
    Reply reply{};
    if (ipc::read_full(link_.in.get(), &reply, sizeof reply) != sizeof reply) return lose_link();
    if (!under_way_ || reply.number != number_) {
      throw std::runtime_error("a reply to request " + std::to_string(reply.number) + ", which nobody waits for");
    }
    answer(*under_way_, "words=" + std::to_string(reply.words) + " bytes=" + std::to_string(reply.bytes));
    under_way_.reset();
    //@ starter
    // TODO 06.take_reply: read one Reply. Is it the reply to what was asked? And if there is none but end of file?
    //| lose_link();
    //@ end
  }

  // The worker is dead, or has a newer link already. What it was at may have been what killed it, so it is not
  // repeated: that client is told. The others wait for the next link.
  void lose_link() {
    fail_under_way();
    link_ = {};
  }
  void replace_link() {
    lose_link();
    link_ = std::exchange(new_link_, {});
  }
  void fail_under_way() {
    if (under_way_) answer(*under_way_, try_again);
    under_way_.reset();
  }

  Surroundings& surroundings_;
  ipc::SignalFd& signals_;
  Milliseconds patience_;
  Link link_, new_link_;
  std::map<int, Caller> callers_;  // by descriptor
  std::deque<Waiting> queue_;
  BeatClock::time_point accept_again_{};
  std::optional<ipc::Fd> under_way_;  // whose text the worker has; its number is number_
  std::uint64_t number_ = 0;
};

int run(const Settings& settings) {
  const sigset_t stop = ipc::stop_signals();
  const ipc::ScopedMask mask(stop);
  ipc::SignalFd signals(stop);
  const Milliseconds beat(settings.beat_ms);
  std::unique_ptr<Surroundings> surroundings;
  if (settings.supervised) {
    surroundings = std::make_unique<WithWatchdog>(beat);
  } else {
    surroundings = std::make_unique<Alone>(settings, signals);
  }
  Dispatcher(*surroundings, signals, Milliseconds(settings.timeout_ms)).run();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Settings settings;
  ipc::Program about{"dispatcher [options]: has the words of clients' texts counted by a worker",
                     ipc::po::options_description("options")};
  add_socket_path(about.options, settings.socket);
  add_worker(about.options, settings.worker);
  ipc::add_number<std::int64_t>(about.options, "beat-ms", settings.beat_ms, 20, 3'600'000, "from beat to beat");
  ipc::add_number<std::int64_t>(about.options, "timeout-ms", settings.timeout_ms, 1, 86'400'000,
                                "how long a client may take to send its text");
  about.options.add_options()("supervised", ipc::po::bool_switch(&settings.supervised),
                              "a watchdog started us: descriptor 3 leads to it, 4 is the listening socket");
  return ipc::run_program(argc, argv, about, [&](const auto&) { return run(settings); });
}
