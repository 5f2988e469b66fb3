// The C API of <dsm/dsm.h>: locks, condition variables, semaphores, the barrier.
#include <dsm/dsm.h>
#include <sodium.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <new>

#include "dsm/node/job.hpp"
#include "dsm/node/keys.hpp"

struct dsm_sem {
  dsm::core::Key key;
};

namespace {

using dsm::core::Key;
using dsm::node::Job;
using dsm::node::job_for;
using dsm::node::Node;
using dsm::node::result;

constexpr unsigned numbered_locks = 65536;

// The key of a lock or condition variable that is named by an address. False if it is not in the region.
bool key_at(const Job& job, const void* p, Key& key) {
  const auto offset = reinterpret_cast<std::uintptr_t>(p) - reinterpret_cast<std::uintptr_t>(job.pager->base());
  if (offset >= job.pager->size()) return false;
  key = dsm::node::key_of_offset(offset);
  return true;
}

using Call = int (Node::*)(Key) noexcept;

int with_lock(const char* function, unsigned id, Call call) {
  Job* const job = job_for(function);
  if (job == nullptr) return -1;
  if (id >= numbered_locks) return result(EINVAL);
  return result((job->node.get()->*call)(id));
}

int with_lock_at(const char* function, const void* p, Call call) {
  Job* const job = job_for(function);
  if (job == nullptr) return -1;
  Key key = 0;
  if (!key_at(*job, p, key)) return result(EINVAL);
  return result((job->node.get()->*call)(key));
}

int signal_at(const char* function, const void* c, bool all) {
  Job* const job = job_for(function);
  if (job == nullptr) return -1;
  Key key = 0;
  if (!key_at(*job, c, key)) return result(EINVAL);
  return result(job->node->cond_signal(key, all));
}

// 64 bits of BLAKE2b (libsodium): that two of a job's few names have the same is not to be expected.
Key key_of_name(const char* name, std::size_t length) {
  std::array<unsigned char, crypto_generichash_BYTES> hash{};
  ::crypto_generichash(hash.data(), hash.size(), reinterpret_cast<const unsigned char*>(name), length, nullptr, 0);
  Key key = 0;
  for (std::size_t i = 0; i < sizeof key; ++i) key = key << 8U | hash[i];  // the same on machines of either byte order
  return key;
}

int with_semaphore(const char* function, dsm_sem_t* sem, int (*call)(Node&, Key)) {
  Job* const job = job_for(function);
  if (job == nullptr) return -1;
  if (sem == nullptr) return result(EINVAL);
  return result(call(*job->node, sem->key));
}

}  // namespace

extern "C" {

int dsm_barrier(void) {
  Job* const job = job_for("dsm_barrier");
  return job == nullptr ? -1 : result(job->node->barrier());
}

int dsm_lock(unsigned id) { return with_lock("dsm_lock", id, &Node::acquire); }
int dsm_trylock(unsigned id) { return with_lock("dsm_trylock", id, &Node::try_acquire); }
int dsm_unlock(unsigned id) { return with_lock("dsm_unlock", id, &Node::release); }

int dsm_lock_at(void* p) { return with_lock_at("dsm_lock_at", p, &Node::acquire); }
int dsm_trylock_at(void* p) { return with_lock_at("dsm_trylock_at", p, &Node::try_acquire); }
int dsm_unlock_at(void* p) { return with_lock_at("dsm_unlock_at", p, &Node::release); }

int dsm_cond_wait_at(void* c, void* lock) {
  Job* const job = job_for("dsm_cond_wait_at");
  if (job == nullptr) return -1;
  Key condition = 0, held = 0;
  if (!key_at(*job, c, condition) || !key_at(*job, lock, held)) return result(EINVAL);
  return result(job->node->cond_wait(condition, held));
}
int dsm_cond_signal_at(void* c) { return signal_at("dsm_cond_signal_at", c, false); }
int dsm_cond_broadcast_at(void* c) { return signal_at("dsm_cond_broadcast_at", c, true); }

dsm_sem_t* dsm_sem_open(const char* name, unsigned value) {
  Job* const job = job_for("dsm_sem_open");
  if (job == nullptr) return nullptr;
  const std::size_t length = name == nullptr ? 0 : std::strlen(name);
  auto* sem = length == 0 || length > 255 ? nullptr : new (std::nothrow) dsm_sem{key_of_name(name, length)};
  int error = length == 0 || length > 255 ? EINVAL : ENOMEM;
  if (sem != nullptr) error = job->node->sem_open(sem->key, value);
  if (error == 0) return sem;
  delete sem;
  errno = error;
  return nullptr;
}
int dsm_sem_wait(dsm_sem_t* sem) {
  return with_semaphore("dsm_sem_wait", sem, [](Node& node, Key key) { return node.sem_wait(key, false); });
}
int dsm_sem_trywait(dsm_sem_t* sem) {
  return with_semaphore("dsm_sem_trywait", sem, [](Node& node, Key key) {
    const int error = node.sem_wait(key, true);
    return error == EBUSY ? EAGAIN : error;
  });
}
int dsm_sem_post(dsm_sem_t* sem) {
  return with_semaphore("dsm_sem_post", sem, [](Node& node, Key key) { return node.sem_post(key); });
}
int dsm_sem_close(dsm_sem_t* sem) {
  if (sem == nullptr) return result(EINVAL);
  delete sem;
  return 0;
}

}  // extern "C"
