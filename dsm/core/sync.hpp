// dsm/core/sync.hpp - locks and barriers between nodes: a second core of the same shape as coherence.hpp.
//
// A lock lives at its home (id modulo nodes), which keeps a queue of those who want it, first come first served. A
// barrier lives at node 0: everybody else sends `arrive` and gets `go`, 2(n-1) messages.
//
// Thread-safety: none; the driver holds one lock around step() and its actions. async-signal-safe: step() yes.
#pragma once
#include <cstdint>
#include <memory>
#include <variant>

#include "dsm/core/types.hpp"

namespace dsm::core {

using LockId = std::uint32_t;

struct SyncMessage {
  enum class Kind : std::uint8_t { lock_want, lock_grant, lock_free, barrier_arrive, barrier_go };
  Kind kind{};
  Waiter waiter = 0;      // lock_want, lock_grant: whose
  LockId lock = 0;        // lock_*: which
  std::uint64_t round = 0;  // barrier_*: which barrier, counted from 1
  friend bool operator==(const SyncMessage&, const SyncMessage&) = default;
};

struct LockWant { LockId lock; Waiter waiter; Lane lane = 0; };
struct LockFree { LockId lock; };  // REQUIRES: this node's thread holds it (the caller checks)
struct BarrierArrive { Waiter waiter; Lane lane = 0; };
struct SyncReceived { Node from; Lane lane; SyncMessage msg; };
using SyncEvent = std::variant<LockWant, LockFree, BarrierArrive, SyncReceived>;

struct SyncSend { Node to; Lane lane; SyncMessage msg; };
using SyncAction = std::variant<SyncSend, Wake, Abort>;

struct SyncConfig {
  Node self = 0;
  std::uint8_t nodes = 1;
  LockId locks = 65536;                 // lock ids are 0..locks-1
  std::uint16_t waiters = max_waiters;  // threads of one node that may wait for a lock at one time
};

class SyncActions {
 public:
  static constexpr std::size_t capacity = max_ranks + 8;
  void push(const SyncAction& action);
  void clear() { size_ = 0; }
  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] const SyncAction& operator[](std::size_t i) const { return list_[i]; }
  [[nodiscard]] const SyncAction* begin() const { return list_.data(); }
  [[nodiscard]] const SyncAction* end() const { return list_.data() + size_; }

 private:
  std::array<SyncAction, capacity> list_{};
  std::size_t size_ = 0;
};

class Sync {
 public:
  explicit Sync(const SyncConfig& config);
  Sync(const Sync&);
  Sync& operator=(const Sync&);
  Sync(Sync&&) noexcept;
  Sync& operator=(Sync&&) noexcept;
  ~Sync();

  void step(const SyncEvent& event, SyncActions& out);
  [[nodiscard]] std::uint64_t digest() const;

 private:
  std::unique_ptr<struct SyncState> state_;
};

}  // namespace dsm::core
