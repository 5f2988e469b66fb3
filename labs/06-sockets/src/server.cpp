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
//   over 64 bits; more than one number; the last round is over (a round is one sum that was printed).
// A client that leaves before its pair is complete takes its number along. If it dies later, the other gets the sum.
// Man pages: unix(7), socket(7), poll(2), accept(2), signalfd(2), shutdown(2).
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

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

  void run() {
    while (rounds_left_ > 0) turn();
    // Nobody is left without a word: neither who is here nor who is still in the backlog.
    for (std::size_t i = 0; i < max_clients && accept_client(); ++i) continue;
    for (Client& client : clients_) {
      if (client.fd) refuse(client, "the last round is over");
    }
  }

 private:
  static constexpr std::size_t max_clients = 64;  // more wait in the backlog; the silent ones make room after a while
  static constexpr std::size_t max_text = 64;     // of a record: far more than a number needs

  // One wait, and all that came of it.
  void turn() {
    std::vector<pollfd> set;
    set.push_back({stop_fd_.fd(), POLLIN, 0});
    set.push_back({clients_.size() < max_clients ? listener_.fd() : -1, POLLIN, 0});
    for (const Client& client : clients_) set.push_back({client.fd.get(), POLLIN, 0});
    if (::poll(set.data(), set.size(), milliseconds_to_wait()) == -1 && errno != EINTR) ipc::throw_errno("poll");

    signalfd_siginfo signal{};
    if (stop_fd_.read(signal)) throw ipc::Stopped{static_cast<int>(signal.ssi_signo)};
    for (std::size_t i = 0; i < clients_.size(); ++i) {
      if (set[i + 2].revents != 0 && clients_[i].fd && rounds_left_ > 0) hear(clients_[i]);
    }
    if (rounds_left_ > 0) dismiss_late();
    std::erase_if(clients_, [](const Client& client) { return !client.fd; });
    if (set[1].revents != 0) accept_client();
  }

  // Until the first deadline; -1 (no limit) when nobody is here.
  [[nodiscard]] int milliseconds_to_wait() const {
    if (clients_.empty()) return -1;
    const auto first = std::min_element(clients_.begin(), clients_.end(),
                                        [](const Client& a, const Client& b) { return a.deadline < b.deadline; });
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(first->deadline - Clock::now()).count();
    return static_cast<int>(std::max<decltype(left)>(left, 0));
  }

  // False if nobody is there (any more).
  bool accept_client() {
    Fd fd(::accept4(listener_.fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (fd) {
      clients_.push_back({std::move(fd), Clock::now() + timeout_});
      return true;
    }
    if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) ipc::throw_errno("accept");
    return false;
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
      if (&other != &client && other.fd && other.number) return pair(other, client);
    }
    //@ starter
    // TODO 06.hear: receive one record. What can it be besides a number, and who may be told what is wrong? None of it
    // may end the server, or make it wait. If it is a number: is there another client whose number waits?
    //| std::array<char, max_text> text;
    //| static_cast<void>(text), static_cast<void>(receive_record), static_cast<void>(&Server::pair);
    //| refuse(client, "this server cannot read yet");
    //@ end
  }

  // Two numbers are there. Somebody may have died meanwhile: the other one is told all the same.
  void pair(Client& one, Client& two) {
    //@ solution 06.pair
    std::int64_t sum = 0;
    if (__builtin_add_overflow(*one.number, *two.number, &sum)) {
      for (Client* client : {&one, &two}) refuse(*client, "the sum does not fit into 64 bits");
      return;
    }
    ipc::say("Sum: " + std::to_string(sum));
    for (Client* client : {&one, &two}) answer(*client, std::to_string(sum));
    --rounds_left_;
    //@ starter
    // TODO 06.pair: print the sum and send it to both, as text and not one byte more. When may a + b not be computed?
    //| refuse(one, "this server cannot add yet");
    //| refuse(two, "this server cannot add yet");
    //| static_cast<void>(rounds_left_);
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
  ipc::ScopedMask stop_mask_;  // what stops us is read in turn(), between two clients
  ipc::SignalFd stop_fd_;
  ipc::UnixListener listener_;
  int rounds_left_;
  std::chrono::milliseconds timeout_;
  std::vector<Client> clients_;
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
