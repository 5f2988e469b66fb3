// dsm/dshm_agent/segment.hpp - a segment of this host: its memfd, and the hands of its Hosted.
//
// The agent itself does not map the memfd: it reads and writes whole pages by pread(2) and pwrite(2), which need no
// address space, and say ENOSPC where a store through a mapping would raise SIGBUS.
//
// Who may write to a mapping of a memfd may change its size, too, unless F_SEAL_SHRINK forbids it to all: to the agent,
// too, and an empty memfd is the only thing that makes a process without a userfaultfd that is stopped find SIGBUS, and
// not stale data, when it goes on (expire). So it has no such seal, nor can it get one, or any other. A process that
// shortens it spoils frames, as it could by writing to them; others that touch them then get SIGBUS; here the size is
// put right when it is seen.
//
// Thread-safety: none. Not async-signal-safe.
#pragma once
#include <cstdint>
#include <functional>

#include "dsm/dshm_agent/hosted.hpp"
#include "dsm/dshm_agent/process.hpp"
#include "ipc/fd.hpp"

namespace dsm::dshm_agent {

using Processes = std::map<ProcessNumber, Process>;

class Segment final : private Hands {
 public:
  struct Setup {
    std::int32_t id = 0;
    std::uint64_t size = 0;  // bytes, exact
    std::uint32_t tenure = 0;
    core::Node slot = 0;
  };
  // Said to others: a page frame to dsmd, an order to a process (its number is filled in here).
  struct Outlets {
    std::function<void(sysv::PageFrame)> to_dsmd;
    std::function<void(Process&, const Order&)> to_process;
  };
  // Throws std::system_error.
  Segment(const Setup& setup, Processes& processes, Outlets outlets);

  [[nodiscard]] std::int32_t id() const { return setup_.id; }
  [[nodiscard]] std::uint32_t tenure() const { return setup_.tenure; }
  [[nodiscard]] int memory() const { return memory_.get(); }
  [[nodiscard]] std::uint64_t mapped_size() const { return std::uint64_t{hosted_.pages()} * sysv::page_bytes; }
  [[nodiscard]] Hosted& hosted() { return hosted_; }

  // The last words of this host: all pages held for writing go home. Afterwards nothing is held here; REQUIRES: nobody
  // here has it attached, or `expire` has been called.
  void say_last();
  // The end of everything: whoever touches it gets SIGBUS, in all processes.
  void expire();
  // Write-protects where that can be done from outside, so that what say_last() reads is no more than a moment old.
  void freeze();

 private:
  void send(const core::Message& message, PageBytes bytes) override;
  [[nodiscard]] PageBytes read(Page page) override;
  void write(Page page, std::span<const std::uint8_t> bytes) override;
  void punch(Page page) override;
  void write_protect(ProcessNumber process, Page page) override;
  void map(const Toucher& toucher, Page page, Access access) override;
  void wake(const Toucher& toucher) override;
  void order(ProcessNumber process, Page page, Access access, bool acknowledge) override;
  void keep_size();

  Setup setup_;
  Processes& processes_;
  Outlets outlets_;
  ipc::Fd memory_;
  Hosted hosted_;
  bool expired_ = false;
};

}  // namespace dsm::dshm_agent
