#include "dsm/dshm_agent/segment.hpp"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "ipc/error.hpp"
#include "ipc/mapping.hpp"

namespace dsm::dshm_agent {
namespace {

// How long a page that has come stays, so that the instruction that asked for it has surely run. It is a process's turn
// to run that takes the time: it must be woken, and get a processor.
constexpr Micros hold_us = 200;

[[noreturn]] void end_for(const char* call) {
  std::fprintf(stderr,
               "dshm_agent: %s of a segment's page: %s; the agent ends, and its processes lose their segments\n", call,
               std::strerror(errno));
  std::abort();
}

off_t offset_of(Page page) { return static_cast<off_t>(page) * static_cast<off_t>(sysv::page_bytes); }

Page pages_of(std::uint64_t size) { return static_cast<Page>((size + sysv::page_bytes - 1) / sysv::page_bytes); }

}  // namespace

Segment::Segment(const Setup& setup, Processes& processes, Outlets outlets)
    : setup_(setup),
      processes_(processes),
      outlets_(std::move(outlets)),
      memory_(ipc::make_memfd(("dshm-" + std::to_string(setup.id)).c_str(), pages_of(setup.size) * sysv::page_bytes)),
      hosted_({.slot = setup.slot, .pages = pages_of(setup.size), .hold = hold_us}, *this) {}

// ---- dsmd and the frames --------------------------------------------------------------------------------------------

void Segment::send(const core::Message& message, PageBytes bytes) {
  outlets_.to_dsmd({.tenure = setup_.tenure, .last = false, .message = message, .bytes = std::move(bytes)});
}

void Segment::keep_size() {
  struct stat status {};
  if (expired_ || ::fstat(memory_.get(), &status) != 0) return;
  const auto size = static_cast<off_t>(mapped_size());
  if (status.st_size != size && ::ftruncate(memory_.get(), size) != 0) end_for("ftruncate");
}

PageBytes Segment::read(Page page) {
  PageBytes out(sysv::page_bytes);
  for (std::size_t have = 0; have < out.size();) {
    const ssize_t got =
        ::pread(memory_.get(), out.data() + have, out.size() - have, offset_of(page) + static_cast<off_t>(have));
    if (got > 0) have += static_cast<std::size_t>(got);
    if (got < 0 && errno != EINTR) end_for("pread");
    if (got == 0) {  // a process has shortened it; what was there is gone, and zero is what the others see, too
      keep_size();
      break;
    }
  }
  return out;
}

void Segment::write(Page page, std::span<const std::uint8_t> bytes) {
  for (std::size_t done = 0; done < bytes.size();) {
    const ssize_t put =
        ::pwrite(memory_.get(), bytes.data() + done, bytes.size() - done, offset_of(page) + static_cast<off_t>(done));
    if (put > 0) done += static_cast<std::size_t>(put);
    if (put < 0 && errno != EINTR) end_for("pwrite");
  }
  keep_size();
}

void Segment::punch(Page page) {
  while (::fallocate(memory_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset_of(page), sysv::page_bytes) !=
         0) {
    if (errno != EINTR) end_for("fallocate");
  }
}

void Segment::say_last() {
  for (const Page page : hosted_.written()) {
    sysv::PageFrame frame{.tenure = setup_.tenure, .last = true, .message = {}, .bytes = read(page)};
    frame.message.page = page;
    outlets_.to_dsmd(std::move(frame));
  }
}

void Segment::freeze() {
  for (const Page page : hosted_.written()) {
    for (auto& [number, process] : processes_) {
      if (process.userfault && hosted_.allowed(number, page) == Access::write) write_protect(number, page);
    }
  }
}

// Those who sleep are woken, to see that it is over.
void Segment::expire() {
  expired_ = true;
  if (::ftruncate(memory_.get(), 0) != 0) end_for("ftruncate");
  for (const Toucher& toucher : hosted_.touchers()) wake(toucher);
}

// ---- processes ------------------------------------------------------------------------------------------------------

void Segment::write_protect(ProcessNumber number, Page page) {
  const auto process = processes_.find(number);
  if (process == processes_.end() || !process->second.userfault) return;
  for (const Attach& attach : process->second.attaches) {
    if (attach.id() != setup_.id) continue;
    const auto address = attach.at(std::uint64_t{page} * sysv::page_bytes);
    if (address) process->second.userfault->write_protect(*address);
  }
}

void Segment::map(const Toucher& toucher, Page page, Access access) {
  const auto process = processes_.find(toucher.process);
  if (process == processes_.end() || !process->second.userfault) return;
  // By now there may be something else at that address.
  Attach* const attach = process->second.attach_at(toucher.address);
  const std::uint64_t offset = std::uint64_t{page} * sysv::page_bytes;
  if (attach == nullptr || attach->id() != setup_.id || attach->at(offset) != toucher.address) return;
  keep_size();
  process->second.userfault->map(toucher.address, access, memory_.get(), offset);
}

void Segment::wake(const Toucher& toucher) {
  const auto process = processes_.find(toucher.process);
  if (process != processes_.end() && process->second.userfault) process->second.userfault->wake(toucher.address);
}

void Segment::order(ProcessNumber number, Page page, Access access, bool acknowledge) {
  const auto process = processes_.find(number);
  if (process == processes_.end()) return;
  Order order;
  order.kind = Order::Kind::protect;
  order.id = setup_.id;
  order.page = page;
  order.access = static_cast<std::uint32_t>(access);
  order.acknowledge = acknowledge ? 1 : 0;
  outlets_.to_process(process->second, order);
}

}  // namespace dsm::dshm_agent
