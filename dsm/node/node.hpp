// dsm/node/node.hpp - libdsm's shell: turns faults and frames into events of the cores, and carries out the actions.
//
// The faulting thread does its own remote call: event into the core, request out on a call lane to the page's home, answer
// read on that lane straight into the frame, protection raised, return. One service thread answers everybody else.
//
// The lock discipline
// -------------------
// `lock_` covers both cores, their action lists, and the protections of the application's view. One thread at a time steps a core and carries out *all* its actions before it lets go: two threads'
// action lists, for one page or for several, cannot interleave, and what the core believes about a protection is what
// mprotect was last told. Under the lock: mprotect, a copy of one page, queueing of frames, waking. Never under it: sending,
// receiving, waiting, and touching the application's view.
//
// `telling_`, for the connection to the coordinator, is taken alone. `last_seat_` is held while its holder waits for a lock
// of the library's own, and so before all others.
//
// Each channel that several threads send on has a `sending` lock, taken under `lock_` to put a frame in its queue or to
// withdraw one, and alone to send what is queued. So frames of one channel are sent in the order in which the core wanted them.
//
// Why nothing can deadlock. Locks are taken in the order lock_, then one `sending`; a holder of `sending` takes no other
// lock, and its socket does not block. Nobody holds a lock while it waits for an answer. Waiting for an answer ends if the
// service threads of other ranks run, and a service thread waits for nothing but its poll set: a full socket leaves the
// frame in the queue, and a fault is nothing it can have (it uses the alias). A thread with an outstanding call holds a
// lane; no service thread ever needs one, and a thread that finds none free asks on the service lane instead of waiting.
// The core's own promise, that every request is answered when all answer, is what dsm/core's explorer has checked.
//
// A thread inside a lock has all signals blocked: in the handler by sa_mask, in an API call by Undisturbed. So no signal handler
// can touch the region, fault, and wait for a lock that its own thread holds.
//
// What is queued of a page is read when it is sent, without lock_. Nobody writes to the page meanwhile: a node may write
// only when all copies have been given up, and a copy is given up after it has come. The exception: withdraw_grants().
//
// The service thread does not allocate: the application may have faulted inside malloc, on a lock that malloc would want.
#pragma once
#include <pthread.h>

#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <thread>
#include <vector>

#include "dsm/core/coherence.hpp"
#include "dsm/core/sync.hpp"
#include "dsm/core/zeros.hpp"
#include "dsm/net/mesh.hpp"
#include "dsm/node/futex.hpp"
#include "dsm/pager/pager.hpp"
#include "dsm/telemetry/publisher.hpp"
#include "ipc/signals.hpp"

namespace dsm::node {

class Node final : public pager::FaultSink {
 public:
  struct Options {
    core::Protocol protocol = core::Protocol::msi;
    core::Placement placement = core::Placement::cyclic;
    std::size_t pages = 0;
    std::size_t page_size = 0;  // bytes
    core::Micros hold = 100;
    net::Patience patience{};  // of a thread that waits for its answer
  };

  // `mesh`: without links for a job of one rank. `publisher` outlives the node. Throws std::system_error.
  Node(net::Mesh mesh, const Options& options, telemetry::Publisher& publisher);

  // Starts the service thread. REQUIRES: called once, before the first fault; `pager` outlives the node. From then on the
  // node may be destroyed only after finalize().
  void start(pager::Pager& pager);

  [[nodiscard]] int rank() const noexcept { return mesh_.rank; }
  [[nodiscard]] int ranks() const noexcept { return ranks_; }

  // Makes the page accessible to this thread's next try. All signals are blocked. async-signal-safe: yes.
  void on_fault(core::Page page, core::Access want, core::Site site) noexcept override;

  // `count` pages from `first` on are here, and stay until unpin, but no longer than a second after they all were: 0.
  // ENOMEM: this rank has pinned too many pages (core::max_pins). EAGAIN: they were not all here within a second.
  int pin(core::Page first, std::size_t count, core::Access access) noexcept;
  void unpin(core::Page first, std::size_t count) noexcept;

  // All return 0 or an errno. Those that wait, or ask another rank: EAGAIN, if too many threads of this rank wait already.
  int acquire(core::Key lock) noexcept;      // EDEADLK: held by this thread; ENOLCK: no room for another lock
  int try_acquire(core::Key lock) noexcept;  // and EBUSY: somebody holds it, or waits for it
  int release(core::Key lock) noexcept;      // EPERM: not held by this thread
  // For a lock of the library's own. However many threads wait already, never EAGAIN. REQUIRES: who holds it waits for
  // nothing but pages.
  int acquire_own(core::Key lock) noexcept;
  // Lets go of the lock, waits for a signal, and takes the lock again. EPERM: not held by this thread. ENOLCK: no room for
  // the lock any more; then it is not held.
  int cond_wait(core::Key condition, core::Key lock) noexcept;
  int cond_signal(core::Key condition, bool all) noexcept;
  int sem_open(core::Key semaphore, std::uint64_t value) noexcept;  // ENOSPC: no room for another semaphore
  int sem_wait(core::Key semaphore, bool attempt) noexcept;         // EBUSY: it is 0, and this was an attempt
  int sem_post(core::Key semaphore) noexcept;
  int barrier() noexcept;  // EBUSY: another thread of this rank is in it
  // Does the operation on that page where it is, at one moment of the page's history. Returns what the word held before.
  // Waits for an answer, and for a seat, if there is none. `word` is within the page.
  std::uint64_t perform(core::Page page, const core::Atomic& atomic) noexcept;
  // All ranks set these pages aside, all in the same order, of rising pages. With Placement::block the pages live in equal
  // parts on all ranks from now on, and this is a barrier (EBUSY, as that, and nothing is done). Otherwise nothing.
  int deal(core::Page first, core::Page count) noexcept;
  // Something that all ranks must do alike, with this argument: the next barrier ends the job if they have not.
  void note_collective(std::uint64_t argument) noexcept;

  // A barrier, then goodbyes: returns when all ranks have said theirs, and the service thread has ended. Should one never
  // come, dsmexec ends the job: it has a deadline for this phase.
  void finalize();

  // Tells the coordinator; async-signal-safe.
  void tell(net::Report report) noexcept;

  // In a forked child, which has no part in the job: closes its copies of the connections. Else they would stay open when
  // the parent ends, and nobody would see that it has.
  void close_in_child() noexcept;

 private:
  static constexpr std::size_t max_lanes = 8;
  static constexpr std::uint32_t timer_mark = 0xffff'ffff;  // in the poll set, where others have their port's index
  static constexpr std::uint32_t stop_mark = 0xffff'fffe;
  static constexpr std::uint32_t daemon_mark = 0xffff'fffd;

  // A thread that waits: for a page, a lock, a barrier. Taken from and given back to a bitmap, without the lock.
  struct Seat {
    Gate gate;
    core::Page page = 0;      // lock_
    bool asking = false;      // lock_: the want that was sent is this thread's
    bool away = false;        // lock_: woken, but not yet back in the application
    core::Result result{};    // lock_ until the gate opens: of what it waited for in the sync core
    std::uint64_t value = 0;  // lock_ until the gate opens: what the word held of its atomic operation
  };

  struct Port {  // a channel on which several threads send
    std::unique_ptr<net::Channel> channel;
    FutexLock sending;
    core::Node peer = 0;
    core::Lane lane = 0;
    std::uint32_t index = 0;                   // in ports_
    bool gone = false;                         // service thread only: end of file seen
    std::atomic<bool> watching_output{false};  // written under sending: the poll set watches for room to send
  };

  // What the thread that stepped a core must do after it has let go of the lock.
  struct Errand {
    core::Waiter self = core::max_waiters;  // its own seat, if it waits
    core::Lane lane = 0;                    // its call lane; 0: none
    const void* body = nullptr;             // of the message just received
    bool in_place = false;                  // that body is in the frame already
    std::uint64_t calls = 0;                // peers it must call on its lane
    std::array<Port*, 8> ports{};           // with something to send
    std::size_t port_count = 0;
    bool all_ports = false;   // more than the list holds
    bool in_handler = false;  // all signals are blocked already
    bool failed = false;      // the core has said ...
    core::Abort failure{};    // ... this
  };

  // All signals blocked, so that a port's lock or lock_ may be taken.
  class Undisturbed {
   public:
    Undisturbed(const Node& node, const Errand& errand) noexcept {
      if (!errand.in_handler) mask_.emplace(node.all_signals_);
    }

   private:
    std::optional<ipc::ScopedMask> mask_;
  };

  // No cancellation (pthread_cancel(3)): a thread that stores to memory does not expect to be unwound there, nor can it be,
  // out of a handler.
  class Uncancelled {
   public:
    Uncancelled() noexcept { ::pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before_); }
    ~Uncancelled() { ::pthread_setcancelstate(before_, nullptr); }
    Uncancelled(const Uncancelled&) = delete;
    Uncancelled& operator=(const Uncancelled&) = delete;

   private:
    int before_ = 0;
  };

  // the thread that waits for other threads (sync.cpp)
  [[nodiscard]] static core::Thread this_thread() noexcept;
  // Steps the sync core as `begin_with()` says, under the lock, and waits until that is done for this thread.
  template <class Begin>
  core::Result wait_for_sync(telemetry::RankState state, std::uint64_t on, Errand& errand,
                             const Begin& begin_with) noexcept;
  template <class Event>
  int ask(telemetry::RankState state, core::Key key, Event event, int error) noexcept;
  enum class For : std::uint8_t { fault, sync };
  int take(core::Key lock, bool attempt, For what) noexcept;

  [[nodiscard]] bool enter_barrier() noexcept;  // false: another thread of this rank is in it
  void meet() noexcept;                         // and leaves it. REQUIRES: entered

  // the thread that waits (wait.cpp)
  // A seat, and a lane if one is free. The first word of the bitmap is for faults only: what they wait for depends on
  // service threads alone, while who waits for a lock may wait for a thread that needs a seat itself. So for a fault it
  // waits until there is one; otherwise false if there is none.
  [[nodiscard]] bool take_place(Errand& errand, For what) noexcept;
  void leave_place(Errand& errand) noexcept;
  // Sends what the errand says, does its calls, and waits until the seat's gate opens.
  void see_through(Errand& errand) noexcept;
  template <class Step>
  void begin(Errand& errand, const Step& step) noexcept {  // under lock_, all signals blocked until all is sent
    const Undisturbed undisturbed(*this, errand);
    lock_.lock();
    step();
    lock_.unlock();
    send_off(errand);
  }
  void do_calls(Errand& errand) noexcept;
  // Takes a place, asks for the page, and waits until it has been here.
  void fetch(Errand& errand, core::Page page, core::Access want, core::Site site) noexcept;
  // Once it has been here it is known where it lives.
  void find_home(core::Page page) noexcept;
  void resume(Errand& errand, core::Page page, core::Access want) noexcept;
  void use(core::Page page) noexcept;  // under lock_
  // pages that stay (pin.cpp)
  int pin_page(core::Page page, core::Access access, core::Micros late) noexcept;
  void await_answer(core::Node peer, Errand& errand) noexcept;
  [[noreturn]] void stuck() noexcept;  // a peer is lost: wait to be ended

  // actions (actions.cpp); under lock_
  void carry_out(Errand& errand) noexcept;  // and then sheds pages, if there are too many runs
  void carry_out_step(Errand& errand) noexcept;
  void carry_out_sync(Errand& errand) noexcept;
  void send(core::Node to, core::Lane lane, bool request, const net::FrameHeader& header, const void* body,
            Errand& errand) noexcept;
  [[nodiscard]] Port& port_to(core::Node peer, core::Lane lane) noexcept;
  void protect(core::Page page, core::Access allow) noexcept;
  // The peer has given up its copy. If it had dropped an earlier one in silence and asked again, it answered before our
  // second grant had come, and will throw that away: should the grant still be in a queue, it must not read a page that
  // may now be written. No other grant can be there: none is made while an invalidation is unanswered.
  void withdraw_grants(core::Node peer, core::Page page) noexcept;
  // On the frame, by one instruction: threads of the application may be at the same word. What it held before.
  std::uint64_t perform_now(core::Page page, const core::Atomic& atomic) noexcept;
  void count_waste(core::Page page) noexcept;
  void wake(core::Waiter waiter, const Errand& errand) noexcept;
  template <class Visit>
  void for_each_seat(const Visit& visit) noexcept {  // that is taken
    for (std::size_t word = 0; word < seats_free_.size(); ++word) {
      for (std::uint64_t taken = ~seats_free_[word].load(std::memory_order_acquire); taken != 0; taken &= taken - 1) {
        visit(seats_[word * 64 + static_cast<std::size_t>(__builtin_ctzll(taken))]);
      }
    }
  }
  void publish(core::Page page) noexcept;
  // runs of equal protection (evict.cpp); under lock_
  void count_borders(core::Page page, core::Access before, core::Access now) noexcept;
  void shed(Errand& errand) noexcept;
  bool give_up(core::Page page, Errand& errand) noexcept;
  // after it
  void send_off(Errand& errand) noexcept;
  // The job has failed, as far as this rank can see. The first call tells the coordinator, and wakes all who wait.
  void declare_lost(core::Abort why) noexcept;
  void flush(Port& port) noexcept;

  // the service thread (service.cpp)
  void serve() noexcept;
  void serve_port(Port& port) noexcept;
  bool handle(Port& port, const net::FrameHeader& header, const std::uint8_t* body) noexcept;
  void watch(Port& port, bool output) noexcept;
  void tick() noexcept;
  void hear_daemon() noexcept;  // of a session: it may end it, and this process with it
  void peer_gone(Port& port, core::Abort::Why why) noexcept;
  bool all_said_bye() const noexcept;

  // Steps a core with a received frame; false if the frame is no message of ours. Takes lock_.
  bool receive_coherence(core::Node from, core::Lane lane, const net::FrameHeader& header, Errand& errand) noexcept;
  bool receive_sync(core::Node from, core::Lane lane, const net::FrameHeader& header, Errand& errand) noexcept;

  net::Mesh mesh_;
  const int ranks_;
  const Options options_;
  const sigset_t all_signals_;
  const core::Zeros<char> nothing_;  // one page, sent in place of a grant that was withdrawn
  telemetry::Publisher& publisher_;
  pager::Pager* pager_ = nullptr;

  FutexLock lock_;
  core::Coherence core_;              // lock_
  core::Sync sync_;                   // lock_
  core::Actions actions_;             // lock_
  core::SyncActions sync_actions_;    // lock_
  core::Zeros<core::Access> access_;  // lock_; what mprotect was last told, by page
  std::size_t borders_ = 0;           // lock_; pairs of neighbours that differ in it
  std::size_t borders_max_ = 0;       // that the pager bears
  core::Page hand_ = 0;               // lock_; where to look next for a page to give up

  std::array<Seat, core::max_waiters> seats_;
  std::array<std::atomic<std::uint64_t>, core::max_waiters / 64> seats_free_{};
  std::atomic<std::uint32_t> seats_left_{0};  // how often a seat was given back: a futex for those who found none
  std::atomic<std::uint32_t> lanes_free_{0};  // bit L: call lane L, to every peer

  std::vector<std::unique_ptr<Port>> ports_;  // service lanes by peer (own: empty), then the answer lanes
  std::array<std::array<net::FrameHeader, core::max_ranks>, max_lanes + 1> requests_;  // by lane and peer: its holder's

  std::array<bool, core::max_ranks> said_bye_{};  // service thread only
  std::atomic<bool> lost_{false};
  std::atomic<bool> finalizing_{false};
  std::atomic<bool> in_barrier_{false};
  std::atomic<std::uint64_t> collective_mark_{0};
  FutexLock last_seat_;  // taken before lock_: of the one thread that may take a fault's seat to wait for a lock
  FutexLock telling_;    // the coordinator's channel, for sending
  ipc::Fd epoll_, timer_, stop_;
  std::thread service_;
};

[[nodiscard]] core::Micros now_us() noexcept;

}  // namespace dsm::node
