// What a home may still read of a page, and what no longer: one real rank, and a peer that the test plays, message by
// message, because only so it can leave its socket full for as long as it likes.
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <thread>

#include "dsm/node/fake_cluster.hpp"

namespace dsm::node {
namespace {

using core::Access;
using Kind = core::Message::Kind;
using telemetry::Counters;
using testing::channel_pair;
using testing::FakePager;
using testing::page_bytes;

using PageBytes = std::array<char, page_bytes>;

constexpr core::Page asked_for = 300;  // pages: far more than a socket holds
constexpr core::Page pages = 2 * (asked_for + 1);

// Rank 0 of two, home of every other page. The test is rank 1.
class Home {
 public:
  Home() {
    net::Mesh mesh;
    mesh.welcome.lanes = 1;
    mesh.links.resize(2);
    std::tie(mesh.links[1].service, service) = channel_pair();
    mesh.links[1].calls.resize(1);
    mesh.links[1].answers.resize(1);
    std::tie(mesh.links[1].calls[0], called) = channel_pair();
    std::tie(mesh.links[1].answers[0], calling) = channel_pair();
    node = std::make_unique<Node>(std::move(mesh), Node::Options{.pages = pages, .page_size = page_bytes}, publisher);
    node->start(pager);
  }
  // The peer's goodbye: a barrier, whose home is rank 0, and then the word itself.
  ~Home() {
    std::thread leaving([this] { node->finalize(); });
    net::FrameHeader bye{}, header{};
    bye.kind = static_cast<std::uint8_t>(net::FrameKind::bye);
    const core::SyncMessage arrive{.kind = core::SyncMessage::Kind::barrier_arrive, .number = 1};
    EXPECT_EQ(service->send(net::encode(arrive), nullptr), net::Io::done);
    EXPECT_EQ(service->receive_header(header), net::Io::done);  // go
    EXPECT_EQ(service->send(bye, nullptr), net::Io::done);
    leaving.join();
  }
  Home(const Home&) = delete;
  Home& operator=(const Home&) = delete;

  void want(core::Page page) {
    const core::Message message{.kind = Kind::want, .access = Access::read, .page = page};
    ASSERT_EQ(calling->send(net::encode(message, page_bytes), nullptr), net::Io::done);
  }
  static core::Message receive(net::Channel& from, PageBytes& body) {
    net::FrameHeader header{};
    core::Message message;
    EXPECT_EQ(from.receive_header(header), net::Io::done);
    EXPECT_TRUE(net::decode(header, page_bytes, message));
    EXPECT_EQ(from.receive_body(body.data()), net::Io::done);
    return message;
  }
  void write(core::Page page, char byte) {
    pager.touch(*node, page, Access::write, [byte](char* bytes) { std::fill_n(bytes, page_bytes, byte); });
  }

  telemetry::Publisher publisher{0, 2, page_bytes, pages, "msi"};
  FakePager pager{pages};
  std::unique_ptr<net::Channel> service, called, calling;  // the peer's ends
  std::unique_ptr<Node> node;
};

// The peer has dropped a copy of page 0 in silence, asks again, and answers an invalidation before it has read the grant.
TEST(Withdraw, AGrantInTheQueueReadThePageThatItsHomeWroteAgain) {
  Home home;
  home.write(0, 'a');
  for (core::Page i = 1; i <= asked_for; ++i) home.want(2 * i);
  home.want(0);
  while (home.publisher.counters().messages < asked_for + 1) std::this_thread::yield();  // all grants are in the queue

  PageBytes body{};
  std::thread writer([&home] { home.write(0, 'b'); });
  const core::Message invalidate = Home::receive(*home.called, body);
  ASSERT_EQ(invalidate.kind, Kind::invalidate);
  const core::Message answer{.kind = Kind::invalidated, .page = invalidate.page, .seq = invalidate.seq};
  ASSERT_EQ(home.called->send(net::encode(answer, page_bytes), nullptr), net::Io::done);
  writer.join();

  for (core::Page i = 1; i <= asked_for; ++i) ASSERT_EQ(Home::receive(*home.calling, body).page, 2 * i);
  const core::Message grant = Home::receive(*home.calling, body);
  EXPECT_EQ(grant.kind, Kind::grant);
  EXPECT_EQ(grant.page, 0U);
  EXPECT_TRUE(grant.carries_page);
  EXPECT_EQ(std::count(body.begin(), body.end(), '\0'), static_cast<std::ptrdiff_t>(page_bytes))
      << "the first byte is '" << body[0] << "'";
}

}  // namespace
}  // namespace dsm::node
