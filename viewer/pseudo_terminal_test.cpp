#include "viewer/pseudo_terminal_test.hpp"

#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utmp.h>

#include <array>
#include <cstring>

#include "ipc/error.hpp"

namespace viewer {
namespace {

using Clock = std::chrono::steady_clock;

}  // namespace

PseudoTerminal::PseudoTerminal(std::vector<std::string> words, const std::string& locale) {
  struct winsize size {
    24, 80, 0, 0
  };
  int master = -1, slave = -1;
  ipc::check(::openpty(&master, &slave, nullptr, nullptr, &size), "openpty");
  master_.reset(master);
  slave_.reset(slave);
  before_ = settings();
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  std::string term = "TERM=xterm", language = "LC_ALL=" + locale;
  char* const environment[] = {term.data(), language.data(), nullptr};
  const pid_t child = ipc::check(::fork(), "fork");
  if (child != 0) {
    pid_ = child;
    return;
  }
  ::login_tty(slave);
  ::close(master);
  ::execve(argv[0], argv.data(), environment);
  ::_exit(127);
}

PseudoTerminal::~PseudoTerminal() {
  if (pid_ == 0) return;
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

void PseudoTerminal::type(std::string_view keys) {
  if (::write(master_.get(), keys.data(), keys.size()) != static_cast<ssize_t>(keys.size())) ipc::throw_errno("write");
}

void PseudoTerminal::resize(unsigned short width, unsigned short height) {
  struct winsize size {
    height, width, 0, 0
  };
  ipc::check(::ioctl(master_.get(), TIOCSWINSZ, &size), "ioctl TIOCSWINSZ");
}

void PseudoTerminal::signal(int signo) {
  if (pid_ > 0) ::kill(pid_, signo);
}

void PseudoTerminal::hang_up() {
  slave_.reset();
  master_.reset();
}

int PseudoTerminal::unread() const {
  int bytes = 0;
  ipc::check(::ioctl(master_.get(), FIONREAD, &bytes), "ioctl FIONREAD");
  return bytes;
}

bool PseudoTerminal::shows(const std::string& text) {
  for (const auto until = Clock::now() + test_deadline; Clock::now() < until; read_some(20)) {
    if (const auto at = drawn_.find(text); at != std::string::npos) {
      drawn_.erase(0, at + text.size());
      return true;
    }
  }
  return false;
}

int PseudoTerminal::end(bool reading) {
  for (const auto until = Clock::now() + test_deadline; Clock::now() < until;) {
    int status = 0;
    if (pid_ > 0 && ::waitpid(pid_, &status, WNOHANG) == pid_) {
      pid_ = 0;
      if (master_) read_some(0);
      return status;
    }
    if (reading && master_) {
      read_some(20);
    } else {
      (void)::poll(nullptr, 0, 10);
    }
  }
  return -1;
}

bool PseudoTerminal::as_before() const {
  const struct termios now = settings();
  return now.c_iflag == before_.c_iflag && now.c_oflag == before_.c_oflag && now.c_cflag == before_.c_cflag &&
         now.c_lflag == before_.c_lflag && std::memcmp(now.c_cc, before_.c_cc, sizeof now.c_cc) == 0;
}

struct termios PseudoTerminal::settings() const {
  struct termios out {};
  ipc::check(::tcgetattr(slave_.get(), &out), "tcgetattr");
  return out;
}

void PseudoTerminal::read_some(int timeout_ms) {
  pollfd polled{master_.get(), POLLIN, 0};
  if (::poll(&polled, 1, timeout_ms) <= 0 || (polled.revents & POLLIN) == 0) return;
  std::array<char, 65536> buffer;
  const ssize_t n = ::read(master_.get(), buffer.data(), buffer.size());
  if (n > 0) drawn_.append(buffer.data(), static_cast<std::size_t>(n));
}

}  // namespace viewer
