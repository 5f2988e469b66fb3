// dsm/core/sync_talk.hpp - a scripted conversation between a few Sync values, written down as it goes: a line for each
// message sent, `from>to what`, and for each wait that is over, `node.waiter how`.
//
// Thread-safety: none.
#pragma once
#include <gtest/gtest.h>

#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "dsm/core/sync.hpp"

namespace dsm::core::testing {

inline std::string words(const SyncMessage& m) {
  static const char* const names[] = {"barrier_arrive", "barrier_go",  "lock_try",  "lock_tried",   "sem_open",
                                      "sem_opened",     "sem_want",    "sem_grant", "sem_post",     "sem_posted",
                                      "cond_wait",      "cond_queued", "lock_want", "lock_refused", "lock_next",
                                      "lock_token",     "lock_ask",    "lock_told", "cond_signal",  "cond_wake"};
  std::string text = names[static_cast<unsigned>(m.kind)];
  if (m.kind == SyncMessage::Kind::lock_next) text += " " + std::to_string(m.node);
  const bool told = m.kind == SyncMessage::Kind::lock_tried || m.kind == SyncMessage::Kind::lock_told ||
                    m.kind == SyncMessage::Kind::sem_grant;
  if (told) text += m.yes ? " yes" : m.full ? " full" : " no";
  return text;
}

// A few nodes and the messages between them, delivered in the order in which they were sent.
class SyncTalk {
 public:
  explicit SyncTalk(std::uint8_t nodes, std::uint32_t locks = 16) {
    for (Node n = 0; n < nodes; ++n) {
      config_ = SyncConfig{.self = n, .nodes = nodes, .waiters = 4, .locks = locks, .semaphores = 2};
      nodes_.emplace_back(config_);
    }
  }
  void want(Node at, Key lock, Waiter waiter = 0) { step(at, LockWant{lock, waiter, waiter + 1U}); }
  void attempt(Node at, Key lock, Waiter waiter = 0) { step(at, LockTry{lock, waiter, waiter + 1U, lane(waiter)}); }
  void free(Node at, Key lock) { step(at, LockFree{lock}); }
  void arrive(Node at, Waiter waiter = 0) { step(at, BarrierArrive{waiter, lane(waiter)}); }
  void step(Node at, const SyncEvent& event) {
    SyncActions out(config_);
    nodes_[at].step(event, out);
    for (const auto& action : out) {
      if (const auto* send = std::get_if<SyncSend>(&action)) {
        text_ += std::to_string(at) + ">" + std::to_string(send->to) + " " + words(send->msg) + "\n";
        flights_.push_back({send->to, SyncReceived{at, send->lane, send->msg}});
        ++messages_;
      } else if (const auto* done = std::get_if<Done>(&action)) {
        static const char* const results[] = {"done", "busy", "full"};
        text_ += std::to_string(at) + "." + std::to_string(done->who) + " " +
                 results[static_cast<unsigned>(done->result)] + "\n";
      } else if (const auto* differ = std::get_if<Differ>(&action)) {
        text_ += std::to_string(differ->one) + " and " + std::to_string(differ->other) + " differ\n";
      } else {
        text_ += "abort\n";
      }
    }
  }
  void settle() {
    while (!flights_.empty()) deliver_one();
  }
  void deliver_one() {
    if (flights_.empty()) return;
    const auto [to, received] = flights_.front();
    flights_.pop_front();
    step(to, received);
  }
  [[nodiscard]] std::string settled() {
    settle();
    return text();
  }
  [[nodiscard]] std::string text() { return std::exchange(text_, {}); }
  [[nodiscard]] unsigned messages() { return std::exchange(messages_, 0U); }
  [[nodiscard]] const Sync& node(Node n) const { return nodes_[n]; }
  [[nodiscard]] const SyncConfig& config() const { return config_; }
  [[nodiscard]] static Lane lane(Waiter waiter) { return static_cast<Lane>(waiter + 1); }

 private:
  SyncConfig config_;
  std::vector<Sync> nodes_;
  std::deque<std::pair<Node, SyncReceived>> flights_;
  std::string text_;
  unsigned messages_ = 0;
};

// True if the node ends the job over it, which changes nothing.
inline bool refuses(const SyncTalk& talk, Node at, Node from, const SyncMessage& msg) {
  Sync copy = talk.node(at);
  SyncActions out(talk.config());
  copy.step(SyncReceived{from, 1, msg}, out);
  const auto* abort = out.size() == 0 ? nullptr : std::get_if<Abort>(&out[0]);
  if (abort == nullptr) return false;
  EXPECT_EQ(out.size(), 1U) << words(msg);
  EXPECT_EQ(abort->why, Abort::Why::bad_message) << words(msg);
  EXPECT_EQ(abort->who, from) << words(msg);
  EXPECT_EQ(copy.digest(), talk.node(at).digest()) << words(msg);
  return true;
}

}  // namespace dsm::core::testing
