// System calls whose buffers lie in pages that another rank has: fine under `dsmexec --pager uffd`, EFAULT otherwise.
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <vector>

#include "dsm/tests/stress.hpp"

namespace stress {

namespace {

constexpr std::size_t size = 6000;  // of what is passed on: from one page into the next

struct Ends {
  int in = -1, out = -1;
};

std::vector<char> pattern(std::uint64_t round) {
  std::vector<char> bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i * 7 + round);
  return bytes;
}

bool all(const char* what, ssize_t done) {
  if (done == static_cast<ssize_t>(size)) return true;
  std::fprintf(stderr, "syscalls: %s of %zu bytes: %zd, %s\n", what, size, done, done < 0 ? std::strerror(errno) : "");
  return false;
}

bool pass(const Ends& pipe, const char* from, char* to) {
  return all("write", ::write(pipe.in, from, size)) && all("read", ::read(pipe.out, to, size));
}

bool pass_by_socket(const Ends& pair, const char* from, char* to) {
  return all("send", ::send(pair.in, from, size, 0)) && all("recv", ::recv(pair.out, to, size, MSG_WAITALL));
}

}  // namespace

// In turns each rank takes what the one before it has left in shared memory, by a system call, and leaves its own there by
// another.
bool syscalls(const Options& o) {
  char* shared_bytes = shared<char>(2 * dsm_page_size()) + dsm_page_size() - size / 2;
  int pipe_ends[2], sockets[2];
  if (::pipe(pipe_ends) != 0 || ::socketpair(AF_UNIX, SOCK_STREAM, 0, sockets) != 0) return false;
  const Ends pipe{pipe_ends[1], pipe_ends[0]}, pair{sockets[0], sockets[1]};
  bool good = true;
  for (std::uint64_t round = 0; round < o.rounds; ++round) {
    if (round % static_cast<std::uint64_t>(DSM_NODE_NUM) == static_cast<std::uint64_t>(DSM_NODE_ID)) {
      const auto by = round % 3 == 0 ? pass_by_socket : pass;
      const Ends& ends = round % 3 == 0 ? pair : pipe;
      std::vector<char> found(size);
      good = good && by(ends, shared_bytes, found.data());
      if (good && round > 0 && found != pattern(round - 1)) {
        std::fprintf(stderr, "syscalls: round %llu found other bytes than were left\n",
                     static_cast<unsigned long long>(round));
        good = false;
      }
      good = good && by(ends, pattern(round).data(), shared_bytes);
    }
    dsm_barrier();
  }
  for (const int fd : {pipe.in, pipe.out, pair.in, pair.out}) ::close(fd);
  if (good && DSM_NODE_ID == 0) {
    std::printf("syscalls: %llu rounds by %d ranks\n", static_cast<unsigned long long>(o.rounds), DSM_NODE_NUM);
  }
  return good;
}

}  // namespace stress
