// The service connection and its thread: it hears the agent's orders, and looks at the lease.
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <algorithm>

#include "dsm/dshm/connections.hpp"
#include "dsm/dshm/faults.hpp"
#include "dsm/dshm/message.hpp"
#include "dsm/dshm/process.hpp"
#include "dsm/dshm/userfault.hpp"

namespace dsm::dshm {
namespace {

using dshm_agent::Lease;
using dshm_agent::Order;

constexpr long look_ns = 250'000'000;  // at the lease and at who is left, at least as often

std::int64_t boot_ns() noexcept {
  timespec now{};
  ::clock_gettime(CLOCK_BOOTTIME, &now);
  return now.tv_sec * std::int64_t{1'000'000'000} + now.tv_nsec;
}

// False at the end of all.
bool hear() noexcept {
  Order order{};
  const long got = receive_bytes(process().service.get(), {reinterpret_cast<std::uint8_t*>(&order), sizeof order});
  if (got == -1 && (errno == EAGAIN || errno == EINTR)) return true;
  if (got == 0 || got == -1) {
    end(
        {"the agent of this host has ended, or serves this process no more; attached segments raise SIGBUS, calls fail "
         "with EIDRM"});
    return false;
  }
  if (got != sizeof order) {
    end({"the agent of this host said something that is no order: is it of another version? End it, and start again"});
    return false;
  }
  if (order.kind == Order::Kind::over) {
    end({"dsmd at ", *process().server,
         " has gone, or the way to it; attached segments raise SIGBUS, calls fail with EIDRM"});
    return false;
  }
  obey(order);
  return true;
}

// ---- the end of a program whose main thread has left ----

// What proc(5) says: Z behind the name, which may have any letters.
bool main_is_zombie() noexcept {
  const int file = static_cast<int>(::syscall(SYS_openat, AT_FDCWD, "/proc/self/stat", O_RDONLY | O_CLOEXEC, 0));
  if (file < 0) return false;
  char text[256];
  const long got = ::syscall(SYS_read, file, text, sizeof text - 1);
  kernel::close(file);
  text[std::max(got, 0L)] = '\0';
  const char* const end = ::strrchr(text, ')');
  return end != nullptr && end[1] == ' ' && end[2] == 'Z';
}

// Whether the main thread has called pthread_exit, and this one is all that is left. As long as that is not so, no file
// is opened for it: a number could be the one that the program is about to get. A main thread that has ended has no
// memory any more, and so no /proc/self/exe. That is looked at first: then the last of the others could not make one
// more.
bool alone() noexcept {
  char name[1];
  if (::readlink("/proc/self/exe", name, sizeof name) != -1 || errno != ENOENT) return false;
  struct stat threads {
  };  // a folder has a link for each folder in it, and two of its own; that of the main thread stays
  return ::stat("/proc/self/task", &threads) == 0 && threads.st_nlink == 2 + 2 && main_is_zombie();
}

// As a program's last thread does it (pthread_exit(3)). On a thread of its own: what is done at the end may touch
// attached memory, and this one is to hear the orders then. Signals that wait already are those that the program had
// blocked.
void* leave(void*) {
  kernel::Mask pending = 0;
  ::syscall(SYS_rt_sigpending, &pending, sizeof pending);
  pending &= ~kernel::by_instruction;
  kernel::set_mask(&pending, nullptr);
  ::exit(0);
}

bool begin_to_leave() noexcept {
  pthread_t thread{};
  return ::pthread_create(&thread, nullptr, leave, nullptr) == 0 && ::pthread_detach(thread) == 0;
}

// The service connection as long as it is one: the program may have closed it, by a raw system call.
bool watch() noexcept {
  Process& own = process();
  bool connected = true, leaving = false, unsaid = false;
  for (std::int64_t next_look = 0;;) {
    const std::int64_t now = boot_ns();
    const std::int64_t until = own.lease->until_ns.load();
    // 0: the agent has ended it, and says why; if it can.
    if (until == 0 ? unsaid : now >= until) {
      end({"dsmd at ", *own.server,
           " has not been heard of for too long; attached segments raise SIGBUS, calls fail with EIDRM"});
      return false;
    }
    if (connected && !own.service.open()) {
      connected = false;
      if (!own.asked.load()) {
        end({"the program has closed the connection to the agent of this host; attached segments raise SIGBUS"});
        return false;
      }
    }
    if (now >= next_look) {
      leaving = leaving || (alone() && begin_to_leave());
      next_look = now + look_ns;
    }
    pollfd wanted{connected ? own.service.get() : -1, POLLIN, 0};
    const timespec limit{0, look_ns};
    const int count = kernel::poll(&wanted, 1, &limit, nullptr);
    if (count == 1 && own.service.open() && !hear()) return false;
    unsaid = until == 0 && count == 0;
  }
}

void* serve(void*) {
  // All but the C library's own two: a setuid(2) of the program's waits until each thread has done it, too.
  const kernel::Mask mask = ~(kernel::Mask{1} << 31U | kernel::Mask{1} << 32U);
  kernel::set_mask(&mask, nullptr);
  watch();
  return nullptr;
}

enum class Pager { any, uffd, sigsegv, unknown };

Pager wanted_pager() {
  const char* const name = ::secure_getenv("DSHM_PAGER");
  if (name == nullptr) return Pager::any;
  if (::strcmp(name, "uffd") == 0) return Pager::uffd;
  return ::strcmp(name, "sigsegv") == 0 ? Pager::sigsegv : Pager::unknown;
}

int map_lease(int fd) noexcept {
  void* const memory = kernel::map(nullptr, Attaches::page_size(), PROT_READ, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) return errno;
  const auto* const lease = static_cast<const Lease*>(memory);
  if (lease->mark != Lease::magic) {
    kernel::unmap(memory, Attaches::page_size());
    return EPROTO;
  }
  Process& own = process();
  if (own.lease != nullptr) kernel::unmap(const_cast<Lease*>(own.lease), Attaches::page_size());
  own.lease = lease;
  return 0;
}

// 0, or an errno value with a clause: ECONNRESET if the agent was about to go.
int greet(int fault_fd, std::string& why) {
  sysv::Question hello{.call = sysv::Call::local_hello};
  hello.flags = dshm_agent::hello_service | (fault_fd >= 0 ? dshm_agent::hello_uffd : 0);
  hello.size = sysv::wire_version;
  const Process& own = process();
  const std::span<const int> give(&fault_fd, fault_fd >= 0 ? 1 : 0);
  why = "the agent of this host has closed the connection";
  if (send(own.service.get(), sysv::encode(hello), give) != 0) return ECONNRESET;
  int lease_fd = -1;
  const std::vector<std::uint8_t> message = receive(own.service.get(), lease_fd);
  if (message.empty()) return ECONNRESET;
  const std::optional<sysv::Answer> answer = answer_in(message);
  int error = answer ? answer->error : EPROTO;
  if (error != 0) {
    why = answer && !answer->text.empty() ? answer->text
                                          : std::string("the agent of this host refuses: ") + strerrordesc_np(error);
  } else if (error = lease_fd < 0 ? EPROTO : map_lease(lease_fd); error != 0) {
    why = std::string("no lease from the agent of this host: ") + strerrordesc_np(error);
  }
  if (lease_fd >= 0) kernel::close(lease_fd);
  return error;
}

}  // namespace

int open_service(int socket, std::string& why) {
  Process& own = process();
  own.service = Descriptor::adopt(socket);
  const Pager pager = wanted_pager();
  own.userfault = Descriptor::adopt(pager == Pager::any || pager == Pager::uffd ? open_userfault() : -1);
  int error = pager == Pager::uffd && own.userfault.get() < 0 ? errno : 0;
  if (pager == Pager::unknown) {
    error = EINVAL;
    why = "DSHM_PAGER is neither uffd nor sigsegv; unset it, or name one";
  } else if (error != 0) {
    why = std::string("DSHM_PAGER=uffd: userfaultfd: ") + strerrordesc_np(error) +
          "; be root, or have vm.unprivileged_userfaultfd=1, and Linux 6.4 or newer; or unset DSHM_PAGER";
  } else {
    own.asked = own.userfault.get() >= 0;
    error = greet(own.userfault.get(), why);
  }
  if (error != 0) {
    own.service.close();
    own.userfault.close();
  }
  return error;
}

int start_service_thread() {
  const kernel::Quiet quiet(kernel::Quiet::Kind::all);  // inherited
  constexpr std::size_t stack = 256 << 10;
  pthread_attr_t attributes;
  ::pthread_attr_init(&attributes);
  ::pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  ::pthread_attr_setstacksize(&attributes, stack);
  pthread_t thread{};
  int error = ::pthread_create(&thread, &attributes, serve, nullptr);
  if (error == EINVAL) {  // the program's thread-local variables need more
    ::pthread_attr_destroy(&attributes);
    ::pthread_attr_init(&attributes);
    ::pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    error = ::pthread_create(&thread, &attributes, serve, nullptr);
  }
  ::pthread_attr_destroy(&attributes);
  return error;
}

}  // namespace dsm::dshm
