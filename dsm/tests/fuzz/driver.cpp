// libFuzzer's side: `fuzzer HARNESS [libFuzzer's options] [FOLDER or FILE...]`. Given a file, it runs just that.
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "dsm/tests/fuzz/harness.hpp"

namespace {

// To the copies of itself that libFuzzer starts (-merge=1) it does not pass on the name.
constexpr const char* variable = "DSM_FUZZ_HARNESS";

const dsm::fuzz::Harness* chosen = nullptr;

bool choose(const char* name) {
  for (const auto& one : dsm::fuzz::harnesses) {
    if (std::strcmp(one.name, name) == 0) chosen = &one;
  }
  return chosen != nullptr;
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv);
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  if (*argc >= 2 && choose((*argv)[1])) {
    ::setenv(variable, chosen->name, 1);
    (*argv)[1] = (*argv)[0];
    --*argc;
    ++*argv;
    return 0;
  }
  const char* const inherited = std::getenv(variable);
  if (inherited != nullptr && choose(inherited)) return 0;
  std::fputs("usage: fuzzer HARNESS [options of libFuzzer] [FOLDER or FILE...], HARNESS one of:", stderr);
  for (const auto& one : dsm::fuzz::harnesses) std::fprintf(stderr, " %s", one.name);
  std::fputs("\n", stderr);
  std::exit(2);
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  chosen->run({data, size});
  return 0;
}
