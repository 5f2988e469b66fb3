// unsafe_handler WHAT - handlers as they must not be, for the test of what finds them: one that calls printf, one that
// uses std::cout (flushed or not, with stdio below it or not), one that calls malloc; and `nothing`, which is in order.
#include <signal.h>

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>

namespace {

volatile sig_atomic_t calls = 0;
void* volatile block = nullptr;

void nothing(int) { calls = calls + 1; }
void with_printf(int signo) { std::printf("signal %d\n", signo); }
void with_cout(int) { std::cout << "a signal\n"; }
void with_endl(int) { std::cout << "a signal" << std::endl; }
void with_malloc(int) { block = std::malloc(100); }
void with_new(int) { block = new char[100]; }

}  // namespace

int main(int argc, char** argv) {
  const std::string what = argc == 2 ? argv[1] : "";
  if (what == "cout-without-stdio") std::ios::sync_with_stdio(false);
  struct sigaction action {};
  action.sa_handler = what == "printf"    ? with_printf
                      : what == "endl"    ? with_endl
                      : what == "malloc"  ? with_malloc
                      : what == "new"     ? with_new
                      : what == "nothing" ? nothing
                                          : with_cout;
  sigemptyset(&action.sa_mask);
  ::sigaction(SIGUSR1, &action, nullptr);
  ::raise(SIGUSR1);
  std::free(block);
}
