// dsm_slow_link - a cable between two network interfaces that takes its time and loses frames, as a long way does.
//
//   # build/bin/dsm_slow_link left right --delay-us 2000 --jitter-us 200 --loss-permille 10 --seed 7
//
// Makes two TAP interfaces with these names in the present network namespace. What goes out on one comes in on the
// other: later, in the same order, or never. One way takes the delay, a round trip two of them. Says "ready" once both
// are there; they are gone when it ends, which SIGTERM or the end of its parent makes it do. Needs root and /dev/net/tun.
// Stands in for tc-netem(8), which not every kernel has; hosts.sh puts it before a host. Source: Linux, tuntap.rst.
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <deque>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "ipc/error.hpp"
#include "ipc/fd.hpp"
#include "ipc/program.hpp"

namespace {

using Clock = std::chrono::steady_clock;
using Frame = std::vector<char>;

struct Options {
  std::int64_t delay_us = 0, jitter_us = 0;
  unsigned loss_permille = 0;
  std::size_t queue = 10000;
  std::uint64_t seed = 0;
};

ipc::Fd open_tap(const std::string& name) {
  if (name.empty() || name.size() >= IFNAMSIZ) {
    throw ipc::UsageError("'" + ipc::printable(name) + "': a name of 1 to " + std::to_string(IFNAMSIZ - 1) +
                          " characters is needed");
  }
  ipc::Fd tap(ipc::check(::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC), "open /dev/net/tun"));
  ifreq request{};
  request.ifr_flags = IFF_TAP | IFF_NO_PI;
  name.copy(request.ifr_name, IFNAMSIZ - 1);
  if (::ioctl(tap.get(), TUNSETIFF, &request) < 0) ipc::throw_errno("ioctl TUNSETIFF " + name);
  return tap;
}

// Decides what happens to a frame.
class Fate {
 public:
  explicit Fate(const Options& options) : options_(options), random_(options.seed) {}
  bool lost() { return std::uniform_int_distribution<unsigned>(0, 999)(random_) < options_.loss_permille; }
  Clock::duration delay() {
    const auto jitter = std::uniform_int_distribution<std::int64_t>(-options_.jitter_us, options_.jitter_us)(random_);
    return std::chrono::microseconds(std::max<std::int64_t>(0, options_.delay_us + jitter));
  }

 private:
  const Options& options_;
  std::mt19937_64 random_;
};

// One way: from the moment a frame has been read until it is due on the other side.
class Way {
 public:
  explicit Way(std::size_t limit) : limit_(limit) {}

  // Reads what is there. A frame that finds the queue full is lost, as in a router.
  void take_from(int tap, Fate& fate) {
    std::array<char, 65536> buffer;
    for (;;) {
      const ssize_t size = ::read(tap, buffer.data(), buffer.size());
      if (size < 0 && errno == EINTR) continue;
      if (size < 0 && errno == EAGAIN) return;
      if (ipc::check(size, "read from a TAP") == 0) return;
      if (fate.lost() || frames_.size() >= limit_) continue;
      last_ = std::max(last_, Clock::now() + fate.delay());
      frames_.emplace_back(last_, Frame(buffer.data(), buffer.data() + size));
    }
  }

  // Writes what is due. A frame that the interface does not take (it is down: EIO) is lost.
  void give_to(int tap) {
    for (const auto now = Clock::now(); !frames_.empty() && frames_.front().first <= now; frames_.pop_front()) {
      const Frame& frame = frames_.front().second;
      if (::write(tap, frame.data(), frame.size()) < 0 && errno != EIO && errno != EAGAIN)
        ipc::throw_errno("write to a TAP");
    }
  }

  [[nodiscard]] Clock::time_point due() const {
    return frames_.empty() ? Clock::time_point::max() : frames_.front().first;
  }

 private:
  std::size_t limit_;
  std::deque<std::pair<Clock::time_point, Frame>> frames_;
  Clock::time_point last_ = Clock::time_point::min();
};

[[noreturn]] void carry(const std::array<ipc::Fd, 2>& taps, const Options& options) {
  Fate fate(options);
  std::array<Way, 2> ways{Way(options.queue), Way(options.queue)};  // ways[i] leads from taps[i] to the other one
  for (;;) {
    const auto due = std::min(ways[0].due(), ways[1].due());
    const auto wait = std::max(Clock::duration::zero(), due - Clock::now());
    const auto seconds = std::chrono::floor<std::chrono::seconds>(wait);
    const timespec limit{seconds.count(), (wait - seconds).count()};
    std::array<pollfd, 2> ready{{{taps[0].get(), POLLIN, 0}, {taps[1].get(), POLLIN, 0}}};
    const bool endless = due == Clock::time_point::max();
    if (::ppoll(ready.data(), ready.size(), endless ? nullptr : &limit, nullptr) < 0 && errno != EINTR)
      ipc::throw_errno("ppoll");
    for (std::size_t i = 0; i < 2; ++i) {
      if (ready[i].revents != 0) ways[i].take_from(taps[i].get(), fate);
      ways[i].give_to(taps[1 - i].get());
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  ipc::Program about{"dsm_slow_link TAP TAP [options]\na cable between two new TAP interfaces, with delay and loss",
                     {}};
  ipc::add_number<std::int64_t>(about.options, "delay-us", options.delay_us, 0, 60'000'000, "of each frame");
  ipc::add_number<std::int64_t>(about.options, "jitter-us", options.jitter_us, 0, 60'000'000, "more or less than that");
  ipc::add_number(about.options, "loss-permille", options.loss_permille, 0U, 1000U, "of all frames, chosen at random");
  ipc::add_number<std::size_t>(about.options, "queue", options.queue, 1, 1'000'000, "how many frames are on each way");
  ipc::add_seed(about.options, options.seed);
  about.operands = {"first TAP", "second TAP"};
  return ipc::run_program(argc, argv, about, [&](const ipc::po::variables_map& values) -> int {
    ipc::check(::prctl(PR_SET_PDEATHSIG, SIGTERM), "prctl PR_SET_PDEATHSIG");
    ipc::check(::prctl(PR_SET_TIMERSLACK, 1000UL), "prctl PR_SET_TIMERSLACK");  // 1 us, not 50
    const std::array<ipc::Fd, 2> taps{open_tap(values["first TAP"].as<std::string>()),
                                      open_tap(values["second TAP"].as<std::string>())};
    ipc::say("ready");
    carry(taps, options);
  });
}
