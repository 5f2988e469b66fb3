// labs/common/valgrind.hpp - a program under valgrind: does it leave memory or descriptors? For tests only.
#pragma once
#include <filesystem>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "observing.hpp"

// Valgrind and a sanitizer each want to be the only one who watches a program's memory.
#define SKIP_UNLESS_VALGRIND_CAN_RUN() \
  if (ipc::testing::sanitizer_is_on()) GTEST_SKIP() << "valgrind cannot run a program that has a sanitizer in it"

namespace ipc::testing {

// `.ci/run-tests` has SANITIZER in its environment; what GCC tells at compile time covers a run by hand.
inline bool sanitizer_is_on() {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return true;
#else
  const char* const name = ::getenv("SANITIZER");
  return name != nullptr && *name != '\0';
#endif
}

// argv for Started: a program of build/bin, and all its children, under valgrind. The reports go into `folder`.
inline std::vector<std::string> under_valgrind(const TempDir& folder, const std::vector<std::string>& arguments) {
  std::vector<std::string> argv = {"/usr/bin/valgrind",
                                   "-q",
                                   "--leak-check=full",
                                   "--track-fds=yes",
                                   "--error-exitcode=99",
                                   "--trace-children=yes",
                                   "--child-silent-after-fork=no",
                                   "--log-file=" + folder.path("valgrind.%p"),
                                   program_path(arguments.front())};
  argv.insert(argv.end(), arguments.begin() + 1, arguments.end());
  return argv;
}

// What valgrind has to say against it; nothing if all is well. Descriptors that were there from the start are left out.
inline std::string valgrind_findings(const TempDir& folder) {
  std::string findings;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
    if (entry.path().filename().string().rfind("valgrind.", 0) != 0) continue;
    std::istringstream report(read_text(entry.path().string()));
    std::string descriptor;  // "Open file descriptor 7: /etc/passwd": the next line says where it comes from
    for (std::string line; std::getline(report, line);) {
      line.erase(0, line.find_first_not_of("=0123456789"));  // "==PID== "
      line.erase(0, line.find_first_not_of(' '));
      if (line.empty() || line.rfind("FILE DESCRIPTORS:", 0) == 0) continue;
      const bool inherited = line == "<inherited from parent>";
      if (!descriptor.empty() && !inherited) findings += descriptor + "\n";
      descriptor.clear();
      if (line.rfind("Open ", 0) == 0) {
        descriptor = line;
      } else if (!inherited) {
        findings += line + "\n";
      }
    }
  }
  return findings;
}

}  // namespace ipc::testing
