#include "dsm/telemetry/viewer_port.hpp"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/endian/conversion.hpp>
#include <cerrno>
#include <charconv>
#include <system_error>

#include "ipc/socket.hpp"

namespace dsm::telemetry {
namespace {

constexpr std::size_t max_program_bytes = 64;
constexpr auto slow = std::chrono::seconds(2);  // without taking a byte of what it asked for

bool graphic(char c) { return c > ' ' && c <= '~' && c != '/'; }

std::string program_name(std::string_view path) {
  while (path.size() > 1 && path.back() == '/') path.remove_suffix(1);
  std::string name(path.substr(path.rfind('/') + 1));
  name.resize(std::min(name.size(), max_program_bytes));
  std::replace_if(
      name.begin(), name.end(), [](char c) { return !graphic(c); }, '_');
  return name.empty() ? "program" : name;
}

// Takes a number and the separator after it off the front of `text`.
template <class Int>
bool take_number(std::string_view& text, char separator, Int& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  const auto used = static_cast<std::size_t>(end - text.data());
  if (error != std::errc() || out < 0 || used >= text.size() || *end != separator) return false;
  text.remove_prefix(used + 1);
  return true;
}

std::string frame_of(std::string_view body) {
  std::array<unsigned char, 4> length{};
  boost::endian::store_little_u32(length.data(), static_cast<std::uint32_t>(body.size()));
  std::string frame(length.begin(), length.end());
  frame.append(body);
  return frame;
}

}  // namespace

std::string JobName::socket() const {
  return "dsm/" + std::to_string(uid) + '/' + std::to_string(started_ms) + '-' + std::to_string(pid) + '/' + program;
}

std::string JobName::job() const { return program + '-' + std::to_string(pid); }

bool parse_socket_name(std::string_view name, JobName& out) {
  constexpr std::string_view prefix = "dsm/";
  if (!name.starts_with(prefix)) return false;
  name.remove_prefix(prefix.size());
  JobName parsed;
  std::int64_t uid = 0;
  if (!take_number(name, '/', uid) || uid > UINT32_MAX || !take_number(name, '-', parsed.started_ms) ||
      !take_number(name, '/', parsed.pid)) {
    return false;
  }
  if (name.empty() || name.size() > max_program_bytes || !std::all_of(name.begin(), name.end(), graphic)) return false;
  parsed.uid = static_cast<std::uint32_t>(uid);
  parsed.program = name;
  out = std::move(parsed);
  return true;
}

ViewerPort::ViewerPort(std::string_view program) {
  using namespace std::chrono;
  name_.uid = ::geteuid();
  name_.started_ms = duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count();
  name_.pid = ::getpid();
  name_.program = program_name(program);
  listener_ = ipc::listen_abstract(name_.socket(), SOCK_STREAM, max_viewers);
  ipc::set_nonblocking(listener_.get());
}

ViewerPort::~ViewerPort() = default;

void ViewerPort::add_to(std::vector<pollfd>& polled) const {
  if (listener_ && Clock::now() >= deaf_until_) polled.push_back({listener_.get(), POLLIN, 0});
  for (const Client& client : clients_) {
    const int events = POLLIN | (client.out.empty() ? 0 : POLLOUT);
    polled.push_back({client.fd.get(), static_cast<short>(events), 0});
  }
}

void ViewerPort::serve() {
  take_in();
  for (Client& client : clients_) {
    if (!client.gone) listen_to(client);
    if (!client.gone) send_on(client);
    if (!client.out.empty() && Clock::now() - client.heard > slow) client.gone = true;
  }
  clients_.remove_if([](const Client& client) { return client.gone; });
}

void ViewerPort::take_in() {
  // Bounded, so that a stranger who knocks without end does not keep dsmexec from its work.
  for (int knocks = 0; knocks < 64 && listener_; ++knocks) {
    ipc::Fd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (!fd) {
      if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
        deaf_until_ = Clock::now() + std::chrono::seconds(1);
      }
      return;
    }
    try {
      if (ipc::peer_uid(fd.get()) != ::geteuid()) continue;
    } catch (const std::system_error&) {
      continue;
    }
    if (clients_.size() >= max_viewers) {
      clients_.erase(std::min_element(clients_.begin(), clients_.end(),
                                      [](const Client& a, const Client& b) { return a.heard < b.heard; }));
    }
    clients_.push_back({std::move(fd), {}, {}, 0, false, false, Clock::now()});
  }
}

// A client may speak only when nothing is owed to it: whatever else it says, it is no dsmtop.
void ViewerPort::listen_to(Client& client) {
  const std::string request = frame_of(snapshot_request);
  std::array<char, 64> buffer{};
  const ssize_t n = ::recv(client.fd.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
  if (n < 0) {
    client.gone = errno != EAGAIN && errno != EINTR;
    return;
  }
  client.in.append(buffer.data(), static_cast<std::size_t>(n));
  client.heard = Clock::now();
  if (n == 0 || client.asked || !client.out.empty() || !request.starts_with(client.in)) {
    client.gone = true;
  } else if (client.in == request) {
    client.in.clear();
    client.asked = true;
  }
}

void ViewerPort::send_on(Client& client) {
  while (client.sent < client.out.size()) {
    const ssize_t n = ::send(client.fd.get(), client.out.data() + client.sent, client.out.size() - client.sent,
                             MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      client.gone = client.gone || errno != EAGAIN;
      return;
    }
    client.sent += static_cast<std::size_t>(n);
    client.heard = Clock::now();
  }
  client.out.clear();
  client.sent = 0;
}

bool ViewerPort::pending() const noexcept {
  return std::any_of(clients_.begin(), clients_.end(), [](const Client& client) { return client.asked; });
}

void ViewerPort::queue(Client& client, const std::string& frame) {
  client.asked = false;
  if (client.out.empty()) client.heard = Clock::now();
  client.out += frame;
  send_on(client);
}

void ViewerPort::answer(const Snapshot& snapshot) {
  if (!pending()) return;
  const std::string frame = frame_of(encode(snapshot));
  for (Client& client : clients_) {
    if (client.asked) queue(client, frame);
  }
}

void ViewerPort::finish(Snapshot last, std::chrono::milliseconds patience) {
  const auto deadline = Clock::now() + patience;
  last.ended = true;
  serve();
  const std::string frame = frame_of(encode(last));
  for (Client& client : clients_) queue(client, frame);
  listener_.reset();

  while (true) {
    clients_.remove_if([](const Client& client) { return client.gone || client.out.empty(); });
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
    if (clients_.empty() || left.count() <= 0) break;
    std::vector<pollfd> polled;
    for (const Client& client : clients_) polled.push_back({client.fd.get(), POLLOUT, 0});
    if (::poll(polled.data(), polled.size(), static_cast<int>(left.count())) < 0 && errno != EINTR) break;
    for (Client& client : clients_) send_on(client);
  }
  clients_.clear();
}

}  // namespace dsm::telemetry
