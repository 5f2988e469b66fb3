// dsm/launch/classroom.hpp - the open rendezvous: any program may publish a blob and gets everybody's.
//
// A client sends its rank (4-byte int), a size (8-byte size_t) and that many bytes, in native order. When all N have,
// each gets all N blobs in rank order, without their sizes, and its connection is closed. Shares its port with the
// keyed rendezvous (net::Acceptor hands over whoever does not start with the magic). Ranks and sizes are bounded, a
// second client of a rank is dropped, a silent one too after a while; none stalls another. For a poll loop.
// Thread-safety: none.
#pragma once
#include <poll.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "ipc/fd.hpp"

namespace dsm::launch {

class Classroom {
 public:
  using Time = std::chrono::steady_clock::time_point;
  struct Options {
    int ranks = 1;
    std::uint64_t max_blob = 1u << 20;            // bytes
    std::size_t max_unfinished = 128;             // clients that have not said all; the oldest is dropped for a new one
    std::chrono::milliseconds patience{10'000};   // for a client to say all, and to take the answer
    std::function<void(const std::string&)> log;  // one line for each client that is dropped
  };
  explicit Classroom(Options options);

  // `first`: what was already read from it, at most 4 bytes. `peer`: its name in messages.
  void admit(ipc::Fd fd, std::string first, std::string peer, Time now);
  void add_to(std::vector<pollfd>& set) const;
  void serve(Time now);
  [[nodiscard]] Time next_deadline() const;

 private:
  struct Client {
    ipc::Fd fd;
    std::string peer, in;
    Time until;
    int rank = -1;  // when it has said all
    std::shared_ptr<const std::string> out;
    std::size_t sent = 0;
  };
  enum class Step : std::uint8_t { more, complete, gone };
  Step read(Client& client);
  Step write(Client& client);
  Step drop(const Client& client, const std::string& why) const;
  void answer(Time now);

  Options options_;
  std::list<Client> talking_, waiting_, leaving_;
};

}  // namespace dsm::launch
