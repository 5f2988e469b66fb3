#include "dsm/net/handshake.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace dsm::net {
namespace {

using Role = Handshake::Role;
using State = Handshake::State;

State feed(Handshake& to, const std::string& bytes) {
  return to.feed({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()});
}

// Carries bytes both ways, at most `step` at a time, until nobody has any. Returns all that was said.
std::string converse(Handshake& client, Handshake& server, std::size_t step = 1000) {
  std::string said;
  for (;;) {
    const std::string up = client.take_output();
    const std::string down = server.take_output();
    if (up.empty() && down.empty()) return said;
    for (std::size_t i = 0; i < up.size(); i += step) feed(server, up.substr(i, step));
    for (std::size_t i = 0; i < down.size(); i += step) feed(client, down.substr(i, step));
    said += up + down;
  }
}

TEST(Handshake, TwoWhoHaveTheKeyAgree) {
  const JobKey key = random_key();
  Handshake client(Role::client, key), server(Role::server, key);
  converse(client, server);
  EXPECT_EQ(client.state(), State::done);
  EXPECT_EQ(server.state(), State::done);
  EXPECT_EQ(client.wants(), 0u);
  EXPECT_EQ(server.wants(), 0u);
}

TEST(Handshake, WorksOneByteAtATime) {
  const JobKey key = random_key();
  Handshake client(Role::client, key), server(Role::server, key);
  converse(client, server, 1);
  EXPECT_EQ(client.state(), State::done);
  EXPECT_EQ(server.state(), State::done);
}

TEST(Handshake, NeverWantsMoreThanTheHandshakeHas) {
  const JobKey key = random_key();
  Handshake client(Role::client, key), server(Role::server, key);
  std::size_t server_read = 0;
  feed(server, client.take_output());
  std::string answer = server.take_output();
  const std::size_t answer_size = answer.size();
  std::size_t client_read = 0;
  while (client.wants() != 0) {
    const std::size_t size = client.wants();
    ASSERT_LE(size, answer.size());
    feed(client, answer.substr(0, size));
    answer.erase(0, size);
    client_read += size;
  }
  EXPECT_EQ(client_read, answer_size);
  const std::string last = client.take_output();
  EXPECT_EQ(server.wants(), last.size());
  server_read += last.size();
  feed(server, last);
  EXPECT_EQ(server.state(), State::done);
}

TEST(Handshake, WrongKeyIsRefusedByTheClientFirst) {
  Handshake client(Role::client, random_key()), server(Role::server, random_key());
  converse(client, server);
  EXPECT_EQ(client.state(), State::refused);
  EXPECT_EQ(client.why(), "the peer does not have this job's key");
  EXPECT_EQ(server.state(), State::running);  // it was told nothing
}

TEST(Handshake, WrongProofIsRefusedByTheServer) {
  const JobKey key = random_key();
  Handshake client(Role::client, key), server(Role::server, key);
  feed(server, client.take_output());
  feed(client, server.take_output());
  std::string proof = client.take_output();
  proof.back() = static_cast<char>(proof.back() ^ 1);
  EXPECT_EQ(feed(server, proof), State::refused);
  EXPECT_EQ(server.why(), "the peer does not have this job's key");
}

// A stranger answers each side with that side's own words.
TEST(Handshake, ReflectedMessagesAreWorthless) {
  const JobKey key = random_key();
  Handshake client(Role::client, key);
  const std::string hello = client.take_output();
  Handshake server(Role::server, key);
  feed(server, hello);
  const std::string challenge = server.take_output();
  // The server's own proof sent back to it as the client's.
  EXPECT_EQ(feed(server, challenge.substr(challenge.size() - 32)), State::refused);
  // The client's nonce sent back to it, with a proof by a server that was given the same nonce: the nonces do not match.
  std::string forged = challenge;
  std::copy_n(hello.begin() + 8, 32, forged.begin() + 8);
  EXPECT_EQ(feed(client, forged), State::refused);
}

TEST(Handshake, ReplayedConversationIsWorthless) {
  const JobKey key = random_key();
  Handshake client(Role::client, key), server(Role::server, key);
  const std::string hello = client.take_output();
  feed(server, hello);
  const std::string challenge = server.take_output();
  feed(client, challenge);
  const std::string proof = client.take_output();
  ASSERT_EQ(feed(server, proof), State::done);

  Handshake next_server(Role::server, key);
  feed(next_server, hello);
  EXPECT_EQ(feed(next_server, proof), State::refused);
  Handshake next_client(Role::client, key);
  EXPECT_EQ(feed(next_client, challenge), State::refused);
}

TEST(Handshake, NoncesAreFresh) {
  const JobKey key = random_key();
  Handshake one(Role::client, key), other(Role::client, key);
  EXPECT_NE(one.take_output(), other.take_output());
  EXPECT_NE(random_key(), random_key());
}

TEST(Handshake, AnotherVersionIsRefusedByNameOnBothSides) {
  const JobKey key = random_key();
  Handshake client(Role::client, key), server(Role::server, key);
  std::string hello = client.take_output();
  hello[7] = 2;
  EXPECT_EQ(feed(server, hello), State::refused);
  EXPECT_EQ(server.why(), "peer speaks version 2, this is version 1");
  std::string magic = server.take_output();
  ASSERT_EQ(magic.size(), 8u);
  magic[7] = 3;
  EXPECT_EQ(feed(client, magic), State::refused);
  EXPECT_EQ(client.why(), "peer speaks version 3, this is version 1");
}

TEST(Handshake, GarbageIsRefusedAndTold) {
  const unsigned seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (int round = 0; round < 200; ++round) {
    Handshake server(Role::server, random_key()), client(Role::client, random_key());
    static_cast<void>(client.take_output());
    std::string garbage(72, '\0');
    for (char& c : garbage) c = static_cast<char>(random());
    garbage[0] = 'G';
    EXPECT_EQ(feed(server, garbage), State::refused);
    EXPECT_EQ(server.why(), "wrong first bytes");
    EXPECT_TRUE(server.take_output().empty());
    EXPECT_EQ(feed(client, garbage), State::refused);
    // The magic is public; what follows it is what counts.
    Handshake informed(Role::client, random_key());
    std::copy(handshake_magic.begin(), handshake_magic.end(), garbage.begin());
    EXPECT_EQ(feed(informed, garbage), State::refused);
  }
}

TEST(Handshake, BytesBehindTheEndAreRefused) {
  const JobKey key = random_key();
  Handshake client(Role::client, key), server(Role::server, key);
  feed(server, client.take_output());
  feed(client, server.take_output());
  EXPECT_EQ(feed(server, client.take_output() + "x"), State::refused);
}

TEST(SessionKey, DiffersWithTheDaemonTheNameAndTheNonce) {
  const JobKey daemon = random_key(), other = random_key();
  SessionNonce nonce{};
  const JobKey key = session_key(daemon, "pi", nonce);
  EXPECT_EQ(session_key(daemon, "pi", nonce), key);
  EXPECT_NE(key, daemon);
  EXPECT_NE(session_key(other, "pi", nonce), key);
  EXPECT_NE(session_key(daemon, "p", nonce), key);
  nonce[31] = 1;
  EXPECT_NE(session_key(daemon, "pi", nonce), key);
}

}  // namespace
}  // namespace dsm::net
