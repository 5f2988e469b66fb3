#include "dsm/launch/status.hpp"

#include <fmt/format.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

namespace dsm::launch {

int code_of(int wait_status) {
  return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}

bool is_crash(int wait_status) {
  if (!WIFSIGNALED(wait_status)) return false;
  const int signo = WTERMSIG(wait_status);
  return signo == SIGSEGV || signo == SIGBUS || signo == SIGILL || signo == SIGFPE || signo == SIGABRT ||
         signo == SIGTRAP;
}

std::string signal_name(int signo) {
  const char* name = sigabbrev_np(signo);
  return name != nullptr ? fmt::format("SIG{}", name) : fmt::format("signal {}", signo);
}

std::string describe_status(int wait_status, bool out_of_memory) {
  if (!WIFSIGNALED(wait_status)) return fmt::format("exit code {}", WEXITSTATUS(wait_status));
  return fmt::format("killed by signal {} ({}){}{}", WTERMSIG(wait_status), signal_name(WTERMSIG(wait_status)),
                     out_of_memory ? ", by the kernel: out of memory" : "",
                     WCOREDUMP(wait_status) ? ", core dumped" : "");
}

std::string rank_list(const std::vector<int>& ranks) {
  std::string out = ranks.size() == 1 ? "rank " : "ranks ";
  for (std::size_t i = 0; i < ranks.size();) {
    std::size_t last = i;
    while (last + 1 < ranks.size() && ranks[last + 1] == ranks[last] + 1) ++last;
    out += fmt::format("{}{}", i == 0 ? "" : ", ", ranks[i]);
    if (last > i) out += fmt::format("-{}", ranks[last]);
    i = last + 1;
  }
  return out;
}

}  // namespace dsm::launch
