#include "dsm/dshm/process.hpp"

#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>

#include "dsm/dshm/agent_start.hpp"
#include "dsm/dshm/connections.hpp"
#include "dsm/dshm/userfault.hpp"

namespace dsm::dshm {
namespace {

constinit Process only;

// A program that is linked with libdshm.a gets what it refers to: all that stands in front of the C library is to come,
// one name of each file, for other libraries call it, too.
[[gnu::used]] void* const all_files[] = {
    reinterpret_cast<void*>(&be_there_at_forks),
    reinterpret_cast<void*>(&::munmap),
    reinterpret_cast<void*>(&::dup2),
    reinterpret_cast<void*>(&::readv),
    reinterpret_cast<void*>(&::dlopen),
    reinterpret_cast<void*>(&::sigaction),
    reinterpret_cast<void*>(&::sigsuspend),
};

constexpr const char* usual_server = "localhost:8080";

// One that has said `taken`, because there was another agent a moment ago, or that was about to go when we connected,
// because its last process had left, may have gone by now. Then its successor is ours; it takes an agent's end for each
// turn, so there will not be many.
constexpr int agents_max = 10;

// A connection to the agent, which is started if there is none. -1, and a clause in `why`; empty: try again.
int reach_agent(std::string& why) {
  why.clear();
  int fd = connect_agent();
  if (fd >= 0) return fd;
  if (errno != ECONNREFUSED) {
    why = std::string("cannot reach the agent of this host: ") + strerrordesc_np(errno);
    return -1;
  }
  const std::string agent = find_agent();
  if (agent.empty()) {
    why = without_agent();
    return -1;
  }
  const kernel::Quiet all(kernel::Quiet::Kind::all);
  why = start_agent(agent, *process().server);
  // Whatever it says: another process may have started one meanwhile.
  fd = connect_agent();
  if (why == "taken") why.clear();
  return fd;
}

bool reach_service(std::string& why) {
  for (int i = 0; i < agents_max; ++i) {
    const int fd = reach_agent(why);
    const int error = fd >= 0 ? open_service(fd, why) : why.empty() ? ECONNRESET : ECONNREFUSED;
    if (error == 0) return true;
    if (error != ECONNRESET) return false;
  }
  why = "agents of this host come and go; try again";
  return false;
}

void start() {
  const char* named = ::secure_getenv("DSHM_SERVER");
  only.server = new std::string(named != nullptr && *named != '\0' ? named : usual_server);
  only.user = ::geteuid();
  std::string why;
  if (!reach_service(why)) return end({why});
  if (const int error = start_service_thread(); error != 0)
    return end({"cannot start a thread: ", strerrordesc_np(error)});
  only.pid = ::getpid();
  only.state = State::live;
}

// What a child that was made by clone or _Fork finds is its parent's: the connections, and memory of which no agent
// knows that this process has it, too.
void disown() {
  lock_connections();
  forget_connections();
  unlock_connections();
  only.service.close();
  only.userfault.close();
  const TableLock guard;
  only.attaches.each([](Attach& attach) {
    cover(attach);
    only.attaches.drop(&attach);
  });
  only.state = State::fresh;
}

}  // namespace

void disown_if_foreign() {
  if (only.state.load() == State::live && only.pid.load() != ::getpid()) disown();
}

Process& process() noexcept { return only; }

void say(std::initializer_list<std::string_view> words) noexcept {
  const int before = errno;
  char line[512] = "dshm: ";
  std::size_t length = ::strlen(line);
  for (const std::string_view word : words) length += word.copy(line + length, sizeof line - 1 - length);
  std::replace(line, line + length, '\n', ' ');
  line[length] = '\n';
  ::syscall(SYS_write, STDERR_FILENO, line, length + 1);  // if it fails nobody is left to be told
  errno = before;
}

int begin_locked() {
  disown_if_foreign();
  if (only.state.load() == State::fresh) start();
  return only.state.load() == State::live ? 0 : EIDRM;
}

int begin() {
  if (only.state.load() == State::live && only.pid.load() == ::getpid()) return 0;
  const ShapeLock guard;
  return begin_locked();
}

void cover(const Attach& attach) noexcept {
  const int empty = static_cast<int>(::syscall(SYS_memfd_create, "dshm: gone", 1U /* MFD_CLOEXEC */));
  for (std::size_t page = 0; page < attach.pages;) {
    const std::size_t from = page;
    while (page < attach.pages && !attach.gone(page)) ++page;
    const std::size_t length = (page - from) * Attaches::page_size();
    void* const at = reinterpret_cast<void*>(attach.at(from));
    if (length != 0 && (empty < 0 || kernel::map(at, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, empty,
                                                 0) == MAP_FAILED)) {
      // No descriptor to be had: SIGSEGV, then.
      only.closed = true;
      kernel::map(at, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    }
    while (page < attach.pages && attach.gone(page)) ++page;
  }
  if (empty >= 0) kernel::close(empty);
  if (only.asked.load() && only.userfault.open()) {
    wake_userfault(only.userfault.get(), reinterpret_cast<void*>(attach.base), attach.end() - attach.base);
  }
}

void end(std::initializer_list<std::string_view> why) noexcept {
  if (only.state.exchange(State::over) == State::over) return;
  say(why);
  {
    const TableLock guard;
    only.attaches.each([](const Attach& attach) { cover(attach); });
  }
  only.turn();
  shut_connections();
}

}  // namespace dsm::dshm
