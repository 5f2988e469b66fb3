#include "dsm/dshm/faults.hpp"

#include <errno.h>
#include <string.h>
#include <ucontext.h>

#include <array>
#include <exception>
#include <system_error>

#include "dsm/dshm/message.hpp"
#include "dsm/dshm/process.hpp"
#include "dsm/pager/disposition.hpp"
#include "dsm/pager/fault_context.hpp"
#include "dsm/sysv/wire.hpp"

namespace dsm::dshm {
namespace {

using core::Access;
using pager::FaultContext;

// ---- frames that are sent where nothing may be allocated: made beforehand, with places for numbers ----

class Template {
 public:
  // REQUIRES: in the encoding, each of the numbers that `places` lists is there once, in network byte order.
  template <std::size_t Count>
  void make(const sysv::Question& question, const std::array<std::uint64_t, Count>& marks, std::size_t width) {
    const std::vector<std::uint8_t> bytes = sysv::encode(question);
    if (bytes.size() > bytes_.size()) throw std::length_error("a frame without lists is longer than all should be");
    size_ = bytes.size();
    ::memcpy(bytes_.data(), bytes.data(), size_);
    width_ = width;
    for (std::size_t i = 0; i < Count; ++i) places_[i] = place_of(marks[i]);
  }
  void put(std::size_t index, std::uint64_t value) noexcept { store(bytes_.data() + places_[index], value); }
  [[nodiscard]] std::span<const std::uint8_t> bytes() const noexcept { return {bytes_.data(), size_}; }

 private:
  void store(std::uint8_t* at, std::uint64_t value) const noexcept {
    for (std::size_t i = 0; i < width_; ++i) at[i] = static_cast<std::uint8_t>(value >> 8U * (width_ - 1 - i));
  }
  [[nodiscard]] std::size_t place_of(std::uint64_t mark) const {
    std::uint8_t pattern[8];
    store(pattern, mark);
    const void* const at = ::memmem(bytes_.data(), size_, pattern, width_);
    if (at == nullptr) throw std::logic_error("a number is not where it should be in a frame");
    return static_cast<std::size_t>(static_cast<const std::uint8_t*>(at) - bytes_.data());
  }

  std::array<std::uint8_t, 256> bytes_{};
  std::array<std::size_t, 3> places_{};
  std::size_t size_ = 0, width_ = 0;
};

Template fault_frame, lowered_frame;

void make_frames() {
  sysv::Question fault{.call = sysv::Call::local_fault};
  fault.id = 0x1a2b3c4d;
  fault.number = 0x2b3c4d5e;
  fault.flags = 0x3c4d5e6f;
  fault_frame.make(fault, std::array<std::uint64_t, 3>{0x1a2b3c4d, 0x2b3c4d5e, 0x3c4d5e6f}, 4);
  sysv::Question lowered{.call = sysv::Call::local_lowered};
  lowered.size = 0x1a2b3c4d5e6f7081;
  lowered_frame.make(lowered, std::array<std::uint64_t, 1>{0x1a2b3c4d5e6f7081}, 8);
}

// Should it fail the connection has ended, which the service thread sees to.
void send_fault(std::int32_t id, std::size_t page, Access want) noexcept {
  Template frame = fault_frame;
  frame.put(0, static_cast<std::uint32_t>(id));
  frame.put(1, page);
  frame.put(2, want == Access::write ? 1 : 0);
  (void)send(process().service.get(), frame.bytes());
}

// ---- one page ----

enum class Found {
  foreign,    // no page of ours, or not allowed by the program itself
  present,    // it may be used so, now
  different,  // an order about the page has been obeyed, or all is over: try again
};

bool allows(int protection, Access want) {
  return (protection & (want == Access::write ? PROT_WRITE : PROT_READ | PROT_WRITE | PROT_EXEC)) != 0;
}

// Looks at the page; `want` none: whatever is more than it has. If it is to be waited for: `attach` tells which.
struct Look {
  Found found = Found::foreign;
  bool wait = false;
  std::int32_t id = 0;
  std::size_t page = 0;
  unsigned orders = 0;
};

Look look(Address address, Access& want, bool refresh) noexcept {
  const TableLock guard;
  Attach* const attach = process().attaches.find(address);
  Look result;
  if (attach == nullptr) return result;
  result.found = Found::different;
  const bool over = process().state.load() == State::over;
  if (over && process().closed.load()) result.found = Found::foreign;  // trying again would not end
  if (over || !attach->ready) return result;
  result.page = (address - attach->base) / Attaches::page_size();
  result.id = attach->id;
  result.orders = attach->orders(result.page);
  const Access has = attach->access(result.page);
  if (want == Access::none) want = has == Access::none ? Access::read : Access::write;
  if (!allows(attach->wish(result.page), want)) {
    result.found = Found::foreign;
  } else if (has >= want) {
    result.found = Found::present;
    if (refresh) apply(*attach, result.page, result.page + 1);
  } else {
    result.wait = true;
  }
  return result;
}

// `refresh`: a touch has failed, so the protection is looked after even if it should be right.
Found obtain(Address address, Access want, bool refresh) noexcept {
  const Look first = look(address, want, refresh);
  if (!first.wait) {
    if (first.found == Found::different) kernel::yield();  // being attached by another thread, or just covered
    return first.found;
  }
  std::uint32_t turns = process().turns.load();
  send_fault(first.id, first.page, want);
  for (;;) {
    const Look now = look(address, want, false);
    if (!now.wait || now.id != first.id || now.orders != first.orders) return now.found;
    node::futex_wait(process().turns, turns);
    turns = process().turns.load();
  }
}

// The handler in front of the program's. All signals are blocked; the thread may have been anywhere but in a TableLock.
void on_sigsegv(int signo, siginfo_t* info, void* context) {
  const FaultContext fault = pager::read_context(context);
  if (info->si_code == SEGV_ACCERR && !process().asked.load()) {
    const int before = errno;
    Access want = Access::read;
    if (fault.by == FaultContext::By::unknown) want = Access::none;
    if (fault.by == FaultContext::By::writing) want = Access::write;
    const Found found = obtain(reinterpret_cast<Address>(info->si_addr), want, true);
    errno = before;
    if (found != Found::foreign) return;
  }
  pager::forward(signo, info, context);
}

}  // namespace

int prepare_faults() noexcept {
  static bool done = false;  // shape
  if (done) return 0;
  try {
    make_frames();
    pager::capture(on_sigsegv);
  } catch (const std::system_error& error) {
    return error.code().value();
  } catch (const std::exception&) {  // no memory; or a frame that is not as it should be
    return ENOMEM;
  }
  done = true;
  return 0;
}

int apply(Attach& attach, std::size_t from, std::size_t to) noexcept {
  const bool asked = process().asked.load();
  const std::size_t end = to < attach.pages ? to : attach.pages;
  for (std::size_t page = from; page < end;) {
    if (attach.gone(page)) {
      ++page;
      continue;
    }
    const std::size_t begin = page;
    const int protection = attach.effective(page, asked);
    while (page < end && !attach.gone(page) && attach.effective(page, asked) == protection) ++page;
    const std::size_t length = (page - begin) * Attaches::page_size();
    if (kernel::protect(reinterpret_cast<void*>(attach.at(begin)), length, protection) != 0) return errno;
  }
  return 0;
}

namespace {

// The kernel has no room for one more run of equal protection (vm.max_map_count): all pages of the attach are closed, which
// is one run; what is used then comes back, page by page, by faults. Less than ordered is always right.
void close_all_but(Attach& attach, std::size_t from, std::size_t to) noexcept {
  for (std::size_t page = 0; page < attach.pages; ++page) {
    if (!attach.gone(page) && (page < from || page >= to)) attach.obey(page, Access::none);
  }
  if (apply(attach, 0, attach.pages) == 0) return;
  say({"cannot protect pages of an attached segment: ", strerrorname_np(errno),
       "; raise the limit (sysctl -w vm.max_map_count=1000000)"});
  ::abort();
}

}  // namespace

void obey(const dshm_agent::Order& order) noexcept {
  {
    const TableLock guard;
    const auto access = static_cast<Access>(order.access);
    process().attaches.each([&](Attach& attach) {
      if (attach.id != order.id || order.page >= attach.pages) return;
      if (!attach.ready || order.number < attach.since) return;  // about an earlier attach of the same segment
      const std::size_t from = order.page;
      const std::size_t to = order.count < attach.pages - from ? from + order.count : attach.pages;
      for (std::size_t page = from; page < to; ++page) {
        if (!attach.gone(page)) attach.obey(page, access);
      }
      if (apply(attach, from, to) != 0) close_all_but(attach, from, to);
    });
  }
  process().turn();
  if (order.acknowledge == 0) return;
  Template frame = lowered_frame;
  frame.put(0, order.number);
  (void)send(process().service.get(), frame.bytes());
}

bool bring(const void* at, std::size_t length, Access want) noexcept {
  const auto from = reinterpret_cast<Address>(at);
  if (length == 0 || process().asked.load() || !process().attaches.maybe(from, from + length)) return true;
  const std::size_t size = Attaches::page_size();
  for (Address page = from / size * size; page < from + length; page += size) {
    bool ours = false;
    {
      const TableLock guard;
      ours = process().attaches.find(page) != nullptr;
    }
    if (!ours) continue;
    for (Found found = Found::different; found != Found::present;) {
      if (process().state.load() == State::over) return false;
      found = obtain(page, want, false);
      if (found == Found::foreign) return false;
    }
  }
  return true;
}

}  // namespace dsm::dshm
