// Joining a session of dsmd's: a place, and then as in a job.
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <stdexcept>
#include <system_error>
#include <thread>

#include "dsm/net/mesh_joining.hpp"
#include "ipc/error.hpp"

namespace dsm::net {
namespace {

// dsmd says who was lost, once it has made sure; it takes some seconds where only one connection has ended.
constexpr std::chrono::milliseconds verdict_patience{10'000};

// What dsmd says next: whichever of both it is.
ControlMessage await_answer(const Joining& job, Channel& daemon) {
  constexpr const char* phase = "session";
  for (;;) {
    FrameHeader header;
    const std::uint8_t* body = nullptr;
    const Io io = daemon.receive(header, body, Ahead::no);
    if (io == Io::closed) throw std::runtime_error(me(job) + "dsmd has closed the connection");
    if (io == Io::broken) throw std::runtime_error(me(job) + "dsmd sent a malformed frame");
    if (io == Io::done) {
      std::string why;
      auto message = read_control(header, body, &why);
      if (!message) throw std::runtime_error(me(job) + "dsmd's answer: " + why);
      return *std::move(message);
    }
    const int left_ms = milliseconds_until(job.deadline);
    if (left_ms == 0) throw_late(job, "no answer from dsmd", phase);
    pollfd one{daemon.fd(), POLLIN, 0};
    if (::poll(&one, 1, left_ms) < 0 && errno != EINTR) ipc::throw_errno("poll");
  }
}

std::unique_ptr<Channel> reach_daemon(const Joining& job, const SessionAddress& where) {
  const std::string at = "dsmd at " + where.daemon();
  try {
    return std::make_unique<Channel>(
        connect(where.host, where.port, job.credentials, job.deadline, max_control_body, lane_queue));
  } catch (const std::system_error& error) {
    throw std::system_error(error.code(), me(job) + "no connection to " + at + " (is it running?)");
  } catch (const std::runtime_error& error) {
    throw std::runtime_error(me(job) + at + " does not let this program in: " + error.what() +
                             " (do both have the same key file, and the same version?)");
  }
}

int own_cores() { return std::max(1, static_cast<int>(std::thread::hardware_concurrency())); }

Place ask_for_place(const Joining& job, Channel& daemon, int members) {
  if (send(daemon, Enter{job.session, members, ::getpid(), own_cores(), Platform::here()}) != Io::done)
    throw std::runtime_error(me(job) + "dsmd has closed the connection");
  const ControlMessage answer = await_answer(job, daemon);
  if (const auto* refusal = std::get_if<Refusal>(&answer)) throw std::runtime_error(me(job) + refusal->why);
  const auto* const place = std::get_if<Place>(&answer);
  if (place == nullptr) throw std::runtime_error(me(job) + "dsmd's answer is neither place nor refusal");
  return *place;
}

}  // namespace

void hear_verdict(const Joining& job, Channel& coordinator) {
  FrameHeader header;
  const std::uint8_t* body = nullptr;
  const Io io = coordinator.receive(header, body, Ahead::no);
  if (io == Io::again) return;
  if (io != Io::done) throw SessionOver(job.rank, "dsmd has ended, or cannot be reached any more");
  const std::string_view line = read_verdict(header, body);
  throw SessionOver(job.rank, line.empty() ? "dsmd sent what no dsmd of this version sends" : std::string(line));
}

void await_verdict(const Joining& job, Channel& coordinator) {
  const Deadline deadline = std::chrono::steady_clock::now() + verdict_patience;
  for (int left_ms = milliseconds_until(deadline); left_ms != 0; left_ms = milliseconds_until(deadline)) {
    hear_verdict(job, coordinator);
    pollfd one{coordinator.fd(), POLLIN, 0};
    if (::poll(&one, 1, left_ms) < 0 && errno != EINTR) ipc::throw_errno("poll");
  }
}

Mesh join_session(const JobKey& daemon_key, const SessionAddress& where, std::chrono::milliseconds patience) {
  const auto soon = [patience] { return std::chrono::steady_clock::now() + patience; };
  Joining job{daemon_key, -1, patience, soon(), where.session};
  Mesh mesh;
  mesh.session = where.session;
  mesh.coordinator = reach_daemon(job, where);
  const Place place = ask_for_place(job, *mesh.coordinator, where.members);
  mesh.rank = job.rank = place.rank;
  job.credentials = session_key(daemon_key, where.session, place.nonce);
  Acceptor acceptor(job.credentials, door(job, *mesh.coordinator, {}));
  // dsmd gives up first, and says who is missing.
  job.deadline = soon() + std::chrono::seconds(place.patience_s);
  meet(job, acceptor, mesh);
  job.deadline = soon();
  build(job, acceptor, mesh);
  return mesh;
}

}  // namespace dsm::net
