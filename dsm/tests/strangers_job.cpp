#include "dsm/tests/strangers_job.hpp"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

#include "dsm/net/frame.hpp"
#include "dsm/net/rendezvous.hpp"

namespace dsm::launch::testing {
namespace {

constexpr std::size_t handshake = 72;  // bytes that a client says in it
constexpr std::size_t rank_count = 4;

double seconds_since(Clock::time_point begin) { return std::chrono::duration<double>(Clock::now() - begin).count(); }

// The first frame on a connection to rank 0: who believed it would have a stranger for the call lane of rank 3.
std::string lane_hello() {
  net::FrameHeader header{};
  header.kind = static_cast<std::uint8_t>(net::FrameKind::lane_hello);
  header.a = 3;
  header.b = 1;
  return {reinterpret_cast<const char*>(&header), sizeof header};
}

// What a rank says first to the rendezvous: who believed it would have a stranger for rank 3.
std::string join_frame() {
  const std::string body = net::to_json(net::Join{3, ::getpid(), 1, net::Platform::here()});
  net::FrameHeader header{};
  header.kind = static_cast<std::uint8_t>(net::FrameKind::control);
  header.length = static_cast<std::uint32_t>(body.size());
  return std::string(reinterpret_cast<const char*>(&header), sizeof header) + body;
}

// Each kind has come to this door, and the door has done with each what it does.
bool has_met_all(Strangers& strangers, std::uint16_t port, bool same_job) {
  for (std::size_t i = 0; i < kinds; ++i) {
    const auto kind = static_cast<Kind>(i);
    const Met met = strangers.met(port, kind);
    if (kind == Kind::crowd) {
      if (met.came < crowd_size || met.accepted == 0) return false;
    } else if (kind == Kind::silent || kind == Kind::half) {
      if (met.accepted == 0) return false;  // it will wait for more
    } else if (kind != Kind::same_job || same_job) {
      if (met.turned_away == 0 || (proves(kind) && met.proofs == 0)) return false;
    }
  }
  return true;
}

bool wait_for_strangers(Strangers& strangers, const std::set<std::uint16_t>& ports, bool same_job) {
  return wait_until([&] {
    strangers.look();
    return std::all_of(ports.begin(), ports.end(),
                       [&](std::uint16_t port) { return has_met_all(strangers, port, same_job); });
  });
}

std::uint16_t rendezvous_of(const Dsmexec& job) {
  std::set<std::uint16_t> ports;
  EXPECT_TRUE(wait_until([&] { return !(ports = listening({job.pid()})).empty(); })) << "dsmexec does not listen";
  return ports.empty() ? std::uint16_t{0} : *ports.begin();
}

}  // namespace

std::string handshake_of_another_job() {
  Proxy proxy;
  proxy.let_welcome_through(true);
  Dsmexec other(job({"-n", "1"}, proxy.line_through({"dsm_stress", "rmw", "--rounds", "1"})));
  proxy.lead_to(rendezvous_of(other));
  EXPECT_EQ(other.wait().code(), 0);
  EXPECT_GT(proxy.recorded().size(), handshake);
  return proxy.recorded().substr(0, handshake);
}

Besieged run_besieged(const std::vector<std::string>& line, Strangers* strangers) {
  Besieged result;
  Proxy proxy;
  Order order = job({"-v", "--size", "64M"}, proxy.line_through(line));
  order.before = {"sh", "-c", "ulimit -Sn 1024; exec \"$0\" \"$@\""};  // as is usual, whatever the strangers need
  Dsmexec job(std::move(order));
  result.rendezvous = rendezvous_of(job);
  if (strangers != nullptr) {
    strangers->visit(result.rendezvous, join_frame());
    EXPECT_TRUE(wait_for_strangers(*strangers, {result.rendezvous}, false)) << strangers->table();
  }

  Clock::time_point begin = Clock::now();
  proxy.lead_to(result.rendezvous);
  EXPECT_TRUE(wait_until([&] { return proxy.joined() == rank_count; })) << "the ranks do not join";
  result.start_s = seconds_since(begin);
  if (strangers != nullptr) {
    strangers->add_same_job(proxy.recorded().substr(0, handshake));
    EXPECT_TRUE(wait_until([&] {
      result.ranks = listening(job.left());
      result.ranks.erase(result.rendezvous);
      return result.ranks.size() == rank_count;
    })) << "not all ranks listen";
    for (const std::uint16_t port : result.ranks) strangers->visit(port, lane_hello());
    std::set<std::uint16_t> all = result.ranks;
    all.insert(result.rendezvous);
    EXPECT_TRUE(wait_for_strangers(*strangers, all, true)) << strangers->table();
  }

  begin = Clock::now();
  proxy.let_welcome_through(true);
  for (std::size_t rank = 0; rank < rank_count && job.shows("rank " + std::to_string(rank) + " runs");) ++rank;
  result.start_s += seconds_since(begin);
  begin = Clock::now();
  result.end = job.wait();
  result.work_s = seconds_since(begin);
  EXPECT_TRUE(wait_until([&] { return job.left().empty(); })) << "something is left";
  return result;
}

void make_room_for_strangers(std::size_t needed) {
  rlimit limit{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &limit), 0);
  if (limit.rlim_cur >= needed) return;
  ASSERT_GE(limit.rlim_max, needed) << "so many strangers need as many descriptors: raise the hard limit (ulimit -Hn)";
  limit.rlim_cur = needed;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
}

}  // namespace dsm::launch::testing
