// The clockwork of ipc/watchdog.hpp: who says that he is alive, who listens, and who may try again when.
#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>

#include "ipc/socket.hpp"
#include "ipc/watchdog.hpp"

namespace ipc {

int milliseconds_until(BeatClock::time_point then, BeatClock::time_point now) noexcept {
  const auto left = std::chrono::ceil<Milliseconds>(then - now).count();
  return static_cast<int>(std::clamp<Milliseconds::rep>(left, 0, 1'000'000'000));
}

bool Heartbeat::beat() noexcept {
  //@ solution 06.beat
  if (!timer_.due(BeatClock::now())) return true;
  std::byte alive{1};
  const iovec part{&alive, sizeof alive};
  const int error = send_some(fd_, {&part, 1}).error;
  return error == 0 || error == EAGAIN;
  //@ starter
  // TODO 06.beat: if a beat is due, send one byte. The watcher may be asleep and the socket full: may you wait for it? What does send say when the watcher is dead?
  //| static_cast<void>(fd_), static_cast<void>(timer_);
  //| return true;
  //@ end
}

HeartbeatMonitor::Verdict HeartbeatMonitor::check(BeatClock::time_point now) noexcept {
  //@ solution 06.silence
  std::array<std::byte, 256> buffer;
  const iovec part{buffer.data(), buffer.size()};
  // A peer that beats like mad must not keep us here: so much at a time, and poll() will call again.
  for (int i = 0; i < 1000; ++i) {
    const Transfer got = receive_some(fd_, {&part, 1});
    if (got.end || (got.error != 0 && got.error != EAGAIN)) return Verdict::gone;
    if (got.error == EAGAIN) break;
    beats_ += got.bytes;
    silence_.heard(now);
  }
  return silence_.silent(now) ? Verdict::silent : Verdict::alive;
  //@ starter
  // TODO 06.silence: read all the beats that have come, then judge. Why not the other way round? And what do you make
  // of end of file?
  //| static_cast<void>(fd_), static_cast<void>(now);
  //| return Verdict::alive;
  //@ end
}

void RestartPolicy::started(BeatClock::time_point now) noexcept {
  last_start_ = now;
  ++in_a_row_;
}

std::optional<BeatClock::time_point> RestartPolicy::next_start() const noexcept {
  //@ solution 06.restart
  // The first of a row was no restart.
  if (in_a_row_ > max_restarts_) return std::nullopt;
  const int doublings = std::clamp(in_a_row_ - 1, 0, 16);
  return last_start_ + beat_ * (1 << doublings);
  //@ starter
  // TODO 06.restart: what dies at start again and again must neither be started in a tight loop nor for ever.
  //| static_cast<void>(beat_), static_cast<void>(max_restarts_);
  //| return last_start_;
  //@ end
}

}  // namespace ipc
