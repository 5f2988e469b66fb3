// dsm/core/explorer_talk.hpp - a scripted conversation between a few Coherence values, written down as it goes.
//
// For scenario tests: the script says what happens (a fault, which message arrives next), the talk answers with the text
// of everything that followed, to be compared with what ought to be said. A line without indentation is an event, with its
// node in front; an indented line is what the node then does:
//
//     1: fault read p0
//          send want read p0 -> 0 on 1
//     0: want read p0 from 1
//          send grant read p0 #1 +page -> 1 on 1
//
// Thread-safety: none.
#pragma once
#include <deque>
#include <string>
#include <vector>

#include "dsm/core/coherence.hpp"

namespace dsm::core::explorer {

class Talk {
 public:
  // With Placement::daemon, besides `nodes` hosts, the daemon.
  Talk(std::uint8_t nodes, Protocol protocol, Micros hold = 0, Page pages = 4, Micros absence = 0,
       Placement placement = Placement::cyclic);

  // What happens to node `at`. A waiter w asks on call lane w + 1 unless `lane` says otherwise.
  void fault(Node at, Page page, Access want, Waiter waiter = 0);
  void fault_on(Lane lane, Node at, Page page, Access want, Waiter waiter = 0);
  // An addition; asks on call lane waiter + 1.
  void perform(Node at, Page page, Waiter waiter = 0);
  void prefetch(Node at, Page page);
  void drop(Node at, Page page);
  void write_back(Node at, Page page);
  void tick(Node at, Micros now);
  void resume(Node at, Page page);
  void pin(Node at, Page page, Micros until);
  void unpin(Node at, Page page);
  void lose(Node at, Node who);
  // Only with Placement::daemon: that host has gone, with all that was under way to it and from it, and the daemon hears
  // of it. A fresh one is in its slot.
  void leave(Node who);
  void say(Node from, Node to, Lane lane, const Message& msg);  // an invented message

  // The oldest message from `from` to `to` arrives (on `lane`, if given). REQUIRES: there is one.
  void arrive(Node from, Node to);
  void arrive_on(Lane lane, Node from, Node to);
  // All messages arrive, in the order in which they were sent, until nobody says anything more.
  void settle();

  void at(Micros now) { now_ = now; }
  [[nodiscard]] std::string text();   // all since the last call
  [[nodiscard]] unsigned messages();  // sent since the last call
  [[nodiscard]] bool quiet() const { return flights_.empty(); }
  [[nodiscard]] Coherence& core(Node node) { return cores_[node == daemon_node ? cores_.size() - 1 : node]; }
  [[nodiscard]] const Coherence& core(Node node) const { return const_cast<Talk*>(this)->core(node); }
  [[nodiscard]] const Actions& last() const { return last_; }

 private:
  struct Flight {
    Node from, to;
    Lane lane;
    Message msg;
  };
  void step(Node at, const Event& event, const std::string& words);
  void deliver(std::size_t index);

  std::vector<Coherence> cores_;
  std::deque<Flight> flights_;
  Micros now_ = 1000;
  std::string text_;
  unsigned messages_ = 0;
  Actions last_;
};

}  // namespace dsm::core::explorer
