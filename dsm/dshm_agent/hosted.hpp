// dsm/dshm_agent/hosted.hpp - one segment as this host has it: which processes may do what with each page, as a value.
//
// The frames of a segment are one memfd, which all processes of the host map. So coherence is between hosts: the host
// is one node of core::Coherence, and dsmd the home of all pages. Hosted steps that node with the processes' faults and
// dsmd's messages, and carries its actions out through Hands, which knows memfds, userfaultfds and sockets; a test has
// fakes.
//
// What the host may do with a page (`allowed`) is a bound for each of its processes. What a process may do is raised
// only when it faults. Lowering happens in all of them at once:
//   a process with a userfaultfd   is write-protected from outside, and loses the page when the frame is punched out
//   a process without              is told by an order, and answers when it has obeyed
//
// Parking. The core's actions are to be carried out in order, and "lower" is done only when every process that had more
// has answered. Until then the rest of the page's actions wait, the bytes of a grant with them; those of other pages go
// on. Order by page is enough: actions about different pages have nothing to do with each other in the core (pages
// share the hold's clocks only, which are about when, not whether), and seen from dsmd a parked page is one whose
// messages travel slowly. That they travel slowly is no harm either: a page is written here only while dsmd waits for
// us to give it up, and what we have not given up nobody else has. All that follows a parked action is parked behind
// it, a new want, too: so dsmd never hears a want from a host that has not answered its recall.
//
// A process that is stopped (SIGSTOP, a debugger) and has no userfaultfd does not answer: its pages stay, and who wants
// them elsewhere waits until it goes on, or ends. That is as it must be: it may be in the middle of an instruction.
//
// Thread-safety: none. Not async-signal-safe.
#pragma once
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "dsm/core/coherence.hpp"
#include "dsm/core/zeros.hpp"
#include "dsm/sysv/types.hpp"
#include "dsm/sysv/wire.hpp"

namespace dsm::dshm_agent {

using core::Access;
using core::Micros;
using core::Page;
using sysv::ProcessNumber;
using PageBytes = std::vector<std::uint8_t>;  // sysv::page_bytes of them

// More threads of one process than this do not wait for pages of one segment at one time.
inline constexpr std::size_t waits_max = 1U << 15U;

// A thread that waits for a page: of which process, and, if that has a userfaultfd, where in its memory.
struct Toucher {
  ProcessNumber process = 0;
  std::uint64_t address = 0;  // of the page's begin
};

// What Hosted has done. Nothing here calls back into it.
class Hands {
 public:
  // To dsmd; `bytes` is empty, or a page.
  virtual void send(const core::Message& message, PageBytes bytes) = 0;
  // The frame: what is in it, a new content, and none any more (no process has it mapped then).
  [[nodiscard]] virtual PageBytes read(Page page) = 0;
  virtual void write(Page page, std::span<const std::uint8_t> bytes) = 0;
  virtual void punch(Page page) = 0;
  // Processes with a userfaultfd: the page can be read only, wherever it is attached, when this returns; the toucher's
  // page is mapped so; the toucher is let go on, and tries again.
  virtual void write_protect(ProcessNumber process, Page page) = 0;
  virtual void map(const Toucher& toucher, Page page, Access access) = 0;
  virtual void wake(const Toucher& toucher) = 0;
  // Processes without: an order, which lets those who wait for the page go on, too. `acknowledge`: lowered() is to be
  // called when it has been obeyed.
  virtual void order(ProcessNumber process, Page page, Access access, bool acknowledge) = 0;

 protected:
  ~Hands() = default;
};

class Hosted {
 public:
  struct Setup {
    core::Node slot = 0;  // of this host among those that have the segment
    Page pages = 0;
    Micros hold = 0;
  };
  Hosted(const Setup& setup, Hands& hands);
  Hosted(const Hosted&) = delete;

  // The process has it attached, once or more often; and has no attach of it any more: it owes no answer.
  void join(ProcessNumber process, bool has_uffd);
  void leave(ProcessNumber process, Micros now);

  // False: it is not taken, for so many threads of the process wait already (waits_max).
  bool fault(const Toucher& toucher, Page page, Access want, core::Site site, Micros now);
  // False if no home may say that.
  [[nodiscard]] bool received(const core::Message& message, std::span<const std::uint8_t> bytes, Micros now);
  // The process has obeyed the order about this page that was to be acknowledged.
  void lowered(ProcessNumber process, Page page, Micros now);
  void tick(Micros now);
  // When tick() is due.
  [[nodiscard]] std::optional<Micros> deadline() const { return deadline_; }

  [[nodiscard]] Page pages() const { return static_cast<Page>(allowed_.size()); }
  [[nodiscard]] Access allowed(Page page) const { return allowed_[page]; }
  [[nodiscard]] Access allowed(ProcessNumber process, Page page) const;
  // Pages that this host holds for writing.
  [[nodiscard]] std::vector<Page> written() const;
  // Those who wait, for whatever page: for the end of everything.
  [[nodiscard]] std::vector<Toucher> touchers() const;

 private:
  struct Guest {
    bool has_uffd;
    core::Zeros<Access> may;  // by page: at most this; what it has been given, and not been relieved of
    std::size_t waiting = 0;  // faults that are not answered yet
  };
  struct Waiting {
    Toucher toucher;
    Page page;
    Access want;
    core::Site site;
  };
  struct Step {
    core::Action action;
    PageBytes bytes;  // Install
  };
  // A page that is being lowered.
  struct Parked {
    Access target{};
    std::set<ProcessNumber> owing;
    std::deque<Step> rest;
  };

  void step(const core::Event& event, std::span<const std::uint8_t> bytes);
  void admit(Micros now);
  [[nodiscard]] Page page_of(const core::Action& action) const;
  void perform(const Step& step);
  void protect(Page page, Access allow);
  void lower(Page page, Access allow);
  void finish(Page page, Access allow);
  void go_on(Page page);
  void send(const core::Message& message);
  void let_go(core::Waiter waiter);
  void give(const Toucher& toucher, Page page);

  Hands& hands_;
  core::Coherence core_;
  core::Actions actions_;
  core::Zeros<Access> allowed_;  // by page: what the host may do, as it has been carried out
  std::map<ProcessNumber, Guest> guests_;
  std::map<Page, Parked> parked_;
  std::map<Page, PageBytes> taken_;            // of pages that were written, punched out, and are still to be sent
  std::vector<std::optional<Waiting>> seats_;  // by core::Waiter
  std::vector<core::Waiter> free_;
  std::deque<Waiting> queue_;  // who found no seat
  std::optional<Micros> deadline_;
  bool failed_ = false;
};

}  // namespace dsm::dshm_agent
