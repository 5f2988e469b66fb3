// ipc/mapping.hpp - memory that is a file, memory that is seen twice, and who may touch it.
//
// Used by the pager (the region is two views of one memfd) and by whoever reads a file as memory.
// Thread-safety: a Mapping as a plain pointer; protect() may be called by any thread, the kernel serializes.
// Fault path: page_size, page_floor, page_ceil, Mapping's accessors and protect(); their signatures are frozen. The
// rest allocates and throws. Sources: mmap(2), mprotect(2), memfd_create(2), madvise(2).
#pragma once
#include <sys/mman.h>
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "ipc/fd.hpp"

namespace ipc {

// Fault path: yes, all three.
[[nodiscard]] std::size_t page_size() noexcept;                    // of this machine, bytes; a power of two
[[nodiscard]] std::size_t page_floor(std::size_t value) noexcept;  // down to a page boundary
[[nodiscard]] std::size_t page_ceil(
    std::size_t value) noexcept;  // up to one. REQUIRES: value <= SIZE_MAX - page_size()

// Unmaps when it goes. Empty by default and after a move.
class Mapping {
 public:
  Mapping() noexcept = default;
  // As mmap(2). MAP_FIXED_NOREPLACE is honoured on every kernel: EEXIST if something is there. Throws
  // std::system_error; `what` names the object in the message.
  Mapping(void* address, std::size_t length, int protection, int flags, int fd, off_t offset,
          const std::string& what = "mmap");
  Mapping(Mapping&& other) noexcept;
  Mapping& operator=(Mapping&& other) noexcept;
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  ~Mapping();

  // Fault path: yes, all three.
  [[nodiscard]] char* data() const noexcept { return data_; }
  [[nodiscard]] std::size_t size() const noexcept { return size_; }  // bytes, as asked for
  [[nodiscard]] bool contains(const void* p) const noexcept;         // data() <= p < data() + size()

 private:
  char* data_ = nullptr;
  std::size_t size_ = 0;
};

// Maps the first `length` bytes of a regular file, MAP_SHARED; `name` is for the messages. Throws std::runtime_error if
// the file is shorter, or no regular file; std::system_error: EACCES (not open for that), EINVAL (no length).
// Whoever shortens the file later makes SIGBUS for those who touch what is gone: see copy_guarded().
[[nodiscard]] Mapping map_file(const Fd& file, std::size_t length, bool writable, const std::string& name);

// How long a regular file is now, bytes. Throws std::runtime_error if it is no regular file, std::system_error.
[[nodiscard]] std::size_t file_size(const Fd& file, const std::string& name);

// Copies from or to a mapping whose file somebody may make shorter meanwhile: false if memory that is touched is not
// there. The kernel does the copying, and answers EFAULT where an instruction of our own would raise SIGBUS (or SIGSEGV:
// no handler is called for a page that is closed). Behind the end of a file, but on its last page, zeros are read and
// what is written is lost: ask file_size() afterwards. Throws std::system_error if there is no descriptor left for it.
[[nodiscard]] bool copy_guarded(void* to, const void* from, std::size_t size);

// A nameless file in memory, close-on-exec, `size` bytes of zeros (holes: memory only for pages touched). `name` is
// shown in /proc/PID/maps. Throws std::system_error.
[[nodiscard]] Fd make_memfd(const char* name, std::size_t size);

// One memory, two views: `application` starts without any permission, `alias` is always readable and writable. Neither
// is inherited by fork (MADV_DONTFORK) nor written to a core dump (MADV_DONTDUMP).
struct TwoViews {
  Fd memory;
  Mapping application;
  Mapping alias;
};
// `size`: bytes, a multiple of page_size(), as large as you like: nothing is reserved. `where`: the address of the
// application's view, MAP_FIXED_NOREPLACE; nullptr: the kernel chooses. Throws std::system_error: EEXIST (the place is
// taken), EINVAL, ENOMEM; nothing is left mapped then.
[[nodiscard]] TwoViews map_two_views(std::size_t size, void* where);

// mprotect(2): 0, or the errno: EINVAL (`address` is not page-aligned), ENOMEM (nothing is mapped there, or this would
// be one mapping more than vm.max_map_count). async-signal-safe: yes (fault path).
[[nodiscard]] int protect(void* address, std::size_t length, int protection) noexcept;

}  // namespace ipc
