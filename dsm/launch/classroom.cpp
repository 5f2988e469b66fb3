#include "dsm/launch/classroom.hpp"

#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <iterator>

#include "ipc/socket.hpp"

namespace dsm::launch {
namespace {

constexpr std::size_t rank_size = sizeof(int), head_size = sizeof(int) + sizeof(std::size_t);

std::string not_taken(int rank) { return fmt::format("rank {} did not take its answer", rank); }

}  // namespace

Classroom::Classroom(Options options) : options_(std::move(options)) {}

Classroom::Step Classroom::drop(const Client& client, const std::string& why) const {
  if (options_.log) options_.log(client.peer + ": " + why);
  return Step::gone;
}

void Classroom::admit(ipc::Fd fd, std::string first, std::string peer, Time now) {
  ipc::set_nonblocking(fd.get());
  if (talking_.size() >= options_.max_unfinished) {
    (void)drop(talking_.front(), "dropped for a newer client");
    talking_.pop_front();
  }
  talking_.push_back({std::move(fd), std::move(peer), std::move(first), now + options_.patience, -1, nullptr, 0});
}

void Classroom::add_to(std::vector<pollfd>& set) const {
  for (const Client& client : talking_) set.push_back({client.fd.get(), POLLIN, 0});
  for (const Client& client : leaving_) set.push_back({client.fd.get(), POLLOUT, 0});
}

Classroom::Time Classroom::next_deadline() const {
  Time first = Time::max();
  for (const auto* list : {&talking_, &leaving_}) {
    for (const Client& client : *list) first = std::min(first, client.until);
  }
  return first;
}

Classroom::Step Classroom::read(Client& client) {
  for (;;) {
    std::size_t want = rank_size;
    if (client.in.size() >= rank_size) {
      int rank = 0;
      std::memcpy(&rank, client.in.data(), sizeof rank);
      if (rank < 0 || rank >= options_.ranks) return drop(client, fmt::format("{} is no rank of this job", rank));
      want = head_size;
      if (client.in.size() >= head_size) {
        std::size_t size = 0;
        std::memcpy(&size, client.in.data() + rank_size, sizeof size);
        if (size > options_.max_blob) {
          return drop(client, fmt::format("rank {} offers {} bytes, more than {}", rank, size, options_.max_blob));
        }
        want = head_size + size;
      }
      if (client.in.size() == want && want >= head_size) {
        client.rank = rank;
        client.in.erase(0, head_size);
        return Step::complete;
      }
    }
    std::array<char, 16384> buffer;
    const iovec room{buffer.data(), std::min(buffer.size(), want - client.in.size())};
    const ipc::Transfer got = ipc::receive_some(client.fd.get(), {&room, 1});
    client.in.append(buffer.data(), got.bytes);
    if (got.error == EAGAIN) return Step::more;
    if (got.error != 0) return drop(client, std::strerror(got.error));
    if (got.end) return drop(client, "closed before it had said all");
  }
}

Classroom::Step Classroom::write(Client& client) {
  while (client.sent < client.out->size()) {
    const iovec rest{const_cast<char*>(client.out->data()) + client.sent, client.out->size() - client.sent};
    const ipc::Transfer put = ipc::send_some(client.fd.get(), {&rest, 1});
    client.sent += put.bytes;
    if (put.error == EAGAIN) return Step::more;
    if (put.error != 0 || put.end) return drop(client, not_taken(client.rank));
  }
  return Step::complete;
}

// All are here: everybody gets the same bytes.
void Classroom::answer(Time now) {
  waiting_.sort([](const Client& a, const Client& b) { return a.rank < b.rank; });
  std::string all;
  for (const Client& client : waiting_) all += client.in;
  const auto out = std::make_shared<const std::string>(std::move(all));
  for (Client& client : waiting_) {
    client.out = out;
    client.in = std::string();
    client.until = now + options_.patience;
  }
  leaving_.splice(leaving_.end(), waiting_);
}

void Classroom::serve(Time now) {
  for (auto client = talking_.begin(); client != talking_.end();) {
    const auto next = std::next(client);
    Step step = read(*client);
    if (step == Step::more && now >= client->until) step = drop(*client, "silent for too long");
    if (step == Step::complete) {
      const auto same = [&](const Client& other) { return other.rank == client->rank; };
      if (std::any_of(waiting_.begin(), waiting_.end(), same)) {
        step = drop(*client, fmt::format("rank {} is here already", client->rank));
      } else {
        waiting_.splice(waiting_.end(), talking_, client);
      }
    }
    if (step == Step::gone) talking_.erase(client);
    if (waiting_.size() == static_cast<std::size_t>(options_.ranks)) answer(now);
    client = next;
  }
  leaving_.remove_if([&](Client& client) {
    Step step = write(client);
    if (step == Step::more && now >= client.until) step = drop(client, not_taken(client.rank));
    return step != Step::more;
  });
}

}  // namespace dsm::launch
