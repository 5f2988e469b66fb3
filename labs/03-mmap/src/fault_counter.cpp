// fault_counter - counts the pages of memory that a program touches, by letting it fault on each of them.
//
//   $ build/bin/fault_counter --pages 5
//   $ strace -e trace=mprotect -e signal=SEGV build/bin/fault_counter --pages 3      each fault, and what answers it
//
// It ends with a surprise: the kernel does not fault as we do. A read(2) into a closed page raises no SIGSEGV, it returns
// EFAULT, and so nobody opens the page. Who works on such memory must touch it before he gives it to a system call.
// Man pages: mprotect(2), sigaction(2), read(2).
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "counted_pages.hpp"
#include "ipc/fd.hpp"
#include "ipc/program.hpp"

namespace {

// One byte from /dev/zero, into memory: "1 byte", or the name of the error.
std::string read_into(volatile char* memory) {
  const ipc::Fd zeros(ipc::check(::open("/dev/zero", O_RDONLY | O_CLOEXEC), "open /dev/zero"));
  return ::read(zeros.get(), const_cast<char*>(memory), 1) == 1 ? "1 byte" : ::strerrorname_np(errno);
}

}  // namespace

int main(int argc, char** argv) {
  int pages = 10;
  ipc::Program about{"fault_counter [options]\nTouches pages of closed memory and counts the faults.", {}};
  ipc::add_number(about.options, "pages", pages, 1, 10'000'000, "how many pages are touched");
  return ipc::run_program(argc, argv, about, [&](const ipc::po::variables_map&) {
    const auto touched = static_cast<std::size_t>(pages);
    const CountedPages memory(touched + 1);    // the last one is for read(2)
    for (int round = 0; round < 2; ++round) {  // in the second round all are open: no more faults
      for (std::size_t i = 0; i < touched; ++i) static_cast<void>(*memory.page(i));
    }
    ipc::say("faults: " + std::to_string(memory.faults()));

    volatile char* const last = memory.page(touched);
    ipc::say("read(2) into a closed page: " + read_into(last));
    static_cast<void>(*last);
    ipc::say("read(2) into it after a touch: " + read_into(last));
    return 0;
  });
}
