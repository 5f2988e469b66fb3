// dsm/dshm/next.hpp - the functions that ours stand in front of: the C library's, or a sanitizer's before them.
//
// Those that are points of cancellation, or do more than one system call. async-signal-safe: find() is when it has found
// before, and all are found when the library is loaded.
#pragma once
#include <dlfcn.h>

#include <atomic>

namespace dsm::dshm {

template <class Signature>
class Next;
template <class Result, class... Arguments>
class Next<Result(Arguments...)> {
 public:
  constexpr explicit Next(const char* name) noexcept : name_(name) {}
  [[nodiscard]] bool find() noexcept {
    if (found_.load(std::memory_order_acquire) == nullptr)
      found_ = reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name_));
    return found_.load() != nullptr;
  }
  // REQUIRES: the C library has it.
  Result operator()(Arguments... arguments) {
    if (found_.load(std::memory_order_acquire) == nullptr) (void)find();
    return found_.load()(arguments...);
  }

 private:
  using Function = Result (*)(Arguments...);
  const char* name_;
  std::atomic<Function> found_{nullptr};
};

}  // namespace dsm::dshm
