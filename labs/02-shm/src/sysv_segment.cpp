#include "ipc/sysv_segment.hpp"

#include <cerrno>
#include <string>
#include <type_traits>
#include <utility>

#include "ipc/error.hpp"

namespace ipc {
namespace {

void* attach_address(int id, int flags) {
  void* const address = ::shmat(id, nullptr, flags);  // the kernel chooses: a fixed address may be taken
  if (address == reinterpret_cast<void*>(-1)) throw_errno("shmat " + std::to_string(id));
  return address;
}

}  // namespace

SysvSegment SysvSegment::create(std::size_t size, int mode, key_t key, int flags) {
  //@ solution 02.create
  const int id = check(::shmget(key, size, IPC_CREAT | IPC_EXCL | (mode & 0777) | flags), "shmget");
  try {
    return SysvSegment(id, attach_address(id, 0), size);
  } catch (...) {
    ::shmctl(id, IPC_RMID, nullptr);  // nobody knows the id but us: it would stay for ever
    throw;
  }
  //@ starter
  // TODO 02.create: shmget() a new segment, attach it. What if the key is taken, and what remains if attaching fails?
  //| static_cast<void>(mode), static_cast<void>(key), static_cast<void>(flags), static_cast<void>(attach_address);
  //| return SysvSegment(-1, nullptr, size);
  //@ end
}

SysvSegment SysvSegment::attach(int id, bool read_only) {
  //@ solution 02.attach
  // Owned at once, so that it is detached again if the size cannot be learnt.
  SysvSegment segment(id, attach_address(id, read_only ? SHM_RDONLY : 0), 0);
  segment.size_ = segment.stat().shm_segsz;
  return segment;
  //@ starter
  // TODO 02.attach: attach the segment at an address of the kernel's choice. Who knows its size?
  //| static_cast<void>(read_only);
  //| return SysvSegment(id, nullptr, 0);
  //@ end
}

SysvSegment::SysvSegment(SysvSegment&& other) noexcept
    : id_(std::exchange(other.id_, -1)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

SysvSegment& SysvSegment::operator=(SysvSegment&& other) noexcept {
  std::swap(id_, other.id_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  SysvSegment former(std::move(other));  // what was ours is detached now, not whenever `other` goes
  return *this;
}

SysvSegment::~SysvSegment() {
  if (data_ != nullptr) ::shmdt(data_);
}

struct shmid_ds SysvSegment::stat() const {
  struct shmid_ds status {};
  if (::shmctl(id_, IPC_STAT, &status) == -1) throw_errno("shmctl IPC_STAT " + std::to_string(id_));
  return status;
}

void SysvSegment::remove() {
  if (::shmctl(id_, IPC_RMID, nullptr) == -1) throw_errno("shmctl IPC_RMID " + std::to_string(id_));
}

// In shared memory an atomic that hides a lock would have one lock in each process.
static_assert(std::atomic<std::uint64_t>::is_always_lock_free && std::atomic<std::int64_t>::is_always_lock_free);
static_assert(std::is_standard_layout_v<Mailbox> && sizeof(Mailbox) == 24);

// Each counter has one writer. `value_` belongs to the writer while the counters are equal and to the reader while they
// differ; the release store of a counter hands it over, the acquire load of the same counter takes it.
bool Mailbox::put(std::int64_t value) noexcept {
  //@ solution 02.mailbox
  const std::uint64_t number = written_.load(std::memory_order_relaxed);
  if (acknowledged_.load(std::memory_order_acquire) != number) return false;
  value_.store(value, std::memory_order_relaxed);
  written_.store(number + 1, std::memory_order_release);
  return true;
  //@ starter
  // TODO 02.mailbox: store the value and count it, unless the last one has not been taken yet. Which of the two first?
  //| value_.store(value);
  //| return true;
  //@ end
}

bool Mailbox::take(std::int64_t& value) noexcept {
  //@ solution 02.take
  const std::uint64_t number = acknowledged_.load(std::memory_order_relaxed);
  if (written_.load(std::memory_order_acquire) == number) return false;
  value = value_.load(std::memory_order_relaxed);
  acknowledged_.store(number + 1, std::memory_order_release);
  return true;
  //@ starter
  // TODO 02.take: fetch the value and acknowledge it, if there is one that has not been taken. Which of the two first?
  //| value = value_.load();
  //| return true;
  //@ end
}

std::uint64_t Mailbox::written() const noexcept { return written_.load(std::memory_order_acquire); }

std::uint64_t Mailbox::acknowledged() const noexcept { return acknowledged_.load(std::memory_order_acquire); }

}  // namespace ipc
