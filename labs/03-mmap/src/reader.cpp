// reader - prints the five ints that `writer` has stored in a file, through a mapping of it.
//
//   $ build/bin/writer numbers --seed 1
//   $ build/bin/reader numbers
//   $ truncate -s 19 numbers
//   $ build/bin/reader numbers       too short: one clear line, and no SIGBUS
//
// Who maps a file trusts its length for as long as he looks at it, and anybody may change that. Hence the length is asked
// before, the kernel does the copying (ipc::copy_guarded), and the length is asked again after it.
// Man pages: open(2), mmap(2), fstat(2), signal(7) on SIGBUS.
#include <fcntl.h>

#include <stdexcept>

#include "five_numbers.hpp"
#include "ipc/fd.hpp"
#include "ipc/mapping.hpp"
#include "ipc/program.hpp"

namespace {

FiveNumbers load(const std::string& name) {
  FiveNumbers numbers{};
  //@ solution 03.load
  const ipc::Fd file(::open(name.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));  // a FIFO does not hold us up
  if (!file) ipc::throw_errno("open " + name);
  const ipc::Mapping mapping = ipc::map_file(file, sizeof numbers, false, name);
  // In this order: what was cut off after the copy was there when it was read, and what was cut off before is seen by
  // the second look. (Cut off and appended again in between: nobody can tell that without a lock.)
  const bool copied = ipc::copy_guarded(numbers.data(), mapping.data(), sizeof numbers);
  if (!copied || ipc::file_size(file, name) < sizeof numbers) {
    throw std::runtime_error(name + ": was made shorter while it was mapped");
  }
  //@ starter
  // TODO 03.load: open, map and copy. What if the file is shorter than 20 bytes, at the beginning or all of a sudden?
  //| throw std::runtime_error(name + ": nothing is loaded yet");
  //@ end
  return numbers;
}

}  // namespace

int main(int argc, char** argv) {
  ipc::Program about{"reader FILE\nPrints the five ints that writer has stored in FILE.", {}, {"FILE"}};
  return ipc::run_program(argc, argv, about, [](const ipc::po::variables_map& values) {
    ipc::say("read:" + text_of(load(values["FILE"].as<std::string>())));
    return 0;
  });
}
