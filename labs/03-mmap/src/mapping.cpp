#include "ipc/mapping.hpp"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <functional>
#include <limits>
#include <stdexcept>
#include <utility>

#include "ipc/error.hpp"

namespace ipc {

std::size_t page_size() noexcept { return static_cast<std::size_t>(::sysconf(_SC_PAGESIZE)); }

std::size_t page_floor(std::size_t value) noexcept {
  //@ solution 03.pages
  return value & ~(page_size() - 1);  // a page is a power of two
  //@ starter
  // TODO 03.pages: down to a multiple of the page size, which is a power of two.
  //| return value;
  //@ end
}

std::size_t page_ceil(std::size_t value) noexcept { return page_floor(value + page_size() - 1); }

Mapping::Mapping(void* address, std::size_t length, int protection, int flags, int fd, off_t offset,
                 const std::string& what) {
  void* const got = ::mmap(address, length, protection, flags, fd, offset);
  if (got == MAP_FAILED) throw_errno(what);
  // A kernel older than 4.17 does not know MAP_FIXED_NOREPLACE and takes the address for a mere hint (mmap(2)).
  if ((flags & MAP_FIXED_NOREPLACE) == MAP_FIXED_NOREPLACE && got != address) {
    ::munmap(got, length);
    throw std::system_error(EEXIST, std::generic_category(), what);
  }
  data_ = static_cast<char*>(got);
  size_ = length;
}

Mapping::Mapping(Mapping&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  Mapping former(std::move(other));  // what was ours goes now, not whenever `other` does
  return *this;
}

Mapping::~Mapping() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

bool Mapping::contains(const void* p) const noexcept {
  const auto byte = static_cast<const char*>(p);
  return std::less_equal<>{}(data_, byte) && std::less<>{}(byte, data_ + size_);
}

std::size_t file_size(const Fd& file, const std::string& name) {
  struct stat status {};
  if (::fstat(file.get(), &status) == -1) throw_errno("fstat " + name);
  if (!S_ISREG(status.st_mode)) throw std::runtime_error(name + ": not a regular file, it cannot be mapped");
  return static_cast<std::size_t>(status.st_size);
}

Mapping map_file(const Fd& file, std::size_t length, bool writable, const std::string& name) {
  //@ solution 03.map_file
  // Beyond the file's last page there is nothing to map: touching it would be SIGBUS, much later.
  const std::size_t size = file_size(file, name);
  if (size < length) {
    throw std::runtime_error(name + ": too short, it has " + std::to_string(size) + " bytes and " +
                             std::to_string(length) + " are needed");
  }
  return Mapping(nullptr, length, writable ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, file.get(), 0,
                 "mmap " + name);
  //@ starter
  // TODO 03.map_file: map the file so that writes reach it. mmap() does not mind a file that is too short: who does,
  // when?
  //| static_cast<void>(file), static_cast<void>(length), static_cast<void>(writable);
  //| throw std::runtime_error(name + ": map_file is not written yet");
  //@ end
}

bool copy_guarded(void* to, const void* from, std::size_t size) {
  //@ solution 03.copy
  std::array<int, 2> ends{};
  check(::pipe2(ends.data(), O_CLOEXEC), "pipe2");
  const Fd out(ends[0]), in(ends[1]);
  for (std::size_t done = 0; done < size;) {
    // A piece that the empty pipe takes at once: neither call can block, and EFAULT is the only thing to go wrong.
    const std::size_t piece = std::min<std::size_t>(size - done, PIPE_BUF);
    const auto all = static_cast<ssize_t>(piece);
    if (::write(in.get(), static_cast<const char*>(from) + done, piece) != all) return false;
    if (::read(out.get(), static_cast<char*>(to) + done, piece) != all) return false;
    done += piece;
  }
  return true;
  //@ starter
  // TODO 03.copy: memcpy() would die of SIGBUS. What does write(2) say when its buffer cannot be read? Think of a place
  // that takes the bytes and gives them back (/dev/null does not even look at them), and of how much it takes at once.
  //| static_cast<void>(to), static_cast<void>(from);
  //| return size == 0;
  //@ end
}

Fd make_memfd(const char* name, std::size_t size) {
  if (size > static_cast<std::size_t>(std::numeric_limits<off_t>::max())) {
    throw std::system_error(EFBIG, std::generic_category(), std::string("memfd ") + name);
  }
  Fd fd(::memfd_create(name, MFD_CLOEXEC));
  if (!fd) throw_errno(std::string("memfd_create ") + name);
  if (::ftruncate(fd.get(), static_cast<off_t>(size)) == -1) throw_errno(std::string("ftruncate memfd ") + name);
  return fd;
}

TwoViews map_two_views(std::size_t size, void* where) {
  //@ solution 03.two_views
  TwoViews views;
  views.memory = make_memfd("two-views", size);
  const int flags = MAP_SHARED | MAP_NORESERVE;  // huge and mostly untouched: only pages in use count
  views.application = Mapping(where, size, PROT_NONE, where == nullptr ? flags : flags | MAP_FIXED_NOREPLACE,
                              views.memory.get(), 0, "mmap of the application's view");
  views.alias = Mapping(nullptr, size, PROT_READ | PROT_WRITE, flags, views.memory.get(), 0, "mmap of the alias");
  for (const Mapping* view : {&views.application, &views.alias}) {
    check(::madvise(view->data(), size, MADV_DONTFORK), "madvise MADV_DONTFORK");
    // A core dump reads what it writes, and reading would fill every hole with a page of zeros.
    check(::madvise(view->data(), size, MADV_DONTDUMP), "madvise MADV_DONTDUMP");
  }
  return views;
  //@ starter
  // TODO 03.two_views: one memfd, mapped twice. Which protection has each view? How do you keep both out of a forked
  // child and out of a core dump (madvise(2)), and what if something is already mapped at `where`?
  //| static_cast<void>(size), static_cast<void>(where);
  //| throw std::runtime_error("map_two_views is not written yet");
  //@ end
}

int protect(void* address, std::size_t length, int protection) noexcept {
  //@ solution 03.protect
  return ::mprotect(address, length, protection) == 0 ? 0 : errno;
  //@ starter
  // TODO 03.protect: mprotect(2). This runs inside a SIGSEGV handler: what may you not do when it fails?
  //| static_cast<void>(address), static_cast<void>(length), static_cast<void>(protection);
  //| return ENOSYS;
  //@ end
}

}  // namespace ipc
