// dsm/core/state.hpp - what one node knows about the pages, and the moves that every protocol is made of.
//
// For the protocols (migrate.cpp, msi.cpp) only. A page costs 8 bytes at every node, and 16 at its home if there are other
// nodes. All-zero is the initial state, and the tables come from calloc, so that a region of which little is touched costs
// little. Waiters, queued requests and deferred revocations live in pools of fixed size: nothing here allocates after
// construction, because the application may have faulted inside malloc.
//
// async-signal-safe: everything but construction and copying.
#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "dsm/core/coherence.hpp"
#include "dsm/core/page_sets.hpp"
#include "dsm/core/zeros.hpp"

namespace dsm::core {

// A page as every node knows it.
struct Local {
  Seq seq;                // of the last grant installed (or answered for and thrown away); 0: never any
  std::uint16_t waiters;  // head of the list of waiting threads, plus one; 0: nobody
  std::uint8_t access;    // `here`, Access
  std::uint8_t asked : 2;        // Access of the want under way
  std::uint8_t prefetching : 1;  // nobody waits for that want
  std::uint8_t discard : 1;      // its grant may have been revoked already: if it has seq `seq`, throw it away
};
static_assert(sizeof(Local) == 8);

enum class Busy : std::uint8_t {
  idle,
  recalling,            // the owner has been asked to give the page back
  invalidating,         // the holders of copies have been asked to forget them
  awaiting_write_back,  // the owner itself wants the page: what it has written back is still on its way
  holding,              // the home's own thread has just got the page, and is given time to use it
  performing,           // the owner has been asked to perform an atomic operation
};

// A page as its home knows it.
struct Directory {
  std::uint64_t copies;  // bit n: rank n has a readable copy. The home's own access is not among them
  Seq epoch;             // exclusive grants so far; on the wire a grant's seq is epoch + 1
  std::uint8_t owner;    // who may write, plus one; 0: nobody else, the home's frame is the page
  Busy busy : 7;
  std::uint8_t for_nobody : 1;  // what `busy` waits for was asked in the name of one who has left: none is being served
  std::uint16_t queue;   // tail of the circular list of requests, plus one; the front one is being served
  void rest() { busy = Busy::idle, for_nobody = 0; }
};
static_assert(sizeof(Directory) == 16);

struct Request {
  Node from = 0;
  Lane lane = 0;
  Access want{};
  bool have = false;
  Waiter waiter = 0;  // an atomic operation's; what is to be done stands in State::atomics
  std::uint16_t next = 0;
  [[nodiscard]] bool is_atomic() const { return want == Access::none; }
};

// A recall or an invalidation that cannot be obeyed yet: its grant has not arrived, or the page is held for a moment.
struct Revoke {
  Page page = 0;
  Node from = 0;         // the home; this node itself: its own access, held back from the front request
  Lane lane = 0;
  bool recall = false;
  bool before_grant = false;
  Access keep{};
  Seq seq = 0;
  Atomic atomic{};           // if of a kind, there is nothing to revoke: this is to be performed, once the grant is here
};

// Who was granted what a moment ago, so that a page can be held until the instruction that asked has run.
struct Recent {
  Page page = 0;
  Site site = 0;
  Micros first = 0;  // when it was granted
  Micros until = 0;  // 0: no entry
};

// What a system call is using, or another thread's.
struct Pinned {
  Page page = 0;
  std::uint32_t count = 0;
  Micros until = 0;
};

struct State {
  explicit State(const Config& config);

  Config config;
  Micros now = 0;
  Micros armed = 0;  // the Tick that has been asked for; 0: none
  Zeros<Local> locals;
  Homes homes;
  Zeros<Directory> directories;            // by homes.slot(page)
  std::vector<std::uint16_t> next_waiter;  // by waiter; plus one
  std::vector<Site> sites;                 // by waiter: where it faulted
  std::vector<Request> requests;
  Zeros<Atomic> atomics;                   // by request: of one that is_atomic()
  std::vector<Page> performing;            // by waiter: the page on which an operation was asked for, plus one; 0: none
  std::uint16_t free_request = 0;          // plus one
  std::uint16_t remote_requests = 0;       // of the queued ones, those of other nodes; ours always have room
  std::vector<Revoke> revokes;             // the first `revoke_count` count
  std::size_t revoke_count = 0;
  std::array<Recent, 64> recent{};
  std::size_t recent_next = 0;
  std::vector<Pinned> pinned;  // the first `pin_count` count
  std::size_t pin_count = 0;
  // At the daemon of Placement::daemon only; see left.cpp.
  PageSets wanted;    // by host: what it has asked for since it came. It stands in no other page's directory
  PageSets unserved;  // one set: pages that can be served since somebody left, and have not been

  [[nodiscard]] Node home(Page page) const { return homes.of(page); }
  [[nodiscard]] bool is_home(Page page) const { return homes.here(page); }
  // REQUIRES: is_home(page).
  [[nodiscard]] Directory& directory(Page page) { return directories[homes.slot(page)]; }
  [[nodiscard]] const Directory& directory(Page page) const { return directories[homes.slot(page)]; }
  [[nodiscard]] Access here(Page page) const { return static_cast<Access>(locals[page].access); }
  [[nodiscard]] Access asked(Page page) const { return static_cast<Access>(locals[page].asked); }
  void set_asked(Page page, Access access) { locals[page].asked = static_cast<std::uint8_t>(access) & 3U; }
  [[nodiscard]] Seq wire_seq(Page page) const { return directory(page).epoch + 1; }

  // ---- the application's view ----
  void allow(Page page, Access access, Actions& out);  // Protect, if that changes anything
  void wait(Page page, Waiter waiter, Site site);
  // Wakes everybody who waits for the page, and notes that they have just been given it.
  void wake_all(Page page, Actions& out);

  // ---- the home's queue ----
  [[nodiscard]] bool queue_empty(Page page) const { return directory(page).queue == 0; }
  [[nodiscard]] Request& front(Page page);
  [[nodiscard]] bool queued(Page page, Node from) const;
  [[nodiscard]] bool has_request_room() const { return remote_requests < config.requests; }  // for another node's
  void enqueue(Page page, const Request& request);  // REQUIRES: has_request_room(), or our own and not yet `asked`
  void pop(Page page);
  // Takes `from`'s requests out of the queue. True if the front one was among them.
  bool forget_requests(Page page, Node from);
  // That of the front request. REQUIRES: front(page).is_atomic().
  [[nodiscard]] const Atomic& front_atomic(Page page);
  void enqueue_atomic(Page page, const Request& request, const Atomic& atomic);  // REQUIRES: as enqueue()
  // Other nodes whose copies are in the front request's way; if what is under way is for_nobody, those who were asked.
  [[nodiscard]] std::uint64_t copies_in_the_way(Page page);

  // ---- revoking, now or later ----
  // Until when the page must stay, because an instruction here has not had its turn or it is pinned; 0 or past: it may go.
  [[nodiscard]] Micros held_until(Page page) const;
  [[nodiscard]] bool held(Page page) const { return held_until(page) > now; }
  [[nodiscard]] Revoke* pending(Page page);
  [[nodiscard]] bool has_revoke_room() const { return revoke_count < revokes.size(); }
  void defer(const Revoke& revoke);   // REQUIRES: has_revoke_room(); none pending for the page
  void forget(const Revoke* revoke);
  // Whether the page may be given up unasked: nothing about it is under way here, and nobody is in his turn.
  [[nodiscard]] bool may_leave(Page page) { return asked(page) == Access::none && pending(page) == nullptr && !held(page); }
  // An instruction that was granted a page and now faults on another one needs both: keep the first a little longer.
  void note_fault(Site site, Page page);
  void note_grant(Page page, Site site);
  void note_resumed(Page page);
  void pin(Page page, Micros until);
  void unpin(Page page);
  [[nodiscard]] std::uint32_t pins_of(Page page) const;
  // Asks for a Tick when the next deferred revocation is due, unless that has been asked for.
  void arm(Actions& out);
};

// Serial number arithmetic (RFC 1982), but no number that has been given (next_epoch) is 0, and who has none is behind all
// who have: a host that comes may find any number in use.
[[nodiscard]] inline bool newer(Seq a, Seq b) {
  if (a == 0 || b == 0) return a != 0;
  return static_cast<std::int32_t>(a - b) > 0;
}
[[nodiscard]] inline Seq next_epoch(Seq epoch) { return epoch + 2 == 0 ? 0 : epoch + 1; }  // wire_seq() is never 0
// In a copyset, which has ranks only: the daemon's own access is never among the copies.
[[nodiscard]] inline std::uint64_t bit(Node node) { return node < max_ranks ? std::uint64_t{1} << node : 0; }
[[nodiscard]] inline Abort bad_message(Node from) { return Abort{Abort::Why::bad_message, from}; }

// The two protocols: one function each, called by Coherence::step for everything but PeerLost. Only msi knows Left.
void migrate_step(State& state, const Event& event, Actions& out);
void msi_step(State& state, const Event& event, Actions& out);

// Shared by both. Carries out a revocation that is due: lowers the protection, then answers the home.
void give_up(State& state, const Revoke& revoke, Actions& out);
// Obeys a revocation that names the grant installed here: now, or when the page has been held long enough.
void revoke_installed(State& state, const Revoke& revoke, Actions& out);
// A grant has been installed: obeys the revocation that overtook it, if there is one.
void revoke_overtaken(State& state, Page page, Actions& out);
// A recall that finds the page written back gets an answer all the same, without a page: whoever sent it may be a thread
// that waits for the answer on its call lane. It changes nothing at the home: what was written back is the answer.
void answer_too_late(const Received& recall, Actions& out);
[[nodiscard]] bool too_late(const State& state, const Received& recalled);
// ---- atomic operations (atomic.cpp), the same in both protocols; `serve_on` is the protocol's ----
using ServeOn = void (*)(State&, Page, Lane own_lane, Actions&);
void perform(State& s, const Perform& event, ServeOn serve_on, Actions& out);
void on_perform(State& s, const Received& r, ServeOn serve_on, Actions& out);
void on_performed(State& s, const Received& r, ServeOn serve_on, Actions& out);
// At the home: asks the owner for the operation of the front request. REQUIRES: there is one.
void pass_on(State& s, Page page, Lane own_lane, Actions& out);
// At the home, which has the page, and nobody else a copy: performs the front request's operation, and pops it.
void perform_here(State& s, Page page, Actions& out);
// At the owner: performs what had overtaken the grant.
void answer_atomic(const Revoke& deferred, Actions& out);

// ---- pages that live where they are touched first (first_touch.cpp); `ask` is the protocol's: asks the home for the
// access that is wanted, or, if that is here, queues the request ----
using Ask = void (*)(State&, Page, Lane, Actions&);
// True if it is known where the page lives; if not, asks.
[[nodiscard]] bool locate(State& s, Page page, Lane lane, Actions& out);
void on_locate(State& s, const Received& r, Actions& out);
void on_located(State& s, const Received& r, Ask ask, Actions& out);
// Before a question to a page's home is judged: whoever asks has been told that the page lives here.
void learn_home(State& s, const Received& r);

// ---- hosts that go while the pages stay (left.cpp); `serve` is the protocol's ----
using Serve = void (*)(State&, Page, Actions&);
void left(State& s, Node who, Serve serve, Actions& out);
// Serves what left() has made room for and could not serve yet, for a step's actions are bounded: at every Tick.
void serve_unserved(State& s, Serve serve, Actions& out);

// Time has passed: what is held no longer goes. `serve` is called for pages of which the home itself was the holder.
void revoke_due(State& state, void (*serve)(State&, Page, Actions&), Actions& out);

}  // namespace dsm::core
