// ipc/posix_segment.hpp - the other shared memory: a POSIX object, which is a file in memory and has a name.
//
// Used by shm_random --posix, to be compared with SysvSegment. Thread-safety: as a plain pointer.
// async-signal-safe: data() and size() only. Sources: shm_overview(7), shm_open(3), posix_fallocate(3), mmap(2).
#pragma once
#include <cstddef>
#include <string>
#include <utility>

namespace ipc {

// A mapped object. Unmaps when it goes; removing the name is a decision of its own, because others may still need it.
// Until somebody removes it the object outlives every process (ls /dev/shm shows it, ipcs does not). A forked child
// inherits the mapping; exec drops it.
class PosixSegment {
 public:
  // New object of `size` bytes (zero-filled), mapped for reading and writing by us, readable and writable for our user
  // only. Its name begins with `prefix`, and nobody else has it. Throws std::system_error: EINVAL (size 0, prefix too
  // long), ENOSPC (that much memory is not there: it is taken now, so that touching it later is no SIGBUS); no object is
  // left then.
  [[nodiscard]] static PosixSegment create(const std::string& prefix, std::size_t size);

  PosixSegment(PosixSegment&& other) noexcept;
  PosixSegment& operator=(PosixSegment&& other) noexcept;
  PosixSegment(const PosixSegment&) = delete;
  PosixSegment& operator=(const PosixSegment&) = delete;
  ~PosixSegment();

  [[nodiscard]] const std::string& name() const noexcept { return name_; }  // "/prefix-...", as for shm_open(3)
  [[nodiscard]] void* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }
  // The name goes now, the memory with its last mapping. Throws std::system_error: ENOENT if the name is gone.
  void remove();

 private:
  PosixSegment(std::string name, void* data, std::size_t size) : name_(std::move(name)), data_(data), size_(size) {}
  std::string name_;
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace ipc
