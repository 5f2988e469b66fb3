#include "dsm/dshm_agent/upstream.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <fstream>
#include <stdexcept>
#include <system_error>

#include "dsm/dshm_agent/lease.hpp"
#include "ipc/error.hpp"

namespace dsm::dshm_agent {
namespace {

constexpr std::size_t with_channel_max = 256;  // frames
constexpr std::chrono::seconds connect_patience{5};

struct Server {
  std::string host;
  std::uint16_t port = 0;
};

Server parse_server(const std::string& text) {
  const std::size_t colon = text.rfind(':');
  Server out;
  if (colon != std::string::npos && colon != 0) {
    out.host = text.substr(0, colon);
    const char* const end = text.data() + text.size();
    const auto [at, error] = std::from_chars(text.data() + colon + 1, end, out.port);
    if (error != std::errc{} || at != end) out.port = 0;
    if (out.host.front() == '[' && out.host.back() == ']') out.host = out.host.substr(1, out.host.size() - 2);
  }
  if (out.host.empty() || out.port == 0) {
    throw std::runtime_error("'" + text + "' is no server; HOST:PORT is needed, as dsmd says it when it starts");
  }
  return out;
}

net::Channel connect(const std::string& server, const net::JobKey& key) {
  const Server at = parse_server(server);
  try {
    return net::connect(at.host, at.port, key, std::chrono::steady_clock::now() + connect_patience, sysv::max_frame,
                        with_channel_max);
  } catch (const std::system_error& error) {
    throw std::runtime_error("cannot reach dsmd at " + server + ": " + error.code().message() +
                             "; start dsmd there, or name another server by DSHM_SERVER");
  } catch (const std::runtime_error& error) {
    throw std::runtime_error("dsmd at " + server + " does not let this host in: " + error.what() +
                             "; it needs the same key file (DSM_KEY_FILE, or ~/.config/dsm/key) and the same version");
  }
}

std::string inode_of(const char* name) {
  struct stat status {};
  const std::string path = std::string("/proc/self/ns/") + name;
  ipc::check(::stat(path.c_str(), &status), path.c_str());
  return std::string(name) + ":" + std::to_string(status.st_ino);
}

}  // namespace

std::string host_name_for_dsmd() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string boot;
  if (!(file >> boot)) throw std::runtime_error("cannot read /proc/sys/kernel/random/boot_id; /proc is needed");
  std::array<char, 256> name{};
  ipc::check(::gethostname(name.data(), name.size() - 1), "gethostname");
  return boot + " " + inode_of("pid") + " " + inode_of("ipc") + " " + inode_of("net") + " " + name.data();
}

Upstream::Upstream(const std::string& server, const net::JobKey& key) : channel_(connect(server, key)) {
  hello(server);
}

void Upstream::hello(const std::string& server) {
  sysv::Question question;
  question.call = sysv::Call::hello;
  question.size = sysv::wire_version;
  question.text = host_name_for_dsmd();
  greeted_ns_ = boot_ns();
  send(question);
  const net::Deadline until = std::chrono::steady_clock::now() + connect_patience;
  const std::string who = "dsmd at " + server;
  for (;;) {
    sysv::Frame frame;
    if (!flush()) throw std::runtime_error(who + " has closed the connection; is it of this version?");
    const Heard heard = receive(frame);
    if (heard == Heard::ended) throw std::runtime_error(who + " has closed the connection; is it of this version?");
    if (const auto* answer = std::get_if<sysv::Answer>(&frame); heard == Heard::frame && answer != nullptr) {
      if (answer->error != 0) throw std::runtime_error(who + " refuses this host: " + answer->text);
      host_ = static_cast<sysv::HostNumber>(answer->value);
      return;
    }
    const int left_ms = net::milliseconds_until(until);
    if (left_ms == 0) throw std::runtime_error(who + " does not answer");
    pollfd one{fd(), static_cast<short>(POLLIN | (wants_output() ? POLLOUT : 0)), 0};
    if (heard == Heard::nothing && ::poll(&one, 1, left_ms) < 0 && errno != EINTR) ipc::throw_errno("poll");
  }
}

void Upstream::send(const sysv::Frame& frame) { unsent_.push_back(sysv::encode(frame)); }

void Upstream::send_first(const sysv::Frame& frame) {
  unsent_.insert(unsent_.begin() + static_cast<std::ptrdiff_t>(given_), sysv::encode(frame));
}

bool Upstream::flush() {
  for (;;) {
    while (given_ < unsent_.size() && given_ < with_channel_max) {
      net::FrameHeader header{};
      header.kind = static_cast<std::uint8_t>(net::FrameKind::sysv);
      header.length = static_cast<std::uint32_t>(unsent_[given_].size());
      if (!channel_.queue(header, unsent_[given_].data())) break;
      ++given_;
    }
    const net::Io io = channel_.flush();
    for (; given_ > channel_.queued(); --given_) unsent_.pop_front();
    if (io == net::Io::again) return true;
    if (io != net::Io::done) return false;
    if (unsent_.empty()) return true;
  }
}

Upstream::Heard Upstream::receive(sysv::Frame& out) {
  net::FrameHeader header{};
  const std::uint8_t* body = nullptr;
  const net::Io io = channel_.receive(header, body);
  if (io == net::Io::again) return Heard::nothing;
  if (io != net::Io::done || header.kind != static_cast<std::uint8_t>(net::FrameKind::sysv)) return Heard::ended;
  std::string why;
  std::optional<sysv::Frame> frame = sysv::decode({body, header.length}, why);
  if (!frame) return Heard::ended;
  out = std::move(*frame);
  return Heard::frame;
}

// A socket that is closed while something is unread resets the connection, and what dsmd has not read yet is lost: so
// first its end, then ours.
void Upstream::close(std::int64_t patience_ns) {
  bool said = false;
  std::int64_t until_ns = boot_ns() + patience_ns;
  std::uint64_t sent = channel_.counters().bytes_out;
  for (std::int64_t now = boot_ns(); now < until_ns; now = boot_ns()) {
    if (!flush()) return;
    const std::uint64_t before = std::exchange(sent, channel_.counters().bytes_out);
    if (sent != before) until_ns = boot_ns() + patience_ns;
    if (!wants_output() && !std::exchange(said, true)) ::shutdown(fd(), SHUT_WR);
    sysv::Frame ignored;
    Heard heard = Heard::frame;
    while (heard == Heard::frame) heard = receive(ignored);
    if (heard == Heard::ended) return;
    pollfd one{fd(), static_cast<short>(POLLIN | (wants_output() ? POLLOUT : 0)), 0};
    const std::int64_t left_ms = (until_ns - now) / 1'000'000 + 1;
    if (::poll(&one, 1, static_cast<int>(std::min<std::int64_t>(left_ms, 60'000))) < 0 && errno != EINTR) return;
  }
}

}  // namespace dsm::dshm_agent
