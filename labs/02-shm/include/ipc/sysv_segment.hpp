// ipc/sysv_segment.hpp - a System V shared memory segment, and a mailbox in it that loses nothing.
//
// Used for telemetry: each rank publishes a segment, the agent of its host reads it.
// Thread-safety: a SysvSegment as a plain pointer; a Mailbox between one writer and one reader, threads or processes.
// Fault path: data(), size() and all of Mailbox; their signatures are frozen. The rest allocates and throws.
// Sources: shmget(2), shmat(2), shmctl(2), sysvipc(7).
#pragma once
#include <sys/ipc.h>
#include <sys/shm.h>
#include <sys/types.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace ipc {

// An attached segment. Detaches when it goes; removing is a decision of its own, because others may still need the id.
// Until somebody removes it a segment outlives every process (ipcs -m shows it): the owner calls remove() as soon as
// all who need it have attached. A forked child inherits the attachment; exec drops it.
class SysvSegment {
 public:
  // New segment of `size` bytes (zero-filled), attached for reading and writing at an address of the kernel's choice.
  // `mode`: permission bits. IPC_PRIVATE unless a key is given, which must then be new. `flags`: more shmget flags
  // (SHM_NORESERVE). Throws std::system_error: EEXIST (key taken), EINVAL (size 0 or over SHMMAX), ENOMEM, ENOSPC; no
  // segment is left then.
  [[nodiscard]] static SysvSegment create(std::size_t size, int mode = 0600, key_t key = IPC_PRIVATE, int flags = 0);
  // Throws std::system_error: EINVAL or EIDRM (no such segment any more), EACCES.
  [[nodiscard]] static SysvSegment attach(int id, bool read_only = false);

  SysvSegment(SysvSegment&& other) noexcept;
  SysvSegment& operator=(SysvSegment&& other) noexcept;
  SysvSegment(const SysvSegment&) = delete;
  SysvSegment& operator=(const SysvSegment&) = delete;
  ~SysvSegment();

  [[nodiscard]] int id() const noexcept { return id_; }              // the same number in every process
  [[nodiscard]] void* data() const noexcept { return data_; }        // page-aligned; another address in every process
  [[nodiscard]] std::size_t size() const noexcept { return size_; }  // bytes, as asked for at creation
  // What `ipcs` shows: size, owner, number of attachments. Throws std::system_error.
  [[nodiscard]] struct shmid_ds stat() const;
  // Marks it for removal: it goes with its last attach. Linux still lets others attach by id until then (by key no
  // more). Throws std::system_error: EINVAL or EIDRM if it is gone, EPERM.
  void remove();

 private:
  SysvSegment(int id, void* data, std::size_t size) noexcept : id_(id), data_(data), size_(size) {}
  int id_ = -1;
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

// One slot in shared memory, one writer, one reader: the writer numbers each value, the reader acknowledges the number.
// Signals coalesce and a value may be overwritten; a value that was not acknowledged never is. Lives in zero-filled
// memory. Neither side waits here: how to wait (signal, futex, poll) is the caller's choice.
// async-signal-safe: yes (fault path); but a side that may be interrupted in put() or take() must not be entered again
// by its own handler.
class Mailbox {
 public:
  // False if the last value has not been acknowledged yet.
  [[nodiscard]] bool put(std::int64_t value) noexcept;
  // False if there is nothing new. Taking is acknowledging.
  [[nodiscard]] bool take(std::int64_t& value) noexcept;
  [[nodiscard]] std::uint64_t written() const noexcept;       // values put so far
  [[nodiscard]] std::uint64_t acknowledged() const noexcept;  // values taken so far

 private:
  std::atomic<std::uint64_t> written_;
  std::atomic<std::uint64_t> acknowledged_;
  std::atomic<std::int64_t> value_;
};

}  // namespace ipc
