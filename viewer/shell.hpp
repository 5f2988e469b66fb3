// viewer/shell.hpp - the interactive dsmtop: the only part that knows a terminal.
#pragma once
#include <string>

namespace viewer {

struct ShellOptions {
  std::string job;    // empty: the newest
  bool utf8 = false;  // the terminal shows UTF-8 and the user allows it
  bool color = true;  // if the terminal can
};

// Runs until the user leaves. Returns the exit status; on SIGTERM, SIGINT, SIGHUP and SIGQUIT the process dies of the
// signal. In every case the terminal is first put back as it was. REQUIRES: standard input and output are a terminal,
// setlocale has been called, one thread.
[[nodiscard]] int run_shell(const ShellOptions& options);

}  // namespace viewer
