#include "dsm/dshm_agent/closer.hpp"

#include <sys/eventfd.h>

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

#include "ipc/error.hpp"

namespace dsm::dshm_agent {
namespace {

constexpr std::size_t threads_max = 32;

}  // namespace

struct Closer::Shared {
  std::mutex mutex;
  std::condition_variable some;
  const ipc::Fd closed{ipc::check(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd")};
  std::deque<ipc::Fd> open;           // mutex
  std::size_t threads = 0, idle = 0;  // mutex
};

Closer::Closer() : shared_(std::make_shared<Shared>()) {}

int Closer::closed() const noexcept { return shared_->closed.get(); }

void Closer::close(ipc::Fd fd) {
  if (!fd) return;
  const std::scoped_lock guard(shared_->mutex);
  shared_->open.push_back(std::move(fd));
  shared_->some.notify_one();
  if (shared_->open.size() <= shared_->idle || shared_->threads == threads_max) return;
  try {
    std::thread(work, shared_).detach();
    ++shared_->threads;
  } catch (const std::system_error&) {  // the next one tries again
  }
}

void Closer::work(std::shared_ptr<Shared> shared) {
  std::unique_lock lock(shared->mutex);
  for (;;) {
    ++shared->idle;
    shared->some.wait(lock, [&] { return !shared->open.empty(); });
    --shared->idle;
    ipc::Fd next = std::move(shared->open.front());
    shared->open.pop_front();
    lock.unlock();
    next.reset();
    (void)::eventfd_write(shared->closed.get(), 1);
    lock.lock();
  }
}

}  // namespace dsm::dshm_agent
