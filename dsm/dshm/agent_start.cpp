#include "dsm/dshm/agent_start.hpp"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <ctime>
#include <string_view>
#include <vector>

#include "dsm/dshm/kernel.hpp"

extern char** environ;

namespace dsm::dshm {
namespace {

constexpr std::time_t patience_s = 30;  // the agent has limits of its own for reaching dsmd, well below
constexpr int ready_fd = 3;             // its end of the pipe

std::string folder_of(std::string_view path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string_view::npos ? "." : std::string(path.substr(0, slash));
}

// Whether this program has rights that who runs it has not: then he chooses nothing that it uses.
bool secure() { return ::getauxval(AT_SECURE) != 0; }

bool can_run(const std::string& path) { return ::access(path.c_str(), X_OK) == 0; }

// Whether only root, or whose rights this program has, decides what is there. (Anybody may be able to put a hard link
// to a set-user-id program into a folder of his own: what is beside that is his.)
bool is_kept(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return false;
  return (status.st_uid == 0 || status.st_uid == ::geteuid()) && (status.st_mode & S_IWOTH) == 0;
}

// Here is any address of this library: its own file, or the program's, where it is linked in. Only by an absolute path:
// the program may have changed its folder since the library was loaded.
std::string beside_library() {
  Dl_info info{};
  if (::dladdr(reinterpret_cast<void*>(&start_agent), &info) == 0 || info.dli_fname == nullptr) return {};
  if (*info.dli_fname != '/') return {};
  return folder_of(info.dli_fname) + "/../bin/dshm_agent";
}

// Empty if it is not known.
std::string program_folder() {
  char path[PATH_MAX];
  const ssize_t length = ::readlink("/proc/self/exe", path, sizeof path);
  if (length <= 0) return {};
  return folder_of({path, static_cast<std::size_t>(length)});
}

std::string first_that_runs(std::initializer_list<std::string> paths) {
  for (const std::string& path : paths) {
    if (can_run(path)) return path;
  }
  return {};
}

std::string in_path() {
  const char* all = ::secure_getenv("PATH");
  if (all == nullptr) return {};
  std::string_view rest(all);
  for (;;) {
    const std::size_t colon = rest.find(':');
    const std::string_view folder = rest.substr(0, colon);
    if (!folder.empty()) {
      std::string path = std::string(folder) + "/dshm_agent";
      if (can_run(path)) return path;
    }
    if (colon == std::string_view::npos) return {};
    rest.remove_prefix(colon + 1);
  }
}

// Everything that is needed between clone and exec, made before: the child shares our memory and may only make system
// calls.
struct Launch {
  const char* path;
  char* const* arguments;
  char* const* environment;
  int pipe;
  int null;
  char* second_stack;
  int error = 0;  // of execve
};

// The agent to be: grandchild of this process, until its parent ends.
int become_agent(void* argument) {
  auto* const launch = static_cast<Launch*>(argument);
  ::syscall(SYS_setsid);
  // 3 first: then whatever 0 to 2 were, they are not needed any more.
  const int pipe = kernel::dup_above(launch->pipe, ready_fd + 2);
  const int null = kernel::dup_above(launch->null, ready_fd + 2);
  ::syscall(SYS_dup3, pipe, ready_fd, 0);
  for (int fd = 0; fd < ready_fd; ++fd) {
    if (::syscall(SYS_dup3, null, fd, 0) == -1) kernel::close(fd);  // there is no /dev/null
  }
  if (::syscall(SYS_close_range, ready_fd + 1, ~0U, 0) != 0) {
    for (int fd = ready_fd + 1; fd < (1 << 16); ++fd) kernel::close(fd);  // before Linux 5.9
  }
  const kernel::Mask open = 0;
  kernel::set_mask(&open, nullptr);
  ::syscall(SYS_execve, launch->path, launch->arguments, launch->environment);
  launch->error = errno;
  ::syscall(SYS_exit, 127);
  return 127;
}

constexpr std::size_t stack_size = 64 << 10;

// Its only deed is to have a child and to end: so that the agent is nobody's child. Exit signal 0: no SIGCHLD.
int become_parent(void* argument) {
  auto* const launch = static_cast<Launch*>(argument);
  const int pid = ::clone(become_agent, launch->second_stack + stack_size, CLONE_VM | CLONE_VFORK, argument);
  if (pid == -1) launch->error = errno;
  ::syscall(SYS_exit, 0);
  return 0;
}

// All but what would put this library in front of the agent's calls. Of a program with more rights nothing at all: it
// may have become its owner altogether, and then the agent itself sees no reason for distrust.
std::vector<char*> agent_environment() {
  std::vector<char*> environment;
  for (char** entry = environ; !secure() && entry != nullptr && *entry != nullptr; ++entry) {
    if (!std::string_view(*entry).starts_with("LD_PRELOAD=")) environment.push_back(*entry);
  }
  environment.push_back(nullptr);
  return environment;
}

// Up to the end of the first line.
std::string read_line(int fd) {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  const std::time_t end = now.tv_sec + patience_s;
  std::string line;
  for (;;) {
    ::clock_gettime(CLOCK_MONOTONIC, &now);
    if (now.tv_sec >= end) return "the agent has said nothing for " + std::to_string(patience_s) + " s";
    pollfd wanted{fd, POLLIN, 0};
    const timespec limit{end - now.tv_sec, 0};
    if (kernel::poll(&wanted, 1, &limit, nullptr) <= 0) continue;
    char text[512];
    const auto got = ::syscall(SYS_read, fd, text, sizeof text);
    if (got == -1 && errno == EINTR) continue;
    if (got > 0) line.append(text, static_cast<std::size_t>(got));
    const std::size_t end_of_line = line.find('\n');
    if (end_of_line != std::string::npos) return line.substr(0, end_of_line);
    if (got <= 0) return line.empty() ? "the agent has ended without a word" : line;
  }
}

// Returns 0 or an errno value.
int launch_agent(Launch& launch) {
  void* const stacks =
      kernel::map(nullptr, 2 * stack_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
  if (stacks == MAP_FAILED) return errno;
  launch.second_stack = static_cast<char*>(stacks) + stack_size;
  const int pid = ::clone(become_parent, launch.second_stack, CLONE_VM | CLONE_VFORK, &launch);
  const int error = pid == -1 ? errno : 0;
  if (pid != -1) {
    while (::syscall(SYS_wait4, pid, nullptr, __WCLONE, nullptr) == -1 && errno == EINTR) {
    }
  }
  kernel::unmap(stacks, 2 * stack_size);
  return error != 0 ? error : launch.error;
}

}  // namespace

std::string find_agent() {
  if (const char* named = ::secure_getenv("DSHM_AGENT"); named != nullptr && *named != '\0') return named;
  const std::string folder = program_folder();
  const std::string beside = folder.empty() ? "" : folder + "/dshm_agent";
  if (secure()) {
    if (folder.empty() || !is_kept(folder)) return {};
    const std::string path = first_that_runs({beside, folder + "/../bin/dshm_agent"});
    return is_kept(folder_of(path)) && is_kept(path) ? path : "";
  }
  const std::string found = first_that_runs({beside_library(), beside});
  return found.empty() ? in_path() : found;
}

std::string without_agent() {
  if (!secure()) {
    return "there is no dshm_agent in ../bin beside libdshm, beside the program or in PATH; set DSHM_AGENT to its path";
  }
  return "there is no dshm_agent beside the program or in ../bin (or others may write there); a set-user-id program "
         "looks "
         "nowhere else, not at DSHM_AGENT, not in PATH: put it there";
}

std::string start_agent(const std::string& path, const std::string& server) {
  int ends[2];
  if (::syscall(SYS_pipe2, ends, O_CLOEXEC) != 0)
    return "cannot start the agent: pipe: " + std::string(strerrordesc_np(errno));
  const int null = static_cast<int>(::syscall(SYS_openat, AT_FDCWD, "/dev/null", O_RDWR | O_CLOEXEC, 0));
  const std::string number = std::to_string(ready_fd);
  std::vector<const char*> arguments{path.c_str(), "--server", server.c_str(), "--ready-fd", number.c_str(), nullptr};
  std::vector<char*> environment = agent_environment();
  Launch launch{path.c_str(), const_cast<char* const*>(arguments.data()), environment.data(), ends[1], null, nullptr};
  const int error = launch_agent(launch);
  kernel::close(ends[1]);
  if (null >= 0) kernel::close(null);
  std::string line = error == 0 ? read_line(ends[0]) : "";
  kernel::close(ends[0]);
  if (error != 0) return "cannot start the agent " + path + ": " + strerrordesc_np(error);
  if (line == "ready") return {};
  constexpr std::string_view prefix = "dshm_agent: ";
  return line.starts_with(prefix) ? line.substr(prefix.size()) : line;
}

}  // namespace dsm::dshm
