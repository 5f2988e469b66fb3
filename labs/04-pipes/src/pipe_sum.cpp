// pipe_sum - 4A: a parent sends random digits to its child through a pipe, and the child adds them up.
//
//   $ build/bin/pipe_sum --seed 1
//   $ build/bin/pipe_sum --seed 1 --count 1000000 | tail -c 15      far more than a pipe holds
//   $ strace -f -e trace=pipe2,clone,read,write,close build/bin/pipe_sum      who closes what, and what read() returns
//
// Each of the two closes the end that it does not use. To the child that means life: read() says end of file when *all*
// writing ends are closed, and its own is one of them. It ends first, and the parent after it has reaped it.
// Man pages: pipe(7), fork(2), read(2), write(2), waitpid(2).
#include <signal.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <optional>
#include <random>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "ipc/attentive.hpp"
#include "ipc/child.hpp"
#include "ipc/program.hpp"
#include "ipc/signals.hpp"
#include "ipc/spawn.hpp"

namespace {

// The digits as characters, "31415".
std::string draw(std::optional<int> count, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  if (!count) count = std::uniform_int_distribution<int>(5, 20)(random);
  std::uniform_int_distribution<int> digit(0, 9);
  std::string digits(static_cast<std::size_t>(*count), ' ');
  for (char& c : digits) c = static_cast<char>('0' + digit(random));
  return digits;
}

// ---- the child -------------------------------------------------------------------------------------------------------

// Reads digits to end of file and says what they come to.
int add_up(ipc::Fd digits) {
  long long sum = 0;
  //@ solution 04.sum
  std::array<char, 65536> buffer;
  ssize_t count = 0;
  do {
    count = ipc::read_full(digits.get(), buffer.data(), buffer.size());
    if (count == -1) ipc::throw_errno("read from the pipe");
    for (ssize_t i = 0; i < count; ++i) sum += buffer[static_cast<std::size_t>(i)] - '0';
  } while (count == static_cast<ssize_t>(buffer.size()));  // read_full() gives less at end of file only
  //@ starter
  // TODO 04.sum: read until end of file and add up the digits. How many bytes may one read() return, and what does it
  // return at the end? What must be closed, and by whom, for that end ever to come?
  //| static_cast<void>(digits);
  //@ end
  ipc::say("sum: " + std::to_string(sum));
  return 0;
}

// ---- the parent ------------------------------------------------------------------------------------------------------

// All signals that concern the parent are blocked from before the fork, and read from a descriptor: wherever it waits,
// for room in the pipe, for somebody to read the line, for the child, it waits for them too. So none is lost, and the
// child is ended and reaped whenever somebody says stop.
class Parent {
 public:
  int run(const std::string& digits) {
    std::string line = "sent:";
    for (const char digit : digits) line += {' ', digit};
    line += '\n';

    start_child();
    signals_.emplace(watched_);
    try {
      write(pipe_.write.get(), digits, "write to the pipe");
    } catch (const std::system_error& failure) {
      if (failure.code() != std::errc::broken_pipe) throw;
      return wait_for_child();  // nobody reads any more: it is about to end, and then we can say of what
    }
    // Before the pipe is closed, and so before the child says the sum.
    write(STDOUT_FILENO, line, "standard output");
    pipe_.write.reset();  // end of file, for the child
    return wait_for_child();
  }

 private:
  void start_child() {
    //@ solution 04.fork
    child_.emplace([&] {
      pipe_.write.reset();
      ::pthread_sigmask(SIG_SETMASK, &mask_.previous(), nullptr);
      return add_up(std::move(pipe_.read));
    });
    // If the child ends early, the next write() is an error instead of waiting for a reader that is ourselves.
    pipe_.read.reset();
    //@ starter
    // TODO 04.fork: start the child (ipc/child.hpp); it adds up what comes. Which end does each of the two close, and what
    // would happen if one of them did not?
    //| static_cast<void>(add_up);
    //@ end
  }

  void write(int fd, std::string_view bytes, const std::string& what) {
    ipc::write_attentively(fd, bytes, what, signals_->fd(), [this] {
      take_signals();
      if (status_) throw std::runtime_error(last_words());
    });
  }

  int wait_for_child() {
    //@ solution 04.wait
    while (!status_) {
      pollfd readable{signals_->fd(), POLLIN, 0};
      ::poll(&readable, 1, -1);
      take_signals();
    }
    if (WIFEXITED(*status_)) return WEXITSTATUS(*status_);  // if not 0, it has said why
    throw std::runtime_error(last_words());
    //@ starter
    // TODO 04.wait: wait until the child has ended, with take_signals(), and return its exit code. A child may also be
    // killed. What does a shell show of a child that ended when nobody waited for it?
    //| return 0;
    //@ end
  }

  void take_signals() {
    signalfd_siginfo signal{};
    while (signals_->read(signal)) {
      if (signal.ssi_signo != SIGCHLD) throw ipc::Stopped{static_cast<int>(signal.ssi_signo)};
    }
    for (const ipc::ChildExit& gone : ipc::reap_children()) {
      last_pid_ = gone.pid;
      status_ = gone.status;
      child_->forget();
    }
  }

  std::string last_words() const {
    return "child " + std::to_string(last_pid_) + " " + ipc::how_it_ended(*status_) + " before it was done";
  }

  const sigset_t watched_ = ipc::stop_signals_and({SIGCHLD});
  const ipc::ScopedMask mask_{watched_};
  ipc::Pipe pipe_ = ipc::make_pipe();
  std::optional<ipc::SignalFd> signals_;  // made after the fork: the child has no use for it
  // Behind the pipe, and so killed before that is closed: after a failure it must not take that for the end of the digits.
  std::optional<ipc::Child> child_;
  std::optional<int> status_;  // its, as wait(2) says it, once it is reaped
  pid_t last_pid_ = -1;
};

}  // namespace

int main(int argc, char** argv) {
  std::optional<int> count;
  std::uint64_t seed = 0;
  ipc::Program about{"pipe_sum [options]\nSends random digits through a pipe to a child, which adds them up.", {}};
  const auto take = [&count](int value) {
    if (value < 1 || value > 10'000'000)
      throw ipc::UsageError("--count " + std::to_string(value) + ": a number from 1 to 10000000 is needed");
    count = value;
  };
  about.options.add_options()("count", ipc::po::value<int>()->value_name("N")->notifier(take),
                              "how many digits (default: 5 to 20, drawn at random)");
  ipc::add_seed(about.options, seed);
  return ipc::run_program(argc, argv, about,
                          [&](const ipc::po::variables_map&) { return Parent().run(draw(count, seed)); });
}
