#include "dsm/dshm/descriptors.hpp"

#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "dsm/dshm/kernel.hpp"

namespace dsm::dshm {
namespace {

// A bit for each number below this; above it nothing is spared. Far above where adopt() looks for one.
constexpr unsigned known_numbers = 1U << 16U;
constexpr unsigned word_bits = 64;
constinit std::atomic<std::uint64_t> owned[known_numbers / word_bits] = {};

void mark(int fd, bool own) noexcept {
  const auto number = static_cast<unsigned>(fd);
  if (number >= known_numbers) return;
  const std::uint64_t bit = std::uint64_t{1} << (number % word_bits);
  if (own) {
    owned[number / word_bits].fetch_or(bit);
  } else {
    owned[number / word_bits].fetch_and(~bit);
  }
}

// High, but within what select(2) can name, and what a table of descriptors has room for anyway.
int lowest_wanted() noexcept {
  constexpr rlim_t usual = 1024;
  constexpr rlim_t room = 128;
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
  const rlim_t end = std::min(limit.rlim_cur, usual);
  return static_cast<int>(end > 2 * room ? end - room : end / 2);
}

}  // namespace

Descriptor Descriptor::adopt(int fd) noexcept {
  Descriptor result;
  if (fd < 0) return result;
  result.fd_ = kernel::dup_above(fd, lowest_wanted());
  if (result.fd_ >= 0) {
    kernel::close(fd);
  } else {
    result.fd_ = fd;  // no number left up there
  }
  struct stat now {};
  ::fstat(result.fd_, &now);
  result.device_ = now.st_dev;
  result.inode_ = now.st_ino;
  mark(result.fd_, true);
  return result;
}

bool Descriptor::open() const noexcept {
  struct stat now {};
  return fd_ >= 0 && ::fstat(fd_, &now) == 0 && now.st_dev == device_ && now.st_ino == inode_;
}

void Descriptor::close() noexcept {
  if (fd_ < 0) return;
  const bool still = open();
  mark(fd_, false);
  if (still) kernel::close(fd_);
  fd_ = -1;
}

bool is_own(int fd) noexcept {
  const auto number = static_cast<unsigned>(fd);
  return number < known_numbers &&
         (owned[number / word_bits].load(std::memory_order_relaxed) >> (number % word_bits) & 1U) != 0;
}

int next_own(unsigned from, unsigned to) noexcept {
  for (unsigned number = from; number <= to && number < known_numbers;) {
    const std::uint64_t word = owned[number / word_bits].load(std::memory_order_relaxed) >> (number % word_bits);
    if (word == 0) {
      number += word_bits - number % word_bits;
      continue;
    }
    number += static_cast<unsigned>(__builtin_ctzll(word));
    return number <= to ? static_cast<int>(number) : -1;
  }
  return -1;
}

}  // namespace dsm::dshm
