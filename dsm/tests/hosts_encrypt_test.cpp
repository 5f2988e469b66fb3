// Jobs with --encrypt over real ssh, and what somebody between two hosts gets to see of them.
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netpacket/packet.h>
#include <sys/socket.h>

#include <array>

#include "dsm/tests/hosts_bench.hpp"
#include "ipc/error.hpp"
#include "ipc/fd.hpp"

namespace dsm::launch::testing {
namespace {

// All that goes over one network device of this machine's, packet(7).
class Tap {
 public:
  explicit Tap(const std::string& device)
      : fd_(ipc::check(::socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, htons(ETH_P_ALL)), "socket")) {
    constexpr int room = 64 << 20;  // bytes; more than one of these jobs says
    ipc::check(::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof room), "setsockopt SO_RCVBUFFORCE");
    sockaddr_ll at{};
    at.sll_family = AF_PACKET;
    at.sll_protocol = htons(ETH_P_ALL);
    at.sll_ifindex = static_cast<int>(::if_nametoindex(device.c_str()));
    EXPECT_NE(at.sll_ifindex, 0) << device;
    ipc::check(::bind(fd_.get(), reinterpret_cast<const sockaddr*>(&at), sizeof at), "bind");
  }
  // What has gone over it, packet after packet. Fails the test if some was missed.
  [[nodiscard]] std::string taken() const {
    std::string all;
    std::array<char, 70'000> packet{};
    ssize_t got = 0;
    while ((got = ::recv(fd_.get(), packet.data(), packet.size(), 0)) >= 0) {
      all.append(packet.data(), static_cast<std::size_t>(got));
    }
    Statistics counts{};
    socklen_t size = sizeof counts;
    ipc::check(::getsockopt(fd_.get(), SOL_PACKET, PACKET_STATISTICS, &counts, &size), "getsockopt PACKET_STATISTICS");
    EXPECT_EQ(counts.dropped, 0U);
    return all;
  }

 private:
  struct Statistics {  // tpacket_stats of linux/if_packet.h, which does not go together with the C library's headers
    unsigned packets, dropped;
  };
  ipc::Fd fd_;
};

bool has(const std::string& all, const std::string& part) { return all.find(part) != std::string::npos; }

TEST_F(Hosts, EncryptedJobsVerifyUnderEachProtocol) {
  for (const char* protocol : {"msi", "migrate"}) {
    for (const Words& line : {Words{"demo"}, {"dsm_stress", "rmw", "--rounds", "200", "--threads", "2"}}) {
      const Ended r = run(on({1, 2, 3, 4}, {"--encrypt", "-p", protocol, "--size", "64M"}, line));
      EXPECT_EQ(r.code(), 0) << protocol << text(r);
      EXPECT_EQ(r.err, "") << protocol << line[0];
    }
  }
}

// Rank 0 is on this machine, rank 1 on another: pages go over the one link between the two, and so does what rank 1 and
// dsmexec say to each other.
TEST_F(Hosts, NothingOfAnEncryptedJobIsReadOnItsWay) {
  const std::string address = master();  // 10.77.X.254; the device is dsmX (hosts.sh)
  const std::string device = "dsm" + address.substr(6, address.rfind('.') - 6);
  for (const bool encrypt : {false, true}) {
    SCOPED_TRACE(encrypt ? "encrypted" : "in the clear");
    const Tap tap(device);
    Words options = {"--size", "16M"};
    if (encrypt) options.emplace_back("--encrypt");
    const Ended r = run(on_machines(Words{"localhost", name(1)}, options, {"hello"}));
    EXPECT_EQ(r.code(), 0) << text(r);
    EXPECT_TRUE(has_line(r.out, {"rank 1 of 2 was here"})) << text(r);
    const std::string seen = tap.taken();
    EXPECT_TRUE(has(seen, "SSH-2.0")) << "not the device over which the job goes: " << seen.size() << " bytes";
    EXPECT_EQ(has(seen, "rank 1 of 2 was here"), !encrypt) << "a page";
    EXPECT_EQ(has(seen, "\"page_size\""), !encrypt) << "what dsmexec answers to a rank that joins";
  }
}

}  // namespace
}  // namespace dsm::launch::testing
