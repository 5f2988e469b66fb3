// dshm_stress io, forks, orphan: system calls on pages that are elsewhere, and fork beside a writer.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <vector>

#include "dsm/tests/dshm_stress.hpp"
#include "ipc/fd.hpp"
#include "ipc/program.hpp"

namespace dshm_stress {
namespace {

// ---- io --------------------------------------------------------------------------------------------------------------

constexpr std::size_t io_pages = 16;
// Begins and ends within a page.
constexpr std::size_t from = 100, length = io_pages * page - 300;

std::vector<std::byte> pattern(unsigned number) {
  std::vector<std::byte> bytes(length);
  for (std::size_t i = 0; i < length; ++i) bytes[i] = static_cast<std::byte>((i * 7 + i / 251 + number * 31) & 0xffU);
  return bytes;
}

// Two ends of something through which bytes go by one kind of system call.
struct Kind {
  const char* name;
  std::function<ssize_t(int, const std::byte*, std::size_t)> out;
  std::function<ssize_t(int, std::byte*, std::size_t)> in;
  bool file = false;  // in a file, from its beginning; else in a socket
};

const std::vector<Kind>& kinds() {
  static const std::vector<Kind> all = {
      {"write, read", [](int fd, auto* at, auto n) { return ::write(fd, at, n); },
       [](int fd, auto* at, auto n) { return ::read(fd, at, n); }},
      {"pwrite, pread", [](int fd, auto* at, auto n) { return ::pwrite(fd, at, n, 0); },
       [](int fd, auto* at, auto n) { return ::pread(fd, at, n, 0); }, true},
      {"send, recv", [](int fd, auto* at, auto n) { return ::send(fd, at, n, 0); },
       [](int fd, auto* at, auto n) { return ::recv(fd, at, n, MSG_WAITALL); }},
      {"writev, readv",
       [](int fd, auto* at, auto n) {
         const iovec parts[2] = {{const_cast<std::byte*>(at), n / 3}, {const_cast<std::byte*>(at) + n / 3, n - n / 3}};
         return ::writev(fd, parts, 2);
       },
       [](int fd, auto* at, auto n) {
         const iovec parts[2] = {{at, n / 3}, {at + n / 3, n - n / 3}};
         return ::readv(fd, parts, 2);
       }},
      {"sendmsg, recvmsg",
       [](int fd, auto* at, auto n) {
         iovec part = {const_cast<std::byte*>(at), n};
         msghdr message{};
         message.msg_iov = &part;
         message.msg_iovlen = 1;
         return ::sendmsg(fd, &message, 0);
       },
       [](int fd, auto* at, auto n) {
         iovec part = {at, n};
         msghdr message{};
         message.msg_iov = &part;
         message.msg_iovlen = 1;
         return ::recvmsg(fd, &message, MSG_WAITALL);
       }},
  };
  return all;
}

// All of `length` by as many calls as it takes. Each must do something.
template <class Call>
void all_of(const char* name, Call call) {
  std::size_t done = 0;
  while (done < length) {
    const ssize_t part = call(done);
    if (part == -1 && errno == EINTR) continue;
    expect(ipc::check(part, name) > 0, std::string(name) + " did something");
    done += static_cast<std::size_t>(part);
    expect(done <= length, std::string(name) + " did not more than it was asked to");
  }
}

struct Ends {
  ipc::Fd in, out;
};
Ends ends_of(const Kind& kind) {
  int pair[2];
  if (kind.file) {
    pair[0] = ipc::check(::memfd_create("io", MFD_CLOEXEC), "memfd_create");
    pair[1] = ipc::check(::dup(pair[0]), "dup");
  } else {
    ipc::check(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), "socketpair");
    // Room for all of it: who writes need not wait for who reads.
    const int room = 1 << 20;
    for (const int end : pair) ipc::check(::setsockopt(end, SOL_SOCKET, SO_SNDBUF, &room, sizeof room), "SO_SNDBUF");
  }
  return {ipc::Fd(pair[0]), ipc::Fd(pair[1])};
}

// From the segment, through the call, into memory of our own.
void send_shared(const Kind& kind, const std::byte* shared, const std::vector<std::byte>& want) {
  const Ends ends = ends_of(kind);
  std::vector<std::byte> got(length);
  all_of(kind.name, [&](std::size_t done) { return kind.out(ends.out.get(), shared + done, length - done); });
  all_of(kind.name, [&](std::size_t done) { return kind.in(ends.in.get(), got.data() + done, length - done); });
  expect(got == want, std::string(kind.name) + ": what was sent from the segment is what was there");
}

void receive_shared(const Kind& kind, std::byte* shared, const std::vector<std::byte>& bytes) {
  const Ends ends = ends_of(kind);
  all_of(kind.name, [&](std::size_t done) { return kind.out(ends.out.get(), bytes.data() + done, length - done); });
  all_of(kind.name, [&](std::size_t done) { return kind.in(ends.in.get(), shared + done, length - done); });
}

}  // namespace

// Member 0 takes all pages by writing to them; then member 1, who has none of them, gives them to a system call: to read
// from them, and, once member 0 has taken them again, to write to them.
int io(const Options& options) {
  const Segment segment(options.key, io_pages);
  std::atomic<std::uint32_t>& phase = segment.control().phase;
  std::byte* const shared = segment.data() + from;
  const bool first = meet(segment.control(), 2) == 0;
  std::uint32_t step = 0;
  unsigned number = 0;
  const auto turn_of = [&](bool mine, const auto& what) {
    if (mine) {
      what();
      phase.store(++step);
    } else {
      ++step;
      wait_for([&] { return phase.load() >= step; });
    }
  };
  for (const Kind& kind : kinds()) {
    const auto one = pattern(++number), two = pattern(++number), three = pattern(++number);
    turn_of(first, [&] { std::memcpy(shared, one.data(), length); });
    turn_of(!first, [&] { send_shared(kind, shared, one); });
    turn_of(first, [&] { std::memcpy(shared, two.data(), length); });
    turn_of(!first, [&] { receive_shared(kind, shared, three); });
    turn_of(first, [&] {
      expect(std::memcmp(shared, three.data(), length) == 0, std::string(kind.name) + ": what was received is there");
      expect(shared[-1] == std::byte{0} && shared[length] == std::byte{0}, "nothing beside it");
    });
  }
  ipc::say("io: OK");
  segment.leave(2);
  return 0;
}

// ---- fork ------------------------------------------------------------------------------------------------------------

namespace {

constexpr std::size_t fork_pages = 4;
struct Words {
  std::atomic<std::uint64_t> of_children, of_writer;
};

void add_one_everywhere(const Segment& segment) {
  for (std::size_t i = 0; i < fork_pages; ++i) segment.at<Words>(i).of_children.fetch_add(1);
}

void fork_often(const Segment& segment, long count) {
  for (long i = 0; i < count; ++i) {
    const pid_t child = ipc::check(::fork(), "fork");
    if (child == 0) {
      add_one_everywhere(segment);
      ::_exit(0);
    }
    int status = 0;
    ipc::check(::waitpid(child, &status, 0), "waitpid");
    expect(status == 0, "child " + std::to_string(i) + " ended well");
    for (std::size_t p = 0; p < fork_pages; ++p) {
      const std::uint64_t seen = segment.at<Words>(p).of_children.load();
      expect(seen == static_cast<std::uint64_t>(i) + 1,
             "after child " + std::to_string(i) + " page " + std::to_string(p) + " has " + std::to_string(seen));
    }
  }
}

void write_until_stopped(const Segment& segment) {
  for (std::uint64_t written = 0; segment.control().stop.load() == 0; ++written) {
    for (std::size_t p = 0; p < fork_pages; ++p) {
      auto& mine = segment.at<Words>(p).of_writer;
      expect(mine.load() == written, "nobody else wrote to it, and nothing was lost");
      mine.store(written + 1);
    }
  }
}

}  // namespace

int forks(const Options& options) {
  const Segment segment(options.key, fork_pages);
  if (meet(segment.control(), 2) == 0) {
    fork_often(segment, options.count);
    segment.control().stop.store(1);
  } else {
    write_until_stopped(segment);
  }
  ipc::say("forks: OK");
  segment.leave(2);
  return 0;
}

// Member 0's child goes on when its parent has ended: it answers what member 1 asks.
int orphan(const Options& options) {
  const Segment segment(options.key, 1);
  Control& control = segment.control();
  auto& value = segment.at<std::atomic<std::uint64_t>>(0);
  if (meet(control, 2) == 0) {
    const pid_t parent = ::getpid();
    if (ipc::check(::fork(), "fork") != 0) ::_exit(0);
    wait_for([&] { return ::getppid() != parent; });
    for (std::uint64_t i = 1; i <= static_cast<std::uint64_t>(options.count); ++i) {
      wait_for([&] { return value.load() == 2 * i - 1; });
      value.store(2 * i);
    }
    segment.leave(2);
    ::_exit(0);
  }
  for (std::uint64_t i = 1; i <= static_cast<std::uint64_t>(options.count); ++i) {
    value.store(2 * i - 1);
    wait_for([&] { return value.load() == 2 * i; });
  }
  ipc::say("orphan: OK");
  segment.leave(2);
  return 0;
}

}  // namespace dshm_stress
