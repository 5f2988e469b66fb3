#include "dsm/launch/classroom.hpp"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <optional>
#include <vector>

#include "dsm/tests/fuzz/harness.hpp"
#include "dsm/tests/fuzz/stream.hpp"
#include "ipc/error.hpp"
#include "ipc/socket.hpp"

namespace dsm::fuzz {
namespace {

using launch::Classroom;
using std::chrono::milliseconds;

constexpr std::size_t max_clients = 16, max_blob = 6000;
constexpr milliseconds patience{10'000};

std::string hello(int rank, std::size_t size) {
  std::string out(sizeof rank + sizeof size, ' ');
  std::memcpy(out.data(), &rank, sizeof rank);
  std::memcpy(out.data() + sizeof rank, &size, sizeof size);
  return out;
}

// A client, and what should become of it.
struct Client {
  ipc::Fd wire;
  std::string name, said, got;
  Classroom::Time until;
  bool ended = false;  // the room has closed its end

  [[nodiscard]] std::optional<int> rank() const {
    int value = 0;
    if (said.size() < sizeof value) return std::nullopt;
    std::memcpy(&value, said.data(), sizeof value);
    return value;
  }
  [[nodiscard]] std::optional<std::size_t> size() const {
    std::size_t value = 0;
    if (said.size() < sizeof(int) + sizeof value) return std::nullopt;
    std::memcpy(&value, said.data() + sizeof(int), sizeof value);
    return value;
  }
  [[nodiscard]] bool offends(int ranks) const {
    return (rank() && (*rank() < 0 || *rank() >= ranks)) || (size() && *size() > max_blob);
  }
  // All of it, or nothing if it has not said all.
  [[nodiscard]] std::optional<std::string> blob(int ranks) const {
    const std::size_t head = hello(0, 0).size();
    if (offends(ranks) || !size() || said.size() - head < *size()) return std::nullopt;
    return said.substr(head, *size());
  }
};

class Lesson {
 public:
  explicit Lesson(Script& script)
      : script_(script),
        ranks_(1 + static_cast<int>(script.below(3))),
        narrow_(script.below(2) == 1),
        room_(options()) {}

  void run() {
    for (int steps = 0; steps < 100 && !script_.is_over(); ++steps) step();
    serve();
    for (Client& client : clients_) read(client);
    now_ += 2 * patience;
    serve();  // those who have not said all go, and those who did not take their answer
    for (Client& client : clients_) {
      read(client);
      check(!client.wire || client.blob(ranks_), "a client that does not say all stays for ever");
    }
    check(room_.next_deadline() == Classroom::Time::max(), "a room waits for somebody who has gone");
  }

 private:
  Classroom::Options options() {
    Classroom::Options out;
    out.ranks = ranks_;
    out.max_blob = max_blob;
    out.max_unfinished = 4;
    out.patience = patience;
    out.log = [this](const std::string& line) {
      check_line(line, "why a client is dropped is not one line");
      const auto colon = line.find(": ");
      check(colon != std::string::npos && dropped_.emplace(line.substr(0, colon), line.substr(colon + 2)).second,
            "a client is dropped twice, or has no name");
    };
    return out;
  }

  void step() {
    const std::size_t act = script_.below(8);
    if (act == 0) return admit();
    if (act == 1) {
      now_ += milliseconds(script_.byte() * 50);
      return;
    }
    if (act == 2) return serve();
    if (clients_.empty()) return;
    Client& client = clients_[script_.below(clients_.size())];
    if (act == 3) client.wire.reset();
    if (act == 4) read(client);
    if (act == 5) say(client, script_.bytes(script_.below(32)));
    if (act == 6) {
      const std::string blob = script_.bytes(script_.below(16));
      say(client, hello(static_cast<int>(script_.below(4)), blob.size()) + blob);
    }
    if (act == 7) {
      const std::size_t size = script_.below(16) * 500;
      say(client, hello(static_cast<int>(script_.below(4)), size) + std::string(size, 'x'));
    }
  }

  void admit() {
    if (clients_.size() == max_clients) return;
    Sockets sockets = socket_pair();
    if (narrow_) {
      const int small = 1;
      ipc::check(::setsockopt(sockets.one.get(), SOL_SOCKET, SO_SNDBUF, &small, sizeof small), "setsockopt SO_SNDBUF");
    }
    Client& client = clients_.emplace_back();
    client.wire = std::move(sockets.other);
    client.name = "client " + std::to_string(clients_.size());
    client.said = script_.bytes(script_.below(5));
    client.until = now_ + patience;
    room_.admit(std::move(sockets.one), client.said, client.name, now_);
  }

  void say(Client& client, const std::string& text) {
    if (!client.wire || client.said.size() > 2 * max_blob) return;
    // Nothing that comes behind the blob is read, nor what comes too late.
    if (put(client.wire.get(), text)) client.said += text;
  }

  void read(Client& client) {
    if (!client.wire) return;
    client.got += take(client.wire.get());
    char byte = 0;
    const iovec room{&byte, 1};
    const ipc::Transfer got = ipc::receive_some(client.wire.get(), {&room, 1});
    if (got.bytes != 0) client.got += byte;
    if (got.end || (got.error != 0 && got.error != EAGAIN)) end(client);
  }

  void end(Client& client) {
    client.ended = true;
    client.wire.reset();
    check_fate(client);
  }

  void serve() {
    room_.serve(now_);
    for (const auto& [name, why] : dropped_) check_reason(name, why);
    if (narrow_) return;
    std::vector<int> waiting(static_cast<std::size_t>(ranks_));
    std::size_t talking = 0;
    for (Client& client : clients_) {
      read(client);
      if (!client.wire) continue;
      check(client.got.empty(), "an answer is not followed by the end of the connection");
      check(!client.offends(ranks_), "a client that offends is not dropped");
      if (client.blob(ranks_)) {
        ++waiting[static_cast<std::size_t>(*client.rank())];
      } else {
        ++talking;
      }
    }
    std::vector<pollfd> set;
    room_.add_to(set);
    check(set.size() == talking, "a room does not wait for just those who have not said all");
    check(*std::max_element(waiting.begin(), waiting.end()) <= 1, "two clients have the same rank");
    check(*std::min_element(waiting.begin(), waiting.end()) == 0, "all are here, and nobody is answered");
  }

  // Nobody is dropped for a reason that is none.
  void check_reason(const std::string& name, const std::string& why) {
    const auto found =
        std::find_if(clients_.begin(), clients_.end(), [&](const Client& client) { return client.name == name; });
    check(found != clients_.end(), "somebody is dropped who was never there");
    const auto says = [&why](const char* text) { return why.find(text) != std::string::npos; };
    const bool whole = found->blob(ranks_).has_value();
    if (says("is no rank") || says("offers")) check(found->offends(ranks_), "a client is dropped that does not offend");
    if (says("here already")) check(whole, "a client is dropped for a rank that it has not said");
    if (says("silent")) check(!whole && now_ >= found->until, "a client is dropped that was not silent for too long");
    if (says("closed")) check(!found->wire && !whole, "a client is dropped that has not closed");
    if (says("did not take")) check(whole, "a client is answered that has not said all");
  }

  void check_fate(const Client& client) {
    const auto reason = dropped_.find(client.name);
    if (reason == dropped_.end()) {
      check(client.blob(ranks_) && is_answer(client, client.got, 0), "an answer is not everybody's blob in rank order");
    } else if (reason->second.find("did not take") == std::string::npos) {
      check(client.got.empty(), "a client is dropped and answered");
    }
  }

  // Is this what clients have said whose ranks are from `rank` on? For its own rank it must be its own.
  bool is_answer(const Client& whose, std::string_view got, int rank) {
    if (rank == ranks_) return got.empty();
    return std::any_of(clients_.begin(), clients_.end(), [&](const Client& client) {
      const auto blob = client.blob(ranks_);
      if (!blob || client.rank() != rank || (whose.rank() == rank && client.name != whose.name)) return false;
      return got.substr(0, blob->size()) == *blob && is_answer(whose, got.substr(blob->size()), rank + 1);
    });
  }

  Script& script_;
  int ranks_;
  bool narrow_;  // so that answers do not go out whole
  Classroom::Time now_ = Classroom::Time{} + std::chrono::hours(1);
  std::deque<Client> clients_;
  std::map<std::string, std::string> dropped_;  // and why
  Classroom room_;
};

}  // namespace

void classroom(Input input) {
  Script script(input);
  Lesson(script).run();
}

}  // namespace dsm::fuzz
