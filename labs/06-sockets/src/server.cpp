// server - 6A: adds the numbers of two clients, and tells both the sum.
//
//   $ build/bin/server --rounds 2 &
//   $ build/bin/client 3 & build/bin/client 4
//   $ ls -l /tmp/ipc-lab6-*.sock                 # the first letter is an s
//   $ build/bin/client -3 & build/bin/client 10
//
// One process, one poll(2), no fork: nobody is waited for alone, so a client that is silent, slow or dead holds up
// nobody else. The next two numbers to arrive are a pair, whoever they come from. Who does not get its answer gets
// "error: why", so each client hears something within --timeout-ms of its last word:
//   no number after that time; no second number after that time; no number at all, or one of over 64 bits; a sum of
//   over 64 bits; more than one number; the last round is over (a round is one sum that was printed); the server was
//   stopped by a signal, or has failed.
// A client that leaves before its pair is complete takes its number along. If it dies later, the other gets the sum.
// A sum is printed before it is answered. So who reads our output sets the pace: while that is full everybody waits,
// and only a signal is heard.
// Man pages: unix(7), socket(7), poll(2), accept(2), signalfd(2), shutdown(2).
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ipc/attentive.hpp"
#include "ipc/error.hpp"
#include "ipc/fd.hpp"
#include "ipc/program.hpp"
#include "ipc/signals.hpp"
#include "ipc/socket.hpp"
#include "record.hpp"

namespace {

using ipc::Fd;
using Clock = std::chrono::steady_clock;

struct Client {
  Fd fd;  // empty: this client is done with
  Clock::time_point deadline;
  std::optional<std::int64_t> number = {};
};

class Server {
 public:
  Server(const std::string& path, int rounds, int timeout_ms)
      : stop_(ipc::stop_signals()),
        stop_mask_(stop_),
        stop_fd_(stop_),
        listener_(path, SOCK_SEQPACKET),
        rounds_left_(rounds),
        timeout_(timeout_ms) {
    ipc::set_nonblocking(listener_.fd());
  }

  // However it comes to its end, nobody is left without a word.
  void run() {
    try {
      while (rounds_left_ > 0) turn();
    } catch (const ipc::Stopped&) {
      dismiss_all("the server was stopped");
      throw;
    } catch (const std::exception&) {
      dismiss_all("the server has failed");
      throw;
    }
    dismiss_all("the last round is over");
  }

 private:
  static constexpr std::size_t max_clients = 64;  // more wait in the backlog; the silent ones make room after a while
  static constexpr std::size_t max_text = 64;     // of a record: far more than a number needs

  // One wait, and all that came of it.
  void turn() {
    if (accept_again_ && Clock::now() >= *accept_again_) accept_again_.reset();
    std::vector<pollfd> set;
    set.push_back({stop_fd_.fd(), POLLIN, 0});
    set.push_back({clients_.size() < max_clients && !accept_again_ ? listener_.fd() : -1, POLLIN, 0});
    for (const Client& client : clients_) set.push_back({client.fd.get(), POLLIN, 0});
    if (::poll(set.data(), set.size(), milliseconds_to_wait()) == -1 && errno != EINTR) ipc::throw_errno("poll");

    stop_if_told();
    for (std::size_t i = 0; i < clients_.size(); ++i) {
      if (set[i + 2].revents != 0 && clients_[i].fd && rounds_left_ > 0) hear(clients_[i]);
    }
    if (rounds_left_ > 0) dismiss_late();
    std::erase_if(clients_, [](const Client& client) { return !client.fd; });
    if (set[1].revents != 0) accept_client();
  }

  void stop_if_told() {
    signalfd_siginfo signal{};
    if (stop_fd_.read(signal)) throw ipc::Stopped{static_cast<int>(signal.ssi_signo)};
  }

  // Until the first moment when something is to be done; -1 (no limit) if there is none.
  [[nodiscard]] int milliseconds_to_wait() const {
    Clock::time_point first = accept_again_.value_or(Clock::time_point::max());
    for (const Client& client : clients_) first = std::min(first, client.deadline);
    if (first == Clock::time_point::max()) return -1;
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(first - Clock::now()).count();
    return static_cast<int>(std::max<decltype(left)>(left, 0));
  }

  // The next one in the backlog, or nobody.
  [[nodiscard]] Fd next_in_backlog() const {
    return Fd(::accept4(listener_.fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  }

  void accept_client() {
    Fd fd = next_in_backlog();
    if (fd) {
      clients_.push_back({std::move(fd), Clock::now() + timeout_});
    } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      // We, or the whole machine, are full at the moment. Who waits stays in the backlog; poll() would report it again
      // and again, and we would run in circles.
      accept_again_ = Clock::now() + std::chrono::milliseconds(100);
    } else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
      ipc::throw_errno("accept");
    }
  }

  // A client has said something, or has gone.
  void hear(Client& client) {
    //@ solution 06.hear
    std::array<char, max_text> text;
    const ipc::Transfer got = receive_record(client.fd.get(), text);
    if (got.error == EAGAIN) return;
    if (got.error == EMSGSIZE) return refuse(client, "so long a record is no number");
    if (got.end || got.error != 0) return refuse(client, "no number came");  // mostly nobody is there to hear it
    if (client.number) return refuse(client, "one number is enough");
    try {
      client.number = ipc::whole_number({text.data(), got.bytes});
    } catch (const std::runtime_error& no_number) {
      return refuse(client, no_number.what());
    }
    client.deadline = Clock::now() + timeout_;
    for (Client& other : clients_) {
      if (&other != &client && other.fd && other.number && !has_left(other)) return pair(other, client);
    }
    //@ starter
    // TODO 06.hear: receive one record. What can it be besides a number, and who may be told what is wrong? None of it
    // may end the server, or make it wait. If it is a number: is there another client whose number waits, and who waits
    // for it?
    //| std::array<char, max_text> text;
    //| static_cast<void>(text), static_cast<void>(receive_record), static_cast<void>(&Server::pair);
    //| static_cast<void>(has_left);
    //| refuse(client, "this server cannot read yet");
    //@ end
  }

  // Maybe we have not come to hear it yet: its end and another one's number can be there in the same turn.
  static bool has_left(const Client& client) {
    pollfd look{client.fd.get(), 0, 0};  // POLLHUP needs no asking for
    return ::poll(&look, 1, 0) == 1 && (look.revents & POLLHUP) != 0;
  }

  // Two numbers are there. Somebody may have died meanwhile: the other one is told all the same.
  void pair(Client& one, Client& two) {
    //@ solution 06.pair
    std::int64_t sum = 0;
    if (__builtin_add_overflow(*one.number, *two.number, &sum)) {
      for (Client* client : {&one, &two}) refuse(*client, "the sum does not fit into 64 bits");
      return;
    }
    ipc::say_attentively("Sum: " + std::to_string(sum), stop_fd_.fd(), [this] { stop_if_told(); });
    for (Client* client : {&one, &two}) answer(*client, std::to_string(sum));
    --rounds_left_;
    //@ starter
    // TODO 06.pair: print the sum and send it to both, as text and not one byte more. When may a + b not be computed?
    // ipc/attentive.hpp prints: with say(), what could nobody do while standard output is a full pipe?
    //| refuse(one, "this server cannot add yet");
    //| refuse(two, "this server cannot add yet");
    //| static_cast<void>(rounds_left_), static_cast<void>(ipc::say_attentively);
    //@ end
  }

  // Its time is over: it was silent, or nobody else came.
  void dismiss_late() {
    const auto now = Clock::now();
    const std::string time = " within " + std::to_string(timeout_.count()) + " ms";
    for (Client& client : clients_) {
      if (!client.fd || client.deadline > now) continue;
      refuse(client, (client.number ? "nobody else sent a number" : "no number came") + time);
    }
  }

  // Tells all who are here, and all who are still in the backlog. The listener is shut first: from then on connect(2)
  // is refused, as without a server, so that nobody can come in behind the last one whom we tell.
  void dismiss_all(const std::string& why) {
    ::shutdown(listener_.fd(), SHUT_RD);
    for (Client& client : clients_) {
      if (client.fd) refuse(client, why);
    }
    for (Fd fd = next_in_backlog(); fd; fd = next_in_backlog()) {
      Client late{std::move(fd), Clock::now()};
      refuse(late, why);
    }
  }

  static void refuse(Client& client, const std::string& why) { answer(client, "error: " + why); }

  // Sends the last record of a conversation and closes. What the client has said and nobody has read would turn our
  // close into a reset, which overtakes the answer: so nothing more is let in, and what is there is thrown away.
  static void answer(Client& client, std::string_view text) {
    ::shutdown(client.fd.get(), SHUT_RD);
    std::array<char, max_text> ignored;
    ipc::Transfer rest;
    do {
      rest = receive_record(client.fd.get(), ignored);
    } while (!rest.end && (rest.error == 0 || rest.error == EMSGSIZE));
    // Never waits: a new connection has room for one short record. Who has gone cannot be told.
    static_cast<void>(send_record(client.fd.get(), text));
    client.fd.reset();
  }

  sigset_t stop_;
  ipc::ScopedMask stop_mask_;  // what stops us is read where we wait: in turn(), and for room to print
  ipc::SignalFd stop_fd_;
  ipc::UnixListener listener_;
  int rounds_left_;
  std::chrono::milliseconds timeout_;
  std::vector<Client> clients_;
  std::optional<Clock::time_point> accept_again_ = {};  // nobody is accepted before that
};

}  // namespace

int main(int argc, char** argv) {
  int rounds = 1;
  int timeout_ms = 5000;
  std::string path;
  ipc::Program about{"server [options]: adds two clients' numbers, and tells both",
                     ipc::po::options_description("options")};
  ipc::add_number(about.options, "rounds", rounds, 1, 1'000'000'000, "how many sums");
  ipc::add_number(about.options, "timeout-ms", timeout_ms, 1, 86'400'000, "how long a client may keep us waiting");
  add_socket_path(about.options, path);
  return ipc::run_program(argc, argv, about, [&](const ipc::po::variables_map&) {
    Server(path, rounds, timeout_ms).run();
    return 0;
  });
}
