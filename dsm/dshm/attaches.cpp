#include "dsm/dshm/attaches.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <new>

#include "dsm/dshm/kernel.hpp"

namespace dsm::dshm {
namespace {

std::size_t rounded(std::size_t size) {
  const std::size_t page = Attaches::page_size();
  return (size + page - 1) / page * page;
}

}  // namespace

std::size_t Attaches::page_size() noexcept {
  static const auto size = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  return size;
}

int Attach::effective(std::size_t page, bool asked) const {
  const int wanted = wish(page);
  if (asked) return wanted;
  switch (access(page)) {
    case core::Access::none:
      return PROT_NONE;
    case core::Access::read:
      return wanted & ~PROT_WRITE;
    case core::Access::write:
      return wanted;
  }
  return PROT_NONE;
}

Address Attach::at(std::size_t page) const { return base + page * Attaches::page_size(); }

// One mapping of its own for each, of which only what is used gets memory: two bytes for a page of the segment.
Attach* Attaches::add(std::int32_t id, Address base, std::size_t pages, int protection, bool read_only) noexcept {
  const std::size_t head = rounded(sizeof(Attach));
  const std::size_t table = rounded(pages);
  void* const memory = kernel::map(nullptr, head + 2 * table, PROT_READ | PROT_WRITE,
                                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  auto* const attach = new (memory) Attach;
  attach->id = id;
  attach->base = base;
  attach->pages = attach->left = pages;
  attach->protection = protection;
  attach->read_only = read_only;
  attach->wishes_ = static_cast<std::uint8_t*>(memory) + head;
  attach->orders_ = attach->wishes_ + table;
  attach->size_ = head + 2 * table;
  attach->next_ = first_;
  first_ = attach;
  ++count_;
  set_bounds();
  return attach;
}

void Attaches::drop(Attach* attach) noexcept {
  Attach** link = &first_;
  while (*link != nullptr && *link != attach) link = &(*link)->next_;
  if (*link == nullptr) return;
  *link = attach->next_;
  --count_;
  kernel::unmap(attach, attach->size_);
  set_bounds();
}

void Attaches::set_bounds() noexcept {
  Address low = UINTPTR_MAX;
  Address high = 0;
  for (const Attach* attach = first_; attach != nullptr; attach = attach->next_) {
    low = std::min(low, attach->base);
    high = std::max(high, attach->end());
  }
  low_.store(low, std::memory_order_release);
  high_.store(high, std::memory_order_release);
}

Attach* Attaches::find(Address address) const noexcept {
  for (Attach* attach = first_; attach != nullptr; attach = attach->next_) {
    if (address < attach->base || address >= attach->end()) continue;
    if (!attach->gone((address - attach->base) / page_size())) return attach;
  }
  return nullptr;
}

Attach* Attaches::begins(Address base) const noexcept {
  Attach* best = nullptr;
  std::size_t lowest = SIZE_MAX;
  for (Attach* attach = first_; attach != nullptr; attach = attach->next_) {
    if (attach->base != base) continue;
    std::size_t page = 0;
    while (page < attach->pages && attach->gone(page)) ++page;
    if (page >= lowest) continue;
    lowest = page;
    best = attach;
  }
  return best;
}

bool Attaches::touches(Address from, Address to) const noexcept {
  for (const Attach* attach = first_; attach != nullptr; attach = attach->next_) {
    if (from >= attach->end() || to <= attach->base) continue;
    std::size_t page = from <= attach->base ? 0 : (from - attach->base) / page_size();
    for (; page < attach->pages && attach->at(page) < to; ++page) {
      if (!attach->gone(page)) return true;
    }
  }
  return false;
}

bool Attaches::take(Address from, Address to, Loss& loss, const Attach* but) noexcept {
  for (Attach* attach = first_; attach != nullptr; attach = attach->next_) {
    if (attach == but || from >= attach->end() || to <= attach->base) continue;
    std::size_t page = from <= attach->base ? 0 : (from - attach->base) / page_size();
    while (page < attach->pages && attach->at(page) < to && attach->gone(page)) ++page;
    const std::size_t begin = page;
    for (; page < attach->pages && attach->at(page) < to && !attach->gone(page); ++page) {
      attach->wishes_[page] = Attach::is_gone;
      --attach->left;
    }
    if (page == begin) continue;
    loss = {attach->id, attach->base, attach->at(begin), attach->at(page), attach->left == 0};
    if (loss.all) drop(attach);
    return true;
  }
  return false;
}

}  // namespace dsm::dshm
