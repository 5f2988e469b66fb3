// fork: the child inherits the attaches, and what the agent knows of them.
//
// Before: nobody else attaches or detaches, and the agent has counted the child's attaches. Between the child's first
// instruction and the agent's welcome its attaches are closed, for no agent would hear that it touches them. The handlers are
// there from the loading of the library on: so ours are the last before the fork, and the first after it.
//
// Not seen: _Fork, clone. Their children find the attaches taken away (madvise(2), MADV_DONTFORK).
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include <algorithm>

#include "dsm/dshm/connections.hpp"
#include "dsm/dshm/faults.hpp"
#include "dsm/dshm/process.hpp"
#include "dsm/dshm/routes.hpp"

namespace dsm::dshm {
namespace {

kernel::Mask mask_before;  // shape
Descriptor child_end;  // shape: of the pair whose other end the agent has; if there is none, the child begins afresh

// REQUIRES: table.
template <class Do>
void each_run(Do run) noexcept {
  process().attaches.each([&](Attach& attach) {
    for (std::size_t page = 0; page < attach.pages;) {
      const std::size_t from = page;
      while (page < attach.pages && !attach.gone(page)) ++page;
      if (page != from) run(reinterpret_cast<void*>(attach.at(from)), (page - from) * Attaches::page_size());
      while (page < attach.pages && attach.gone(page)) ++page;
    }
  });
}

void inherit(bool on) noexcept {
  each_run([on](void* at, std::size_t length) { kernel::let_inherit(at, length, on); });
}

// Root may become anybody, and a set-user-id program another user, or has become one: who has not the right to begin at
// this agent by himself.
bool may_change_user() noexcept {
  return ::geteuid() == 0 || ::getuid() != ::geteuid() || ::geteuid() != process().user;
}

// The agent gets one end of a pair; none if there is nothing to inherit.
void announce_child() {
  child_end = {};
  const Process& own = process();
  if (own.state.load() != State::live || (own.attaches.count() == 0 && !may_change_user())) return;
  int ends[2];
  if (::syscall(SYS_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) != 0) {
    say({"fork: the child cannot have its attached segments: socketpair: ", strerrordesc_np(errno)});
    return;
  }
  child_end = Descriptor::adopt(ends[0]);
  sysv::Question question{.call = sysv::Call::local_fork};
  sysv::Answer answer;
  const int error = ask(question, answer, nullptr, std::span<const int>(&ends[1], 1));
  kernel::close(ends[1]);
  if (error == 0) return;
  child_end.close();
  say({"fork: the child cannot have its attached segments: ", strerrordesc_np(error)});
}

void before_fork() {
  const int error = errno;
  const kernel::Mask all = ~kernel::Mask{0};
  kernel::Mask before = 0;
  kernel::set_mask(&all, &before);
  process().shape.lock();
  mask_before = before;
  disown_if_foreign();
  announce_child();
  lock_connections();
  lock_routes();
  process().table.lock();
  if (child_end.get() >= 0 || process().state.load() == State::over) inherit(true);
  errno = error;
}

void unlock_all() noexcept {
  process().table.unlock();
  unlock_routes();
  unlock_connections();
}

void after_fork_in_parent() {
  const int error = errno;
  if (process().state.load() == State::live) inherit(false);
  unlock_all();
  child_end.close();
  const kernel::Mask mask = mask_before;
  process().shape.unlock();
  kernel::set_mask(&mask, nullptr);
  errno = error;
}

// Its attaches are gone, for it was not announced; but it can begin by itself.
void begin_afresh() {
  Process& own = process();
  const TableLock guard;
  own.attaches.each([&](Attach& attach) {
    cover(attach);
    own.attaches.drop(&attach);
  });
  own.state = State::fresh;
}

void join_agent() {
  Process& own = process();
  const int socket = child_end.get();
  std::string why;
  // Out of the table of descriptors, to be adopted again: it is the service connection now.
  const int moved = kernel::dup_above(socket, 0);
  child_end.close();
  int error = moved < 0 ? errno : open_service(moved, why);
  // Where the parent had a userfaultfd, the child may have none: it has become another user since.
  if (error == 0 && !own.asked.load() && own.attaches.count() != 0) error = prepare_faults();
  if (error == 0) error = start_service_thread();
  if (error != 0) {
    end({"the child of a fork is without its attached segments: ", why.empty() ? strerrordesc_np(error) : why});
    return;
  }
  own.pid = ::getpid();
  make_connection();
  const TableLock guard;
  own.attaches.each([](Attach& attach) { apply(attach, 0, attach.pages); });
  inherit(false);
}

void close_attaches() noexcept {
  each_run([](void* at, std::size_t length) { kernel::protect(at, length, PROT_NONE); });
  process().attaches.each([](Attach& attach) {
    for (std::size_t page = 0; page < attach.pages; ++page) {
      if (attach.access(page) != core::Access::none) attach.obey(page, core::Access::none);
    }
  });
}

void after_fork_in_child() {
  const int error = errno;
  Process& own = process();
  const bool was_live = own.state.load() == State::live;
  if (was_live) close_attaches();
  forget_connections();
  own.service.close();
  own.userfault.close();
  unlock_all();
  if (was_live) {
    if (child_end.get() >= 0) {
      join_agent();
    } else {
      begin_afresh();
    }
  }
  const kernel::Mask mask = mask_before;
  own.shape.unlock();
  kernel::set_mask(&mask, nullptr);
  errno = error;
}

[[gnu::constructor(101)]] void watch() { ::pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child); }

}  // namespace

void be_there_at_forks() noexcept {}

}  // namespace dsm::dshm
