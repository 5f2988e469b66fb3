// dshmrun - runs a program with its System V shared memory and semaphores at dsmd, instead of in this machine's kernel.
//
//   $ dsmd &
//   $ dshmrun ipcmk -M 4096
//   Shared memory id: 0
//   $ dshmrun -s localhost:8080 ipcs -m
//
// As env(1): it becomes the program; 125: dshmrun itself has failed; 126: the program cannot be run; 127: there is none.
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "dsm/dshm/command_line.hpp"

namespace dsm::dshm {
namespace {

constexpr int own_failure = 125, cannot_run = 126, not_found = 127;

constexpr const char* usage =
    "usage: dshmrun [-s host:port] program [args...]\n\n"
    "Runs the program with its System V shared memory and semaphores at dsmd.\n\n"
    "  -s, --server host:port  where dsmd is (default: DSHM_SERVER, or localhost:8080)\n"
    "  -h, --help              print this and exit\n\n"
    "DSHM_KEYS=all|none|LOW-HIGH,...  which keys are dsmd's (default: all but 114); the others are the kernel's\n"
    "DSHM_PAGER=uffd|sigsegv, DSHM_AGENT=PATH, DSM_KEY_FILE=PATH: see dsm/dshm/README.md\n";

int complain(const std::string& why, int code) {
  std::fputs(("dshmrun: " + why + "\n").c_str(), stderr);
  return code;
}

// build/bin/dshmrun has build/lib/libdshm.so. Empty, and errno, if it is not there.
std::string library() {
  char own[PATH_MAX];
  const ssize_t length = ::readlink("/proc/self/exe", own, sizeof own);
  if (length <= 0) return {};
  std::string path(own, static_cast<std::size_t>(length));
  path = path.substr(0, path.rfind('/')) + "/../lib/libdshm.so";
  char real[PATH_MAX];
  return ::realpath(path.c_str(), real) != nullptr ? real : "";
}

int run(int argc, char** argv) {
  std::string why;
  const auto line = read_command_line(std::span<const char* const>(argv, static_cast<std::size_t>(argc)), why);
  if (!line) return complain(why + "; see dshmrun --help", own_failure);
  if (line->help) return std::fputs(usage, stdout) == EOF || std::fflush(stdout) != 0 ? own_failure : 0;
  const std::string path = library();
  if (path.empty())
    return complain(std::string("../lib/libdshm.so beside dshmrun: ") + strerrordesc_np(errno) + "; make client",
                    own_failure);
  const std::optional<std::string> list = preload(path, ::getenv("LD_PRELOAD"), why);
  if (!list) return complain(why, own_failure);
  std::string server = line->server;
  if (const char* named = ::getenv("DSHM_SERVER"); server.empty() && named != nullptr && *named != '\0') {
    server = named;
    if (why = wrong_with_server(server); !why.empty()) return complain("DSHM_SERVER: " + why, own_failure);
  }
  if (server.empty()) server = "localhost:8080";
  if (::setenv("LD_PRELOAD", list->c_str(), 1) != 0 || ::setenv("DSHM_SERVER", server.c_str(), 1) != 0)
    return complain(std::string("setenv: ") + strerrordesc_np(errno), own_failure);
  ::execvp(argv[line->program], argv + line->program);
  const int error = errno;
  return complain(std::string(argv[line->program]) + ": " + strerrordesc_np(error),
                  error == ENOENT ? not_found : cannot_run);
}

}  // namespace
}  // namespace dsm::dshm

int main(int argc, char** argv) { return dsm::dshm::run(argc, argv); }
