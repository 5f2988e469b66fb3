// writer - stores five random ints in a file without a single write(2): through a shared mapping.
//
//   $ build/bin/writer numbers --seed 1
//   $ od -An -td4 numbers            the file holds the numbers themselves, no text
//   $ build/bin/reader numbers
//
// The file is made if it is not there. One that is longer keeps the rest: a store into memory makes no file shorter, and
// whoever has it mapped at this moment must not lose pages.
// Man pages: open(2), posix_fallocate(3), mmap(2), msync(2).
#include <fcntl.h>
#include <sys/mman.h>

#include <cstdint>
#include <random>
#include <stdexcept>

#include "five_numbers.hpp"
#include "ipc/fd.hpp"
#include "ipc/mapping.hpp"
#include "ipc/program.hpp"

namespace {

FiveNumbers draw(std::uint64_t seed) {
  std::mt19937_64 random(seed);
  FiveNumbers numbers{};
  for (int& number : numbers) number = static_cast<int>(random() >> 33);  // 0 to 2147483647
  return numbers;
}

void store(const std::string& name, const FiveNumbers& numbers) {
  //@ solution 03.store
  // O_RDWR: the processor cannot store without being able to read (EACCES otherwise). O_NONBLOCK: whatever `name` is,
  // opening it does not wait.
  const int flags = O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
  const ipc::Fd file(::open(name.c_str(), flags, 0666));
  if (!file) ipc::throw_errno("open " + name);
  static_cast<void>(ipc::file_size(file, name));  // no regular file: says so
  // ftruncate() would make a hole, and on a full disk the store into it would be SIGBUS. This has the blocks, or says no.
  errno = ::posix_fallocate(file.get(), 0, sizeof numbers);
  if (errno != 0) ipc::throw_errno("posix_fallocate " + name);

  const ipc::Mapping mapping = ipc::map_file(file, sizeof numbers, true, name);
  const bool stored = ipc::copy_guarded(mapping.data(), numbers.data(), sizeof numbers);
  // Other processes see the numbers from now on; the disk, or the machine that has the disk, sees them after msync().
  ipc::check(::msync(mapping.data(), mapping.size(), MS_SYNC), "msync");
  if (!stored || ipc::file_size(file, name) < sizeof numbers) {
    throw std::runtime_error(name + ": was made shorter while it was mapped");
  }
  //@ starter
  // TODO 03.store: open the file (which flags does a writable mapping need?), see to it that it has room for all of the
  // numbers (a new file has none, and mmap() does not mind), map it, and store them. Which of MAP_SHARED and MAP_PRIVATE
  // lets the reader see them?
  //| static_cast<void>(numbers);
  //| throw std::runtime_error(name + ": nothing is stored yet");
  //@ end
}

}  // namespace

int main(int argc, char** argv) {
  std::uint64_t seed = 0;
  ipc::Program about{"writer FILE [options]\nStores five random ints in FILE, through a mapping.", {}, {"FILE"}};
  ipc::add_seed(about.options, seed);
  return ipc::run_program(argc, argv, about, [&](const ipc::po::variables_map& values) {
    const FiveNumbers numbers = draw(seed);
    store(values["FILE"].as<std::string>(), numbers);
    ipc::say("wrote:" + text_of(numbers));
    return 0;
  });
}
