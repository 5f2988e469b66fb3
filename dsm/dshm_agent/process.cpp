#include "dsm/dshm_agent/process.hpp"

#include <algorithm>

namespace dsm::dshm_agent {

void Attach::map(std::uint64_t address, std::uint64_t size) {
  address_ = address;
  size_ = size;
  parts_ = {{address, address + size}};
}

bool Attach::unmap(std::uint64_t address, std::uint64_t size) {
  const std::uint64_t end = address + size;
  bool any = false;
  std::map<std::uint64_t, std::uint64_t> left;
  for (const auto& [from, to] : parts_) {
    if (to <= address || from >= end) {
      left.emplace(from, to);
      continue;
    }
    any = true;
    if (from < address) left.emplace(from, address);
    if (end < to) left.emplace(end, to);
  }
  parts_ = std::move(left);
  return any;
}

int Attach::watch(Userfault& userfault) const {
  for (const auto& [from, to] : parts_) {
    const int error = userfault.watch(from, to - from);
    if (error != 0) return error;
  }
  return 0;
}

bool Attach::contains(std::uint64_t address) const {
  const auto after = parts_.upper_bound(address);
  return after != parts_.begin() && address < std::prev(after)->second;
}

std::optional<std::uint64_t> Attach::at(std::uint64_t offset) const {
  if (offset >= size_ || !contains(address_ + offset)) return {};
  return address_ + offset;
}

bool Process::has(std::int32_t segment) const {
  return std::any_of(attaches.begin(), attaches.end(),
                     [segment](const Attach& a) { return a.id() == segment && a.is_mapped(); });
}

Attach* Process::attach_at(std::uint64_t address) {
  for (Attach& attach : attaches) {
    if (attach.contains(address)) return &attach;
  }
  return nullptr;
}

}  // namespace dsm::dshm_agent
