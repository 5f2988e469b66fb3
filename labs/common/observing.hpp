// labs/common/observing.hpp - a lab's program, run and seen from outside: its lines, its children, what it leaves.
//
// For tests only. The programs are those of build/bin; each run has a folder of its own as current folder and TMPDIR, and
// leads a process group and a session of its own. Nothing here waits for a length of time: only for a condition, with a
// deadline.
#pragma once
#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iterator>
#include <optional>
#include <random>

#include "ipc/fd.hpp"
#include "testing.hpp"

namespace ipc::testing {

// Whole programs take longer than single functions: see `watchdog` in testing.hpp.
inline const unsigned longer_watchdog = ::alarm(280);

// The build's own folder: that of the test program's folder.
inline std::string build_folder() {
  return std::filesystem::read_symlink("/proc/self/exe").parent_path().parent_path().string();
}
// build/bin/NAME.
inline std::string program_path(const std::string& name) { return build_folder() + "/bin/" + name; }

// ---- looking at processes ----

inline std::vector<pid_t> children_of(pid_t pid) {
  std::vector<pid_t> result;
  std::error_code gone;
  for (const auto& task : std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task", gone)) {
    std::istringstream children(read_text(task.path().string() + "/children"));
    for (pid_t child = 0; children >> child;) result.push_back(child);
  }
  return result;
}
// 'R' running, 'S' sleeping, 'T' stopped, 'Z' zombie ...; 0: there is none of this number. See proc(5).
inline char state_of(pid_t pid) {
  const std::string text = status_field(std::to_string(pid), "State");
  return text.empty() ? '\0' : text.front();
}
inline bool exists(pid_t pid) { return state_of(pid) != '\0'; }
// Neither there nor only waiting to be reaped.
inline bool is_alive(pid_t pid) {
  const char state = state_of(pid);
  return state != '\0' && state != 'Z' && state != 'X';
}
// Fields of /proc/PID/stat from the third on (state), so that [0] is field 3 of proc(5).
inline std::vector<std::string> stat_fields(pid_t pid) {
  const std::string text = read_text("/proc/" + std::to_string(pid) + "/stat");
  std::istringstream rest(text.substr(std::min(text.rfind(')') + 1, text.size())));
  return {std::istream_iterator<std::string>(rest), std::istream_iterator<std::string>()};
}
// Processor time used so far, user and system, in seconds.
inline double cpu_seconds(pid_t pid) {
  const auto fields = stat_fields(pid);
  if (fields.size() < 13) return 0;
  return (std::stod(fields[11]) + std::stod(fields[12])) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}
// All processes of a session, zombies too.
inline std::vector<pid_t> session_members(pid_t session) {
  std::vector<pid_t> result;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    const std::string name = entry.path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    const pid_t pid = std::stoi(name);
    const auto fields = stat_fields(pid);
    if (fields.size() > 3 && fields[3] == std::to_string(session)) result.push_back(pid);
  }
  return result;
}

// A System V segment as the kernel lists it in /proc/sysvipc/shm.
struct ListedSegment {
  int id;
  pid_t creator, last_user;
  std::size_t attached;
  bool removed;  // IPC_RMID: it goes with its last attachment; `ipcs` says "dest"
};
inline std::vector<ListedSegment> system_v_segments() {
  std::vector<ListedSegment> result;
  std::istringstream table(read_text("/proc/sysvipc/shm"));
  std::string line;
  std::getline(table, line);  // the heading
  while (std::getline(table, line)) {
    std::istringstream row(line);
    long key = 0, size = 0;
    unsigned mode = 0;
    ListedSegment segment{};
    if (row >> key >> segment.id >> std::oct >> mode >> std::dec >> size >> segment.creator >> segment.last_user >>
        segment.attached) {
      segment.removed = (mode & SHM_DEST) != 0;
      result.push_back(segment);
    }
  }
  return result;
}

// ---- a run ----

struct RunOptions {
  std::string input = {};                     // on standard input, then end of file
  std::vector<std::string> environment = {};  // "NAME=value", beside the present ones
  std::string folder = {};                    // current folder; empty: one of its own
};

class Started {
 public:
  // `arguments`: argv; [0] a program of build/bin, or a path.
  explicit Started(std::vector<std::string> arguments, const RunOptions& options = {}) {
    if (arguments.front().find('/') == std::string::npos) arguments.front() = program_path(arguments.front());
    const std::string folder = options.folder.empty() ? folder_.path() : options.folder;
    std::ofstream(own_path("input")) << options.input;
    int out[2], err[2];
    if (::pipe2(out, O_CLOEXEC) == -1 || ::pipe2(err, O_CLOEXEC) == -1) throw std::runtime_error("pipe2");
    out_ = Stream{Fd(out[0])}, err_ = Stream{Fd(err[0])};
    const Fd out_write(out[1]), err_write(err[1]);
    const Fd in(::open(own_path("input").c_str(), O_RDONLY | O_CLOEXEC));
    std::vector<std::string> environment = options.environment;
    environment.push_back("TMPDIR=" + private_.path());
    // A signal for it that comes before it has the dispositions that it is to start with waits until then: ours may
    // ignore SIGINT, as a background job's do.
    sigset_t all, before;
    sigfillset(&all);
    ::sigprocmask(SIG_SETMASK, &all, &before);
    pid_ = ::fork();
    if (pid_ != 0) ::sigprocmask(SIG_SETMASK, &before, nullptr);
    if (pid_ == -1) throw std::runtime_error("fork");
    if (pid_ == 0) exec(arguments, environment, folder, in.get(), out_write.get(), err_write.get());
  }
  Started(const Started&) = delete;
  Started& operator=(const Started&) = delete;
  // Ends what is left of it.
  ~Started() {
    for (const pid_t pid : session_members(session_)) {
      if (pid != pid_ && pid > 1) ::kill(pid, SIGKILL);
    }
    if (!status_) {
      kill_child(pid_, SIGKILL);
      wait();
    }
  }

  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] const std::string& folder() const { return folder_.path(); }
  // Sends a signal to it, and only to it; -1 if it has ended.
  int signal(int signo) const { return status_ ? -1 : kill_child(pid_, signo); }

  // The next line of its standard output; nothing at end of file, or when the deadline has passed.
  std::optional<std::string> line(std::chrono::milliseconds deadline = long_enough) { return next(out_, deadline); }
  std::optional<std::string> error_line(std::chrono::milliseconds deadline = long_enough) {
    return next(err_, deadline);
  }
  // All lines up to end of file: until nobody can write there any more.
  std::vector<std::string> lines(std::chrono::milliseconds deadline = long_enough) { return rest(out_, deadline); }
  std::vector<std::string> error_lines(std::chrono::milliseconds deadline = long_enough) {
    return rest(err_, deadline);
  }
  // Nobody reads its standard output any more.
  void close_output() { out_.fd.reset(); }

  // Has it ended? Does not reap it, so that its number stays its own.
  [[nodiscard]] bool ended() const { return status_ || has_ended(pid_); }
  // Waits for its end and returns the exit code, or 128 + the signal that ended it; -1 and a message when it does not
  // end (it is killed then). Its output is read on the way.
  int wait(std::chrono::milliseconds deadline = long_enough) {
    if (!status_) {
      const bool in_time = wait_until(
          [this] {
            fill(out_, 0), fill(err_, 0);
            return ended();
          },
          deadline);
      if (!in_time) {
        std::fprintf(stderr, "process %d does not end: state %c\n", pid_, state_of(pid_));
        kill_child(pid_, SIGKILL);
      }
      int status = 0;
      while (::waitpid(pid_, &status, 0) == -1 && errno == EINTR) continue;
      status_ = in_time ? (WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status)) : -1;
    }
    return *status_;
  }
  // Living processes that it started and left, whoever their parent is now. A moment is given to those that have just
  // been told to end.
  std::vector<pid_t> left_processes() const {
    std::vector<pid_t> left;
    wait_until(
        [&] {
          left = session_members(session_);
          std::erase(left, pid_);
          std::erase_if(left, [](pid_t pid) { return !exists(pid); });
          return left.empty();
        },
        std::chrono::seconds(2));
    return left;
  }

 private:
  struct Stream {
    Fd fd;
    std::string text = {};
  };

  [[noreturn]] static void exec(const std::vector<std::string>& arguments, const std::vector<std::string>& environment,
                                const std::string& folder, int in, int out, int err) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // a test that is killed leaves nothing running
    ::setsid();
    for (int signo = 1; signo < 32; ++signo) ::signal(signo, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    std::vector<char*> argv;
    for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
    argv.push_back(nullptr);
    for (const std::string& variable : environment) ::putenv(const_cast<char*>(variable.c_str()));
    if (::dup2(in, 0) != -1 && ::dup2(out, 1) != -1 && ::dup2(err, 2) != -1 && ::chdir(folder.c_str()) == 0) {
      ::execv(argv.front(), argv.data());
    }
    std::fprintf(stderr, "%s: %s\n", argv.front(), std::strerror(errno));
    ::_exit(127);
  }

  [[nodiscard]] std::string own_path(const char* name) const { return private_.path(name); }

  // Reads what comes within `timeout_ms`. False at end of file.
  static bool fill(Stream& stream, int timeout_ms) {
    while (stream.fd) {
      pollfd wanted{stream.fd.get(), POLLIN, 0};
      if (::poll(&wanted, 1, timeout_ms) <= 0) return true;
      char buffer[65536];
      const ssize_t count = ::read(stream.fd.get(), buffer, sizeof buffer);
      if (count <= 0) {
        stream.fd.reset();
        return false;
      }
      stream.text.append(buffer, static_cast<std::size_t>(count));
      timeout_ms = 0;
    }
    return false;
  }
  static std::optional<std::string> next(Stream& stream, std::chrono::milliseconds deadline) {
    const auto end = std::chrono::steady_clock::now() + deadline;
    for (;;) {
      if (const auto newline = stream.text.find('\n'); newline != std::string::npos) {
        std::string line = stream.text.substr(0, newline);
        stream.text.erase(0, newline + 1);
        return line;
      }
      const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
      if (left.count() <= 0) return std::nullopt;
      if (!fill(stream, static_cast<int>(left.count())) && stream.text.find('\n') == std::string::npos) {
        if (stream.text.empty()) return std::nullopt;
        return std::exchange(stream.text, {});  // the last line lacks its newline
      }
    }
  }
  static std::vector<std::string> rest(Stream& stream, std::chrono::milliseconds deadline) {
    std::vector<std::string> result;
    while (auto line = next(stream, deadline)) result.push_back(std::move(*line));
    return result;
  }

  TempDir folder_, private_;
  Stream out_, err_;
  pid_t pid_ = -1;
  const pid_t& session_ = pid_;
  std::optional<int> status_;
};

struct Outcome {
  int code;  // exit code, 128 + signal, or -1: it did not end
  std::vector<std::string> out, err;
};
// Runs a program to its end.
inline Outcome run(std::vector<std::string> arguments, const RunOptions& options = {}) {
  Started started(std::move(arguments), options);
  const int code = started.wait();
  return {code, started.lines(std::chrono::seconds(5)), started.error_lines(std::chrono::seconds(5))};
}

// As somebody who may not do everything, if we are root: he need not be able to walk to build/bin, so the program is
// copied to where he can. `before`: a command line that goes between, such as prlimit's.
inline std::vector<std::string> as_ordinary_user(const TempDir& open_to_all, std::vector<std::string> command,
                                                 const std::vector<std::string>& before = {}) {
  const std::string copy = open_to_all.path(command.front());
  ::chmod(open_to_all.path().c_str(), 0755);
  std::filesystem::copy_file(program_path(command.front()), copy);
  ::chmod(copy.c_str(), 0755);
  command.front() = copy;
  command.insert(command.begin(), before.begin(), before.end());
  if (::geteuid() == 0) {
    const std::vector<std::string> drop = {"/usr/bin/setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"};
    command.insert(command.begin(), drop.begin(), drop.end());
  }
  return command;
}

// It has failed, with one line that has `text` in it and nothing on standard output.
inline void expect_error(const Outcome& outcome, const std::string& text, int code = 1) {
  EXPECT_EQ(outcome.code, code);
  EXPECT_EQ(outcome.out, std::vector<std::string>{});
  ASSERT_EQ(outcome.err.size(), 1U) << ::testing::PrintToString(outcome.err);
  EXPECT_NE(outcome.err.front().find(text), std::string::npos) << outcome.err.front();
}
// Of all that it started nothing runs any more. (Zombies of a killed parent are init's, who takes his time.)
inline bool none_alive(const Started& program) {
  return wait_until([&] {
    const auto members = session_members(program.pid());
    return std::none_of(members.begin(), members.end(), is_alive);
  });
}

// ---- at any moment ----

struct Moment {
  int signo;
  std::chrono::microseconds delay;  // after the start
};
// When to send which of the signals: `quick` moments, or as many as the environment's LAB_TEST_RUNS says. The seed is
// printed; LAB_TEST_SEED repeats a run.
inline std::vector<Moment> random_moments(const std::vector<int>& signals, std::chrono::microseconds latest,
                                          int quick = 30) {
  const char* const runs = std::getenv("LAB_TEST_RUNS");
  const char* const given = std::getenv("LAB_TEST_SEED");
  const unsigned long seed = given != nullptr ? std::stoul(given) : std::random_device{}();
  std::printf("LAB_TEST_SEED=%lu\n", seed);
  std::mt19937_64 random(seed);
  std::vector<Moment> moments(runs != nullptr ? std::stoul(runs) : static_cast<unsigned long>(quick));
  for (Moment& moment : moments) {
    moment.signo = signals[random() % signals.size()];
    moment.delay = std::chrono::microseconds(random() % static_cast<unsigned long>(latest.count()));
  }
  return moments;
}

// ---- under valgrind ----

// The sanitizer that this test program, and so the programs, are built with; empty: none. Preloading, valgrind and
// ptrace do not go together with one. (UBSan defines no macro: make and the runner say it.)
inline std::string sanitizer() {
#if defined(__SANITIZE_ADDRESS__)
  return "address";
#elif defined(__SANITIZE_THREAD__)
  return "thread";
#else
  const char* const told = std::getenv("SANITIZER");
  return told != nullptr ? told : "";
#endif
}

struct Checked {
  Outcome outcome;
  std::vector<std::string> complaints;  // errors, lost memory, descriptors left open; of its children, too
};
// What it says in the logs of a folder, of all processes that came to their end.
inline std::vector<std::string> valgrind_complaints(const std::string& logs) {
  std::vector<std::string> complaints;
  int summaries = 0;
  for (const auto& file : std::filesystem::directory_iterator(logs)) {
    std::ifstream log(file.path());
    std::string open;
    for (std::string line; std::getline(log, line);) {
      const std::string text = line.substr(std::min(line.size(), line.find("== ") + 3));
      if (!open.empty() && text.find("<inherited from parent>") == std::string::npos) complaints.push_back(open);
      open = text.rfind("Open ", 0) == 0 ? text : "";
      if (text.rfind("ERROR SUMMARY: ", 0) != 0) continue;
      ++summaries;
      if (text.rfind("ERROR SUMMARY: 0 ", 0) != 0) complaints.push_back(read_text(file.path().string()));
    }
  }
  if (summaries == 0) complaints.emplace_back("valgrind did not run");
  return complaints;
}
// Puts valgrind before a program.
inline std::vector<std::string> under_valgrind(std::vector<std::string> arguments, const TempDir& logs) {
  arguments.front() = program_path(arguments.front());
  arguments.insert(arguments.begin(), {"/usr/bin/valgrind", "--leak-check=full", "--track-fds=yes",
                                       "--error-exitcode=99", "--log-file=" + logs.path("%p")});
  return arguments;
}
inline Checked run_under_valgrind(const std::vector<std::string>& arguments, const RunOptions& options = {}) {
  const TempDir logs;
  Outcome outcome = run(under_valgrind(arguments, logs), options);
  return {std::move(outcome), valgrind_complaints(logs.path())};
}
// Sends it SIGTERM in the middle of its work: when `ready` says so; without one, when it has said its first line.
inline Checked stop_under_valgrind(const std::vector<std::string>& arguments,
                                   const std::function<bool(Started&)>& ready = {}) {
  const TempDir logs;
  Started program(under_valgrind(arguments, logs));
  const bool working = ready ? wait_until([&] { return ready(program); }) : program.line().has_value();
  EXPECT_TRUE(working) << arguments.front() << " does not come to its work";
  program.signal(SIGTERM);
  const int code = program.wait();
  EXPECT_EQ(code, 128 + SIGTERM) << arguments.front();
  return {{code, program.lines(), program.error_lines()}, valgrind_complaints(logs.path())};
}

}  // namespace ipc::testing
