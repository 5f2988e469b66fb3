// dsm/bench/limits.hpp - what the machine itself takes for the parts of a page fault: the limits beside the figures.
//
// Two processes of their own, without libdsm, threads or protocol, pinned like the ranks that are measured: a client that
// asks over a TCP loopback connection with plain blocking calls, and a server that answers. The client also takes local
// faults: SIGSEGV, mprotect, and the instruction again. Called in turns with what is measured, so that both see the same
// machine. Not thread-safe; may throw.
#pragma once
#include <sys/types.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "ipc/fd.hpp"

namespace bench {

using Samples = std::vector<double>;  // one duration each, microseconds

inline constexpr std::size_t page_bytes = 4096;
inline constexpr std::size_t message_bytes = 40;  // a frame's header (net/frame.hpp)

// Where the pages of a block lie: `count` of them, `stride` pages apart, touched in a shuffled order, the same every time,
// so that nothing can guess the next one.
struct Pattern {
  std::uint32_t count = 0;
  std::uint32_t stride = 1;
  [[nodiscard]] std::vector<std::uint32_t> order() const;  // page numbers, each once
};

class Limits {
 public:
  enum class What : std::uint32_t {
    page,         // request of 40 bytes, answer of 40 and a page
    echo,         // request of 40 bytes, answer of 40
    read_fault,   // load from an inaccessible page of a shared mapping that a handler makes readable
    write_fault,  // store likewise, made writable
  };

  // REQUIRES: no other thread yet (it forks). The processes end with this object, or with the process that made it.
  Limits(int client_cpu, int server_cpu, Pattern pattern);
  Limits(const Limits&) = delete;
  Limits& operator=(const Limits&) = delete;
  ~Limits();

  // pattern.count samples.
  [[nodiscard]] Samples measure(What what);

 private:
  Pattern pattern_;
  ipc::Fd control_;
  pid_t client_ = -1;
};

// The calling process and the threads it will start run on this CPU only. Throws std::system_error.
void pin(int cpu);
// Of a copy; 0 for none.
[[nodiscard]] double median(Samples samples);

}  // namespace bench
