// send_rand - 5A: sends random numbers through a pipe with a name, to a program that it knows nothing of.
//
//   $ build/bin/send_rand mypipe -n 30 &         # waits: nobody reads
//   $ ls -l /tmp/mypipe                          # the first letter is a p
//   $ build/bin/get_rand mypipe
//
// Each value is one record, "57;", so that two senders' digits never get mixed. The FIFO stays: who removes it would
// have to know that nobody wants to come.
// Man pages: fifo(7), mkfifo(3), pipe(7), open(2).
#include <cstdint>
#include <random>
#include <stdexcept>
#include <string>
#include <system_error>

#include "fifo_path.hpp"
#include "ipc/fifo.hpp"
#include "ipc/program.hpp"

namespace {

// Sends `count` values and closes.
void send_values(const std::string& path, int count, std::uint64_t seed) {
  //@ solution 05.send
  ipc::make_fifo(path);
  const ipc::Fd fifo = ipc::open_fifo_for_writing(path);
  std::mt19937_64 random(seed);
  std::uniform_int_distribution<int> value(0, 100);
  for (int sent = 0; sent < count; ++sent) {
    try {
      ipc::write_record(fifo.get(), std::to_string(value(random)) + ";");
    } catch (const std::system_error& failure) {
      if (failure.code() != std::errc::broken_pipe) throw;
      throw std::runtime_error(path + ": the reader has left; " + std::to_string(sent) + " of " +
                               std::to_string(count) + " values were sent");
    }
  }
  //@ starter
  // TODO 05.send: make the FIFO, open it, write `count` values of 0..100 as decimal text, each with a ';' behind it,
  // and close it (who does?). What happens at the open when nobody reads? And at the write when the reader has left?
  //| static_cast<void>(path), static_cast<void>(count), static_cast<void>(seed);
  //@ end
}

}  // namespace

int main(int argc, char** argv) {
  int count = 10;
  std::uint64_t seed = 0;
  ipc::Program about{"send_rand NAME [options]: sends random values of 0..100 through the FIFO /tmp/NAME",
                     ipc::po::options_description("options"),
                     {"NAME"}};
  ipc::add_number(about.options, "count,n", count, 1, 1'000'000'000, "how many values");
  ipc::add_seed(about.options, seed);
  return ipc::run_program(argc, argv, about, [&](const ipc::po::variables_map& values) {
    send_values(fifo_path(values["NAME"].as<std::string>()), count, seed);
    ipc::say("sent " + std::to_string(count) + " values");
    return 0;
  });
}
