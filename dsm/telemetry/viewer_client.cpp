#include "dsm/telemetry/viewer_client.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/endian/conversion.hpp>
#include <cerrno>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <system_error>
#include <tuple>

#include "ipc/socket.hpp"

namespace dsm::telemetry {

std::vector<JobName> jobs_in(std::string_view proc_net_unix, std::uint32_t uid) {
  constexpr unsigned long accepts = 0x10000;  // __SO_ACCEPTCON: a listener; its connections bear the same name
  std::vector<JobName> jobs;
  std::istringstream lines{std::string(proc_net_unix)};
  for (std::string line; std::getline(lines, line);) {
    std::istringstream fields(line);
    std::string address, references, protocol, flags, type, state, inode, path;
    fields >> address >> references >> protocol >> flags >> type >> state >> inode >> path;
    JobName job;
    if (!path.starts_with('@') || (std::strtoul(flags.c_str(), nullptr, 16) & accepts) == 0) continue;
    if (parse_socket_name(std::string_view(path).substr(1), job) && job.uid == uid) jobs.push_back(std::move(job));
  }
  std::sort(jobs.begin(), jobs.end(), [](const JobName& a, const JobName& b) {
    return std::tie(a.started_ms, a.pid, a.program) > std::tie(b.started_ms, b.pid, b.program);
  });
  return jobs;
}

std::vector<JobName> list_jobs() {
  std::ifstream file("/proc/net/unix");
  std::ostringstream text;
  text << file.rdbuf();
  return jobs_in(text.str(), ::geteuid());
}

std::optional<JobName> find_job(const std::vector<JobName>& jobs, std::string_view wanted) {
  const auto names = [&](auto&& same) {
    const auto at = std::find_if(jobs.begin(), jobs.end(), same);
    return at == jobs.end() ? std::nullopt : std::optional(*at);
  };
  if (wanted.empty()) return jobs.empty() ? std::nullopt : std::optional(jobs.front());
  if (auto job = names([&](const JobName& j) { return j.job() == wanted; })) return job;
  if (auto job = names([&](const JobName& j) { return std::to_string(j.pid) == wanted; })) return job;
  return names([&](const JobName& j) { return j.program == wanted; });
}

std::optional<ViewerClient> ViewerClient::connect(const JobName& job) {
  try {
    // Non-blocking from the start: a stranger who listens under the name and accepts nobody must not hold us up.
    ipc::Fd fd = ipc::connect_abstract(job.socket(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (ipc::peer_uid(fd.get()) != ::geteuid()) return std::nullopt;
    return ViewerClient(std::move(fd));
  } catch (const std::exception&) {
    return std::nullopt;
  }
}

void ViewerClient::ask() {
  if (asked_ || broken_) return;
  std::array<unsigned char, 4> length{};
  boost::endian::store_little_u32(length.data(), static_cast<std::uint32_t>(snapshot_request.size()));
  std::string frame(length.begin(), length.end());
  frame += snapshot_request;
  // A request is far smaller than the socket's buffer, which is empty: it goes in one piece, or the peer has gone.
  asked_ =
      ::send(fd_.get(), frame.data(), frame.size(), MSG_NOSIGNAL | MSG_DONTWAIT) == static_cast<ssize_t>(frame.size());
}

ViewerClient::Got ViewerClient::receive(Snapshot& out) {
  Got got = Got::nothing;
  std::array<char, 65536> buffer;
  while (!broken_) {
    if (in_.size() >= 4) {
      const std::size_t length = boost::endian::load_little_u32(reinterpret_cast<const unsigned char*>(in_.data()));
      if (length > max_answer_bytes) {
        broken_ = true;
        break;
      }
      if (in_.size() >= 4 + length) {
        std::optional<Snapshot> snapshot = decode(std::string_view(in_).substr(4, length));
        in_.erase(0, 4 + length);
        broken_ = !snapshot;
        if (snapshot) {
          out = std::move(*snapshot);
          asked_ = false;
          got = Got::snapshot;
        }
        continue;
      }
    }
    const ssize_t n = ::recv(fd_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
    if (n > 0) {
      in_.append(buffer.data(), static_cast<std::size_t>(n));
      continue;
    }
    if (n < 0 && errno == EINTR) continue;
    broken_ = n == 0 || errno != EAGAIN;
    if (!broken_) return got;
  }
  return got == Got::nothing ? Got::closed : got;
}

std::optional<Snapshot> ViewerClient::fetch(std::chrono::milliseconds deadline) {
  using Clock = std::chrono::steady_clock;
  const auto until = Clock::now() + deadline;
  ask();
  Snapshot snapshot;
  while (true) {
    const Got got = receive(snapshot);
    if (got == Got::snapshot) return snapshot;
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - Clock::now());
    if (got == Got::closed || left.count() <= 0) return std::nullopt;
    pollfd polled{fd_.get(), POLLIN, 0};
    (void)::poll(&polled, 1, static_cast<int>(left.count()));
  }
}

}  // namespace dsm::telemetry
