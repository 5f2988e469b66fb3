// dsm/pager/test_region.hpp - what the pager's tests share: a sink that opens what is touched, and children to die in.
#pragma once
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "dsm/pager/kind.hpp"
#include "dsm/pager/region.hpp"
#include "dsm/pager/sigsegv.hpp"
#include "ipc/error.hpp"
#include "ipc/fd.hpp"
#include "ipc/mapping.hpp"

#if defined(__SANITIZE_THREAD__)
#define DSM_UNDER_TSAN
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define DSM_UNDER_TSAN
#endif
#endif

namespace dsm::pager::testing {

// Opens every page for what is wanted of it, never takes anything back, and keeps a list of what was asked.
class OpeningSink : public FaultSink {
 public:
  struct Seen {
    core::Page page;
    core::Access want;
    core::Site site;
  };

  void on_fault(core::Page page, core::Access want, core::Site site) noexcept override {
    while (busy_.test_and_set(std::memory_order_acquire)) {
    }
    if (count_ < seen_.size()) seen_[count_++] = {page, want, site};
    if (want > allowed_[page]) allowed_[page] = want;
    pager->protect(page, allowed_[page]);
    busy_.clear(std::memory_order_release);
  }

  // The faults so far. REQUIRES: no thread is about to fault.
  [[nodiscard]] std::vector<Seen> seen() const {
    return {seen_.begin(), seen_.begin() + static_cast<std::ptrdiff_t>(count_)};
  }

  Pager* pager = nullptr;

 private:
  std::atomic_flag busy_ = ATOMIC_FLAG_INIT;
  std::size_t count_ = 0;
  std::vector<Seen> seen_ = std::vector<Seen>(4096);                     // all room beforehand: a fault may not
  std::vector<core::Access> allowed_ = std::vector<core::Access>(1024);  // allocate
};

struct Region {
  explicit Region(Kind kind, std::size_t pages = 16, std::size_t page_size = ipc::page_size())
      : made(make(kind, pages * page_size, page_size, sink)), pager(*made) {
    sink.pager = &pager;
  }
  explicit Region(std::size_t pages = 16, std::size_t page_size = ipc::page_size())
      : Region(Kind::sigsegv, pages, page_size) {}
  [[nodiscard]] volatile char* at(std::size_t page, std::size_t offset = 0) const {
    return pager.base() + page * pager.page_size() + offset;
  }

  OpeningSink sink;
  std::unique_ptr<Pager> made;
  Pager& pager;
};

// Why this kernel, or this user's privilege, does not do for the pager; empty if it does.
inline std::string why_not(Kind kind) {
  try {
    const Region region(kind, 1);
    return {};
  } catch (const std::system_error& error) {
    return error.what();
  }
}

inline std::vector<Kind> usable(std::vector<Kind> kinds) {
  std::erase_if(kinds, [](Kind kind) { return !why_not(kind).empty(); });
  return kinds;
}

struct End {
  int status;          // as waitpid says it
  std::string errors;  // what it wrote to stderr
  [[nodiscard]] bool died_of(int signo) const { return WIFSIGNALED(status) && WTERMSIG(status) == signo; }
  [[nodiscard]] bool exited(int code) const { return WIFEXITED(status) && WEXITSTATUS(status) == code; }
};

// Runs `body` in a forked child, without core dumps; its return value is the child's exit code. `meanwhile` runs here,
// with the child's pid. A child that hangs is ended by SIGALRM.
template <class Body, class Meanwhile>
End in_child(Body body, Meanwhile meanwhile) {
  int ends[2];
  ipc::check(::pipe(ends), "pipe");
  ipc::Fd reader(ends[0]);
  ipc::Fd writer(ends[1]);
  const pid_t pid = ipc::check(::fork(), "fork");
  if (pid == 0) {
    ::alarm(60);
    ::dup2(writer.get(), STDERR_FILENO);
    rlimit core{};
    ::getrlimit(RLIMIT_CORE, &core);
    core.rlim_cur = 0;  // softly: one test wants its core after all
    ::setrlimit(RLIMIT_CORE, &core);
    ::_exit(body());
  }
  writer.reset();
  meanwhile(pid);
  End end{};
  char buffer[512];
  for (ssize_t n; (n = ::read(reader.get(), buffer, sizeof buffer)) > 0;)
    end.errors.append(buffer, static_cast<std::size_t>(n));
  ipc::check(::waitpid(pid, &end.status, 0), "waitpid");
  return end;
}

template <class Body>
End in_child(Body body) {
  return in_child(body, [](pid_t) {});
}

// A page of the program's own that may not be touched, nothing to do with the region.
inline volatile char* forbidden_page() {
  static const ipc::Mapping page(nullptr, ipc::page_size(), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0,
                                 "forbidden page");
  return page.data();
}

}  // namespace dsm::pager::testing
