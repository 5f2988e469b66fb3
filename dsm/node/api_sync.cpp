// The C API of <dsm/dsm.h>: locks, condition variables, semaphores, the barrier.
#include <dsm/dsm.h>
#include <sodium.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <new>

#include "dsm/node/job.hpp"

struct dsm_sem {
  dsm::core::Key key;
};

namespace {

using dsm::core::Key;
using dsm::node::current_job;
using dsm::node::Node;
using dsm::node::result;

constexpr unsigned numbered_locks = 65536;
constexpr Key by_address = Key{1} << 62U;

// The key of a lock or condition variable that is named by an address. An object's home is its key modulo the number of
// ranks, and addresses have strides: multiplied by an odd number they stay different from one another (modulo a power of
// two), and come to be spread over the ranks. False if it is not in the region.
bool key_at(const void* p, Key& key) {
  const auto offset =
      reinterpret_cast<std::uintptr_t>(p) - reinterpret_cast<std::uintptr_t>(current_job->pager->base());
  if (offset >= current_job->pager->size()) return false;
  key = ((offset * 0x9e3779b97f4a7c15U) & (by_address - 1)) | by_address;
  return true;
}

int with_lock(unsigned id, int (Node::*call)(Key) noexcept) {
  if (current_job == nullptr) return result(ENOTCONN);
  if (id >= numbered_locks) return result(EINVAL);
  return result((current_job->node.get()->*call)(id));
}

int with_lock_at(const void* p, int (Node::*call)(Key) noexcept) {
  if (current_job == nullptr) return result(ENOTCONN);
  Key key = 0;
  if (!key_at(p, key)) return result(EINVAL);
  return result((current_job->node.get()->*call)(key));
}

int signal_at(const void* c, bool all) {
  if (current_job == nullptr) return result(ENOTCONN);
  Key key = 0;
  if (!key_at(c, key)) return result(EINVAL);
  return result(current_job->node->cond_signal(key, all));
}

// 64 bits of BLAKE2b (libsodium): that two of a job's few names have the same is not to be expected.
Key key_of_name(const char* name, std::size_t length) {
  std::array<unsigned char, crypto_generichash_BYTES> hash{};
  ::crypto_generichash(hash.data(), hash.size(), reinterpret_cast<const unsigned char*>(name), length, nullptr, 0);
  Key key = 0;
  for (std::size_t i = 0; i < sizeof key; ++i) key = key << 8U | hash[i];  // the same on machines of either byte order
  return key;
}

int with_semaphore(dsm_sem_t* sem, int (*call)(Node&, Key)) {
  if (current_job == nullptr) return result(ENOTCONN);
  if (sem == nullptr) return result(EINVAL);
  return result(call(*current_job->node, sem->key));
}

}  // namespace

extern "C" {

int dsm_barrier(void) { return result(current_job == nullptr ? ENOTCONN : current_job->node->barrier()); }

int dsm_lock(unsigned id) { return with_lock(id, &Node::acquire); }
int dsm_trylock(unsigned id) { return with_lock(id, &Node::try_acquire); }
int dsm_unlock(unsigned id) { return with_lock(id, &Node::release); }

int dsm_lock_at(void* p) { return with_lock_at(p, &Node::acquire); }
int dsm_trylock_at(void* p) { return with_lock_at(p, &Node::try_acquire); }
int dsm_unlock_at(void* p) { return with_lock_at(p, &Node::release); }

int dsm_cond_wait_at(void* c, void* lock) {
  if (current_job == nullptr) return result(ENOTCONN);
  Key condition = 0, held = 0;
  if (!key_at(c, condition) || !key_at(lock, held)) return result(EINVAL);
  return result(current_job->node->cond_wait(condition, held));
}
int dsm_cond_signal_at(void* c) { return signal_at(c, false); }
int dsm_cond_broadcast_at(void* c) { return signal_at(c, true); }

dsm_sem_t* dsm_sem_open(const char* name, unsigned value) {
  const std::size_t length = name == nullptr ? 0 : std::strlen(name);
  if (current_job == nullptr || length == 0 || length > 255) {
    errno = current_job == nullptr ? ENOTCONN : EINVAL;
    return nullptr;
  }
  auto* sem = new (std::nothrow) dsm_sem{key_of_name(name, length)};
  const int error = sem == nullptr ? ENOMEM : current_job->node->sem_open(sem->key, value);
  if (error == 0) return sem;
  delete sem;
  errno = error;
  return nullptr;
}
int dsm_sem_wait(dsm_sem_t* sem) {
  return with_semaphore(sem, [](Node& node, Key key) { return node.sem_wait(key, false); });
}
int dsm_sem_trywait(dsm_sem_t* sem) {
  return with_semaphore(sem, [](Node& node, Key key) {
    const int error = node.sem_wait(key, true);
    return error == EBUSY ? EAGAIN : error;
  });
}
int dsm_sem_post(dsm_sem_t* sem) {
  return with_semaphore(sem, [](Node& node, Key key) { return node.sem_post(key); });
}
int dsm_sem_close(dsm_sem_t* sem) {
  if (sem == nullptr) return result(EINVAL);
  delete sem;
  return 0;
}

}  // extern "C"
