// ipc/program.hpp - the outside of a program: its command line, its lines, its errors, and how it ends. Given to every
// lab.
//
// Results go to standard output, one fact a line, by say(); errors to standard error, as "program: what: why". The exit
// code is 0, 1 (it failed) or 2 (it was misused). Thread-safety: for the thread that runs main().
// async-signal-safe: no. Sources: Boost.Program_options; signal(7).
#pragma once
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <boost/program_options.hpp>
#include <cerrno>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <initializer_list>
#include <iostream>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ipc/error.hpp"

namespace ipc {

namespace po = boost::program_options;

// Throw it for what is wrong with the command line: exit code 2.
struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Throw it when a signal says stop: all destructors on the way out run (children are ended and reaped, segments and
// files removed), and then the program dies of that signal, so that whoever started it sees the truth (a shell: 128 +
// n).
struct Stopped {
  int signo;
};

// Those signals: SIGINT, SIGTERM and SIGHUP, without the ones that whoever started us has set to be ignored (nohup does
// that, and a script for what it starts with `&`).
inline sigset_t stop_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signo : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction now {};
    if (::sigaction(signo, nullptr, &now) == 0 && now.sa_handler != SIG_IGN) sigaddset(&set, signo);
  }
  return set;
}

// Those, and more of your own: SIGCHLD, for instance.
inline sigset_t stop_signals_and(std::initializer_list<int> more) {
  sigset_t set = stop_signals();
  for (const int signo : more) sigaddset(&set, signo);
  return set;
}

// One line on standard output, at once, also when that is a pipe. Throws std::system_error if nobody takes it.
inline void say(std::string_view line) {
  errno = 0;
  if (!(std::cout << line << std::endl)) throw_errno("standard output");
}

// Text from outside, fit for an error line: at most `max_bytes` of it, and '?' for what is not printable ASCII.
inline std::string printable(std::string_view text, std::size_t max_bytes = 40) {
  std::string result(text.substr(0, max_bytes));
  for (char& c : result) {
    if (c < ' ' || c > '~') c = '?';
  }
  return text.size() > max_bytes ? result + "..." : result;
}

// The decimal number, maybe with a '-', that is the whole of `text`. Throws std::runtime_error, which says why not.
inline std::int64_t whole_number(std::string_view text) {
  std::int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error == std::errc::invalid_argument || end != text.data() + text.size()) {
    throw std::runtime_error("'" + printable(text) + "' is no whole number");
  }
  if (error != std::errc{}) throw std::runtime_error("'" + printable(text) + "' does not fit into 64 bits");
  return number;
}

// How a message names the option "count,n": by what a hand-out says, "-n".
inline std::string shown_name(const std::string& name) {
  const std::size_t comma = name.find(',');
  return comma == std::string::npos ? "--" + name : "-" + name.substr(comma + 1);
}

// Adds an option that is a whole number from `low` to `high`; the variable's present value is the default.
//   add_number(about.options, "count,n", count, 1, 1000000, "how many values");
template <class Int>
void add_number(po::options_description& options, const std::string& name, Int& variable, Int low, Int high,
                const char* meaning) {
  const auto check_range = [low, high, shown = shown_name(name)](Int value) {
    if (value >= low && value <= high) return;
    throw UsageError(shown + " " + std::to_string(value) + ": a number from " + std::to_string(low) + " to " +
                     std::to_string(high) + " is needed");
  };
  auto* const value = po::value(&variable)->default_value(variable)->value_name("N")->notifier(check_range);
  options.add_options()(name.c_str(), value, meaning);
}

// Adds --seed: the same seed, the same sequence. Without the option `seed` is drawn anew.
inline void add_seed(po::options_description& options, std::uint64_t& seed) {
  const auto take = [&seed](std::int64_t value) {
    if (value < 0) throw UsageError("--seed " + std::to_string(value) + ": a number from 0 up is needed");
    seed = static_cast<std::uint64_t>(value);
  };
  seed = std::random_device{}();
  options.add_options()("seed", po::value<std::int64_t>()->value_name("N")->notifier(take),
                        "the same seed, the same sequence (default: a new one each time)");
}

// What a program says of itself.
struct Program {
  std::string usage;                       // "send_rand NAME [options]", then what it does, for --help
  po::options_description options;         // --help comes by itself
  std::vector<std::string> operands = {};  // names of what stands there without "--", in order; all are needed
};

namespace detail {

// Takes "-5" for what it is, a number and no option.
inline std::vector<po::option> take_negative_number(std::vector<std::string>& arguments) {
  std::vector<po::option> taken;
  const std::string& first = arguments.front();
  if (first.size() < 2 || first[0] != '-' || first.find_first_not_of("0123456789", 1) != std::string::npos)
    return taken;
  po::option number;
  number.position_key = 0;
  number.value = {first};
  number.original_tokens = {first};
  arguments.erase(arguments.begin());
  taken.push_back(std::move(number));
  return taken;
}

// False after --help.
inline bool read_command_line(int argc, char** argv, Program& about, po::variables_map& values) {
  about.options.add_options()("help,h", "print this and exit");
  po::options_description all;
  all.add(about.options);
  po::positional_options_description positions;
  for (const std::string& name : about.operands) {
    all.add_options()(name.c_str(), po::value<std::string>());
    positions.add(name.c_str(), 1);
  }
  const auto style = po::command_line_style::unix_style & ~po::command_line_style::allow_guessing;
  try {
    auto parser = po::command_line_parser(argc, argv);
    parser.options(all).positional(positions).style(style).extra_style_parser(take_negative_number);
    po::store(parser.run(), values);
    if (values.count("help") != 0) {
      std::ostringstream text;
      text << "usage: " << about.usage << "\n\n" << about.options;
      say(text.str().substr(0, text.str().find_last_not_of('\n') + 1));
      return false;
    }
    po::notify(values);
  } catch (const po::too_many_positional_options_error&) {
    throw UsageError(about.operands.empty() ? "it takes options only" : "too many arguments");
  } catch (const po::error& error) {
    throw UsageError(error.what());
  }
  for (const std::string& name : about.operands) {
    if (values.count(name) == 0) throw UsageError(name + " is missing");
  }
  return true;
}

// Started with a standard descriptor closed (`>&-`), the next file would get its number, and what is said would go there.
inline void keep_standard_numbers() {
  int fd = 0;
  do {
    fd = ::open("/dev/null", O_RDONLY);  // writing to it fails, as it would have
  } while (fd >= 0 && fd <= 2);
  if (fd > 2) ::close(fd);
}

inline void die_of(int signo) {
  ::signal(signo, SIG_DFL);
  sigset_t only;
  sigemptyset(&only);
  sigaddset(&only, signo);
  ::raise(signo);
  ::pthread_sigmask(SIG_UNBLOCK, &only, nullptr);
}

// One string, one write(): lines of several processes do not mix.
inline void complain(const std::string& name, const std::string& why) { std::cerr << name + ": " + why + "\n"; }

}  // namespace detail

// The whole of main(): reads the command line, runs `body` with it and returns what it returns. A pipe that nobody
// reads is an error as any other (SIGPIPE is ignored), so that nothing is left behind then either. SIGCHLD gets its
// default: had it come to us ignored, the kernel would reap our children and not tell how they ended.
inline int run_program(int argc, char** argv, Program about, const std::function<int(const po::variables_map&)>& body) {
  const std::string path = argc > 0 ? argv[0] : "program";
  const std::string name = path.substr(path.rfind('/') + 1);
  ::signal(SIGPIPE, SIG_IGN);
  ::signal(SIGCHLD, SIG_DFL);
  detail::keep_standard_numbers();
  int signo = 0;
  try {
    po::variables_map values;
    return detail::read_command_line(argc, argv, about, values) ? body(values) : 0;
  } catch (const Stopped& stopped) {
    signo = stopped.signo;  // it dies below, where the exception is gone: so it loses no memory
  } catch (const UsageError& misuse) {
    detail::complain(name, std::string(misuse.what()) + "; see " + name + " --help");
    return 2;
  } catch (const std::exception& failure) {
    detail::complain(name, failure.what());
    return 1;
  }
  detail::die_of(signo);
  return 128 + signo;
}

}  // namespace ipc
