// labs/common/handlers.hpp - is what a program does inside its signal handlers allowed there?
//
// For tests only. Two witnesses. strace(1) sees every system call between the delivery of a signal and rt_sigreturn. It
// does not see what only fills a buffer or takes memory from a list: handler_watch.so does, see handler_watch.cpp.
#pragma once
#include "observing.hpp"

namespace ipc::testing {

// Of the program and all its children.
struct SeenInHandlers {
  Outcome outcome = {};
  std::map<std::string, int> deliveries = {};  // "SIGUSR1" -> how often it reached a handler
  std::vector<std::string> offences = {};      // what was called inside one
};

namespace detail {

// One process's lines, as `strace -ff -o` writes them: no pid before them.
inline void read_trace(const std::string& path, const std::set<std::string>& handled, SeenInHandlers& seen) {
  std::ifstream file(path);
  std::vector<std::string> inside;  // handlers that have been entered and not left
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("--- SIG", 0) == 0) {
      const std::string name = line.substr(4, line.find(' ', 4) - 4);
      if (handled.count(name) == 0) continue;  // its default action, or none
      inside.push_back(name);
      ++seen.deliveries[name];
    } else if (line.rfind("rt_sigreturn", 0) == 0) {
      if (!inside.empty()) inside.pop_back();
    } else if (!inside.empty() && line.rfind("+++", 0) != 0) {
      seen.offences.push_back("inside " + inside.back() + ": " + line);
    }
  }
}

}  // namespace detail

// Runs a program (of build/bin, or a path) under strace. No system call may stand between the delivery of a signal to a handler and rt_sigreturn.
inline SeenInHandlers trace_handlers(std::vector<std::string> arguments) {
  const TempDir folder;
  if (arguments.front().find('/') == std::string::npos) arguments.front() = program_path(arguments.front());
  arguments.insert(arguments.begin(), {"/usr/bin/strace", "-ff", "-q", "-o", folder.path("trace"), "--"});
  SeenInHandlers seen;
  seen.outcome = run(arguments);
  std::set<std::string> handled;  // signals for which some process has installed a function
  for (const auto& file : std::filesystem::directory_iterator(folder.path())) {
    std::ifstream lines(file.path());
    for (std::string line; std::getline(lines, line);) {
      const std::string call = "rt_sigaction(";
      const auto comma = line.find(", {sa_handler=0x");
      if (line.rfind(call, 0) == 0 && comma != std::string::npos) {
        handled.insert(line.substr(call.size(), comma - call.size()));
      }
    }
  }
  for (const auto& file : std::filesystem::directory_iterator(folder.path())) {
    detail::read_trace(file.path().string(), handled, seen);
  }
  return seen;
}

// Runs a program (of build/bin, or a path) with handler_watch.so preloaded.
inline SeenInHandlers watch_handlers(std::vector<std::string> arguments) {
  const TempDir folder;
  RunOptions options;
  options.environment = {"LD_PRELOAD=" + build_folder() + "/tests/handler_watch.so",
                         "HANDLER_WATCH=" + folder.path("seen")};
  SeenInHandlers seen;
  seen.outcome = run(std::move(arguments), options);
  std::ifstream lines(folder.path("seen"));
  std::string what;
  for (int pid = 0, signo = 0; lines >> pid >> signo && std::getline(lines >> std::ws, what);) {
    const std::string name = "SIG" + std::string(::sigabbrev_np(signo));
    if (what == "handler") {
      ++seen.deliveries[name];
    } else {
      seen.offences.push_back("inside " + name + ": " + what);
    }
  }
  return seen;
}

}  // namespace ipc::testing
