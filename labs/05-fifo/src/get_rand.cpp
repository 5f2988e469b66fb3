// get_rand - 5B: reads all numbers that come through a pipe with a name, and prints how many and their mean.
//
//   $ build/bin/get_rand mypipe &                # waits: nobody sends
//   $ echo '1;2;3' > /tmp/mypipe                 # anybody may: a FIFO is a file
//   count: 3
//   mean: 2.000
//
// The end comes when every sender has closed. ';' and white space separate; any whole number of 64 bits is taken, in at
// most 64 characters, for the range 0..100 is a matter of who sends. Nothing else is.
// Man pages: fifo(7), read(2).
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <string_view>

#include "fifo_path.hpp"
#include "ipc/error.hpp"
#include "ipc/fifo.hpp"
#include "ipc/program.hpp"

namespace {

// Takes a stream of numbers in pieces of any size.
class Numbers {
 public:
  // A number may begin in one piece and end in the next one.
  void take(std::string_view piece) {
    //@ solution 05.take
    for (const char c : piece) {
      if (separators.find(c) != std::string_view::npos) {
        finish();
      } else if (word_.size() < max_word) {
        word_ += c;
      } else {  // not cut: what is left of a word may be another number
        throw std::runtime_error("'" + ipc::printable(word_) + "' is too long for a whole number");
      }
    }
    //@ starter
    // TODO 05.take: cut the piece at ';' and at white space, and add up the numbers. A read() may end in the middle of
    // "57;": what do you keep in word_ until the next piece comes? A sender may never send a ';': what bounds word_?
    // And what becomes of a word that is longer?
    //| static_cast<void>(piece), static_cast<void>(separators), static_cast<void>(max_word);
    //@ end
  }
  // The last number needs no separator behind it.
  void finish() {
    if (word_.empty()) return;
    if (__builtin_add_overflow(sum_, ipc::whole_number(word_), &sum_)) {
      throw std::runtime_error("the sum does not fit into 64 bits");
    }
    ++count_;
    word_.clear();
  }
  [[nodiscard]] std::int64_t count() const { return count_; }
  // REQUIRES: count() > 0.
  [[nodiscard]] double mean() const { return static_cast<double>(sum_) / static_cast<double>(count_); }

 private:
  static constexpr std::string_view separators = "; \t\n\v\f\r";
  static constexpr std::size_t max_word = 64;
  std::string word_;  // what has come of the present number
  std::int64_t count_ = 0, sum_ = 0;
};

// Reads until every sender has closed.
Numbers read_numbers(const std::string& path) {
  Numbers numbers;
  ipc::make_fifo(path);
  const ipc::Fd fifo = ipc::open_fifo_for_reading(path);
  //@ solution 05.drain
  char piece[65536];
  for (;;) {
    const ssize_t size = ::read(fifo.get(), piece, sizeof piece);
    if (size == 0) break;
    if (size > 0) {
      numbers.take({piece, static_cast<std::size_t>(size)});
    } else if (errno != EINTR) {
      ipc::throw_errno("read");
    }
  }
  numbers.finish();
  //@ starter
  // TODO 05.drain: read until end of file. One read() gives what is there now: is that all? What does read() return
  // when every sender has closed, and what while one of them only thinks?
  //@ end
  return numbers;
}

}  // namespace

int main(int argc, char** argv) {
  const ipc::Program about{"get_rand NAME: reads numbers from the FIFO /tmp/NAME until every sender has closed",
                           ipc::po::options_description("options"),
                           {"NAME"}};
  return ipc::run_program(argc, argv, about, [](const ipc::po::variables_map& values) {
    const std::string path = fifo_path(values["NAME"].as<std::string>());
    try {
      const Numbers numbers = read_numbers(path);
      if (numbers.count() == 0) throw std::runtime_error("no value came");
      char mean[64];
      std::snprintf(mean, sizeof mean, "mean: %.3f", numbers.mean());
      ipc::say("count: " + std::to_string(numbers.count()));
      ipc::say(mean);
    } catch (const std::system_error&) {
      throw;  // names its object itself
    } catch (const std::runtime_error& failure) {
      throw std::runtime_error(path + ": " + failure.what());
    }
    return 0;
  });
}
