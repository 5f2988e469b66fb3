#include "ipc/posix_segment.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <random>
#include <utility>

#include "ipc/error.hpp"
#include "ipc/fd.hpp"

namespace ipc {
namespace {

// The object's whole size is taken and mapped. shm_open() has made it close-on-exec.
void* map_new(const Fd& object, std::size_t size, const std::string& name) {
  errno = ::posix_fallocate(object.get(), 0, static_cast<off_t>(size));
  if (errno != 0) throw_errno("posix_fallocate " + name);
  void* const data = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, object.get(), 0);
  if (data == MAP_FAILED) throw_errno("mmap " + name);
  return data;
}

}  // namespace

PosixSegment PosixSegment::create(const std::string& prefix, std::size_t size) {
  //@ solution 02.posix
  std::random_device random;
  for (;;) {
    // There is no IPC_PRIVATE here: a name that nobody else has is found by trying.
    const std::string name = "/" + prefix + "-" + std::to_string(::getpid()) + "-" + std::to_string(random());
    const Fd object(::shm_open(name.c_str(), O_RDWR | O_CREAT | O_EXCL, 0600));
    if (!object && errno == EEXIST) continue;
    if (!object) throw_errno("shm_open " + name);
    try {
      return PosixSegment(name, map_new(object, size, name), size);  // the mapping stays when the descriptor goes
    } catch (...) {
      ::shm_unlink(name.c_str());
      throw;
    }
  }
  //@ starter
  // TODO 02.posix: shm_open() a name that is not taken, give the object its size, map it. What is left if that fails?
  //| static_cast<void>(map_new);
  //| return PosixSegment("/" + prefix, nullptr, size);
  //@ end
}

PosixSegment::PosixSegment(PosixSegment&& other) noexcept
    : name_(std::move(other.name_)), data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

PosixSegment& PosixSegment::operator=(PosixSegment&& other) noexcept {
  std::swap(name_, other.name_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  PosixSegment former(std::move(other));  // what was ours is unmapped now, not whenever `other` goes
  return *this;
}

PosixSegment::~PosixSegment() {
  if (data_ != nullptr) ::munmap(data_, size_);
}

void PosixSegment::remove() {
  if (::shm_unlink(name_.c_str()) == -1) throw_errno("shm_unlink " + name_);
}

}  // namespace ipc
