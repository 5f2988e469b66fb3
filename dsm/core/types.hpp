// dsm/core/types.hpp - the vocabulary of the coherence protocols: messages, events, actions. Plain data, no behaviour.
//
// Whoever drives a core (libdsm's node, the explorer, a test) turns the world into Events, calls Coherence::step() and
// carries out the returned Actions *in order*. The order is the contract: downgrade before sending a page, install
// before protecting, protect before waking or acknowledging.
//
// async-signal-safe: yes, all of it (trivial types, no allocation).
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <variant>

namespace dsm::core {

using Node = std::uint8_t;     // a rank (0..63), or above that a home that is no rank
using Page = std::uint32_t;    // index of a page in the region
using Waiter = std::uint16_t;  // a blocked application thread of this node: 0 <= waiter < Config::waiters
using Seq = std::uint32_t;     // the page's sequence number: counts exclusive grants; compared modulo 2^32
using Micros = std::uint64_t;  // a clock reading in microseconds; only differences matter
using Lane = std::uint8_t;     // connection of a pair of nodes: 0 the service lane, 1.. call lanes; echoed, never interpreted
using Site = std::uint64_t;    // names a (thread, instruction); 0 is "unknown"; compared, never interpreted

inline constexpr std::size_t max_ranks = 64;
inline constexpr Node daemon_node = 64;  // no rank: the home of all pages under Placement::daemon (homes.hpp)
inline constexpr std::size_t max_waiters = 256;
inline constexpr std::size_t max_pins = 256;  // pages that a node keeps pinned at one time

enum class Access : std::uint8_t { none, read, write };  // also the protection of the page in the application's view

// An atomic operation on one word of a page, done where the page is, instead of bringing the page to the operation.
struct Atomic {
  enum class Kind : std::uint8_t { none, add, compare_swap };
  enum class State : std::uint8_t {
    asked,
    done,    // `value`: what the word held before
    missed,  // the page had left its owner when the question came; nothing has been done
  };
  Kind kind{};
  State state{};
  std::uint32_t word = 0;      // which of the page's words of 8 bytes
  std::uint64_t value = 0;     // asked: to add, or to store
  std::uint64_t expected = 0;  // compare_swap: store only if the word holds this
  friend bool operator==(const Atomic&, const Atomic&) = default;
};

struct Message {
  enum class Kind : std::uint8_t {
    want,         // requester -> home: access please; `have` says that a readable copy is here
    grant,        // home -> requester: access, on the lane on which the want came
    recall,       // home -> owner: give the page back and keep `access` (read or none)
    recalled,     // owner -> home: here it is, on the lane on which the recall came
    invalidate,   // home -> holder of a copy: forget it
    invalidated,  // holder -> home: forgotten, on the lane on which the invalidate came
    write_back,   // owner -> home, unasked: the owner gives up a page it has written
    perform,      // requester -> home, home -> owner: do this operation where the page is
    performed,    // ... and back, on the lane on which it came
    locate,       // requester -> manager: where does the page live? (homes.hpp)
    located,      // ... and back: at node `seq`
  };
  Kind kind{};
  Access access{};
  bool carries_page = false;  // the page's bytes travel with the message
  bool have = false;          // want only
  bool prefetch = false;      // want only: nobody waits for it yet
  Page page = 0;
  // grant, recall, recalled, invalidate, invalidated, write_back: which grant this is, or is about. perform and performed:
  // that of the owner; between requester and home the requester's waiter. located: a node.
  Seq seq = 0;
  Atomic atomic{};  // perform and performed
  friend bool operator==(const Message&, const Message&) = default;
};

// Is it answered on the lane on which it came, by the kind with the next number?
[[nodiscard]] constexpr bool is_question(Message::Kind kind) {
  using Kind = Message::Kind;
  return kind == Kind::want || kind == Kind::recall || kind == Kind::invalidate || kind == Kind::perform ||
         kind == Kind::locate;
}

// ---- what happens to a node -------------------------------------------------------------------------------------------

// A thread touched a page that it may not touch so. `waiter` is told by Wake; then the instruction runs again, and
// faults again should the access not be enough.
struct Fault { Page page; Access want; Waiter waiter; Lane lane = 0; Site site = 0; Micros now = 0; };
// A thread asks for an atomic operation. It is told by Performed, and not woken otherwise. REQUIRES: the page's home is
// known here (Coherence::home), as it is when the page has ever been; not Placement::daemon (atomic.cpp says why).
struct Perform { Page page; Atomic atomic; Waiter waiter; Lane lane = 0; Micros now = 0; };
// Fetch a readable copy that nobody waits for.
struct Prefetch { Page page; Lane lane = 0; Micros now = 0; };
// Give up what can go silently: a readable copy; and at the page's home the home's own access, of either kind, for the
// home's frame is the page. Ignored if the page is not held so, or something about it is under way, or it is here for an
// instruction that has not had its turn.
struct Drop { Page page; Micros now = 0; };
// Give up a page held for writing, by sending it home; ignored as Drop is, and if the page lives here.
struct WriteBack { Page page; Micros now = 0; };
struct Received { Node from; Lane lane; Message msg; Micros now = 0; };
// The time named by a Timer action has come (a tick too early or too many does no harm).
struct Tick { Micros now; };
// A thread that was woken for this page is about to run its instruction: its turn begins now. Only with Config::absence.
struct Resumed { Page page; Micros now; };
// Keep a page that is here until `until`, or Unpin: whoever wants it waits. Pins of one page are counted, and it stays for
// the longest. Ignored if the page is not here, or Config::pins pages are pinned already: View::pins tells.
struct Pin { Page page; Micros until; Micros now = 0; };
struct Unpin { Page page; Micros now = 0; };  // ignored if the page is not pinned
struct PeerLost { Node who; };
// At the daemon of Placement::daemon, under msi: the host in slot `who` has gone, in good order or lost. Elsewhere that
// is the end, as PeerLost is. From here on the home's frame is the page wherever that host was the owner (View::owner
// tells, before this event, which pages those are): whoever drives has put into it what the host said last, or knows
// that the writes since are lost. REQUIRES: nothing that the host has said is Received after this, and nothing that was
// on its way to it arrives any more, not even at the host that gets the slot next. That one begins with a Coherence of
// its own, and may do so at once.
struct Left { Node who; Micros now = 0; };

using Event =
    std::variant<Fault, Perform, Prefetch, Drop, WriteBack, Received, Tick, Resumed, Pin, Unpin, PeerLost, Left>;

// ---- what the node must then do ---------------------------------------------------------------------------------------

// If msg.carries_page: with the frame's bytes as they are now. If it is `performed` and msg.atomic is still `asked`: do the
// operation now, on the frame, and send what the word held.
struct Send { Node to; Lane lane; Message msg; };
struct Install { Page page; Node from; };          // the bytes that came with the received message are the page now
struct Protect { Page page; Access allow; };
struct Wake { Waiter who; };
struct Timer { Micros at; };                       // a Tick is due at this time
struct Performed { Waiter who; Page page; Atomic atomic; };  // if it is still `asked`: do it now, on the frame
struct Abort { enum class Why : std::uint8_t { peer_lost, bad_message } why; Node who; };

using Action = std::variant<Send, Install, Protect, Wake, Timer, Abort, Performed>;

// A list of actions of bounded length: nothing on the fault path may allocate. The bound is what one step can ask for at
// most: every rank invalidated, every waiter woken, and a handful for the pages whose hold has run out.
class Actions {
 public:
  static constexpr std::size_t capacity = max_ranks + max_waiters + 192;
  void push(const Action& action);  // REQUIRES: not full; checked always
  void clear() { size_ = 0; }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] const Action& operator[](std::size_t i) const { return list_[i]; }
  [[nodiscard]] const Action* begin() const { return list_.data(); }
  [[nodiscard]] const Action* end() const { return list_.data() + size_; }

 private:
  std::array<Action, capacity> list_{};
  std::size_t size_ = 0;
};

}  // namespace dsm::core
