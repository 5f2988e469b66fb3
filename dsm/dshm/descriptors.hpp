// dsm/dshm/descriptors.hpp - the library's own descriptors in a process that does not know of them.
//
// They get high numbers, out of the way of who counts on the lowest free one, and are close-on-exec. The functions in front
// of close, dup2 and friends (files.cpp) spare them. Whoever closes by raw system calls closes them all the same, and may
// have the number for something else then: so before each use it is asked whether the file is still the one that it was.
// Thread-safe. async-signal-safe: yes.
#pragma once
#include <sys/types.h>

namespace dsm::dshm {

// A plain value: copies mean the same descriptor.
class Descriptor {
 public:
  constexpr Descriptor() noexcept = default;
  // Takes `fd` over, under another number if there is a high one to be had. -1 stays -1.
  [[nodiscard]] static Descriptor adopt(int fd) noexcept;

  [[nodiscard]] int get() const noexcept { return fd_; }
  [[nodiscard]] bool open() const noexcept;  // it is, and it is still ours
  // Closes it if it is still ours.
  void close() noexcept;

 private:
  int fd_ = -1;
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

// Whether the number is that of one of ours.
[[nodiscard]] bool is_own(int fd) noexcept;
// The lowest of ours in [from, to], or -1.
[[nodiscard]] int next_own(unsigned from, unsigned to) noexcept;

}  // namespace dsm::dshm
