#define NCURSES_WIDECHAR 1
#include "viewer/shell.hpp"

#include <ncurses.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <optional>

#include "ipc/signals.hpp"
#include "viewer/grid.hpp"
#include "viewer/render.hpp"
#include "viewer/session.hpp"

namespace viewer {
namespace {

// What the handlers touch. A terminal that takes no more output would hold us in write(2) for ever, and ncurses goes on
// after EINTR: so a signal that ends us also sets an alarm, and the alarm ends us without a last word to the screen.
volatile sig_atomic_t leave_by = 0;
volatile sig_atomic_t resized = 0;
struct termios terminal_before;

void on_leave(int signo, siginfo_t*, void*) {
  leave_by = signo;
  ::alarm(2);
}

void on_resize(int, siginfo_t*, void*) { resized = 1; }

void on_alarm(int, siginfo_t*, void*) {
  if (leave_by == 0) return;
  ::tcsetattr(STDIN_FILENO, TCSANOW, &terminal_before);
  ::signal(leave_by, SIG_DFL);
  ::raise(leave_by);
}

class Terminal {
 public:
  explicit Terminal(bool color) {
    ::tcgetattr(STDIN_FILENO, &terminal_before);
    screen_ = newterm(nullptr, stdout, stdin);
    if (screen_ == nullptr) return;
    cbreak();
    noecho();
    nonl();
    keypad(stdscr, TRUE);
    nodelay(stdscr, TRUE);
    set_escdelay(25);
    curs_set(0);
    color_ = color && has_colors() && start_color() == OK && use_default_colors() == OK;
    for (short i = 1; color_ && i <= 6; ++i) init_pair(i, i, -1);
  }
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;
  ~Terminal() {
    if (screen_ == nullptr) return;
    curs_set(1);
    endwin();
    delscreen(screen_);
    // endwin restores what newterm found; this is for what an interrupted endwin may have left out.
    ::tcsetattr(STDIN_FILENO, TCSANOW, &terminal_before);
  }

  [[nodiscard]] bool works() const { return screen_ != nullptr; }
  [[nodiscard]] Size size() const { return {COLS, LINES}; }

  void resize() {
    struct winsize now {};
    if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &now) != 0 || now.ws_row == 0 || now.ws_col == 0) return;
    resizeterm(now.ws_row, now.ws_col);
    clearok(stdscr, TRUE);
  }

  void show(const Grid& grid) {
    for (int y = 0; y < grid.size().height; ++y) {
      for (int x = 0; x < grid.size().width; ++x) {
        const Cell& cell = grid.at(x, y);
        const wchar_t text[2] = {static_cast<wchar_t>(cell.character), 0};
        const attr_t attributes = (cell.style.bold ? A_BOLD : A_NORMAL) | (cell.style.reverse ? A_REVERSE : A_NORMAL);
        cchar_t shown;
        setcchar(&shown, text, attributes, static_cast<short>(color_ ? cell.style.color : 0), nullptr);
        mvadd_wch(y, x, &shown);
      }
    }
    refresh();
  }

  // Key::other for a key that means nothing; empty when there is none now.
  [[nodiscard]] static std::optional<Key> key() {
    switch (getch()) {
      case ERR:
        return std::nullopt;
      case 'q':
      case 'Q':
        return Key::quit;
      case '?':
      case 'h':
      case KEY_F(1):
        return Key::help;
      case ' ':
        return Key::pause;
      case KEY_LEFT:
        return Key::left;
      case KEY_RIGHT:
        return Key::right;
      case KEY_UP:
        return Key::up;
      case KEY_DOWN:
        return Key::down;
      case KEY_PPAGE:
        return Key::page_up;
      case KEY_NPAGE:
        return Key::page_down;
      default:
        return Key::other;
    }
  }

 private:
  SCREEN* screen_ = nullptr;
  bool color_ = false;
};

bool takes_output() {
  pollfd out{STDOUT_FILENO, POLLOUT, 0};
  return ::poll(&out, 1, 0) > 0 && (out.revents & POLLOUT) != 0;
}

// Waits for a key, an answer, a signal or the next turn. False when it is time to leave.
bool wait(int answers, const sigset_t& signals) {
  // Closed from the look at the flags until ppoll has begun to wait, so that no signal falls between the two.
  const ipc::ScopedMask closed(signals);
  if (leave_by != 0) return false;
  if (resized != 0) return true;
  pollfd polled[2] = {{STDIN_FILENO, POLLIN, 0}, {answers, POLLIN, 0}};
  const timespec next{0, std::chrono::nanoseconds(Session::ask_every).count()};
  const int ready = ::ppoll(polled, 2, &next, &closed.previous());
  return leave_by == 0 && (ready <= 0 || (polled[0].revents & (POLLHUP | POLLERR | POLLNVAL)) == 0);
}

void watch(Terminal& terminal, const ShellOptions& options, const sigset_t& signals) {
  Session session(options.job);
  Model model;
  View view;
  view.utf8 = options.utf8;
  std::optional<Grid> shown;
  do {
    if (resized != 0) {
      resized = 0;
      terminal.resize();
      shown.reset();
    }
    while (const auto key = Terminal::key()) {
      if (!apply(*key, view, model, terminal.size())) return;
    }
    session.turn(std::chrono::steady_clock::now(), model, view);
    Grid next = render(model, view, terminal.size());
    if (next != shown && takes_output()) {
      terminal.show(next);
      shown = std::move(next);
    }
  } while (wait(session.fd(view), signals));
}

}  // namespace

int run_shell(const ShellOptions& options) {
  const sigset_t signals = ipc::signal_set({SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGWINCH});
  bool works = false;
  {
    // Before the terminal, so that ncurses finds them taken and leaves them alone, and they outlive it.
    const ipc::ScopedAction term(SIGTERM, on_leave, 0), interrupt(SIGINT, on_leave, 0), hangup(SIGHUP, on_leave, 0),
        quit(SIGQUIT, on_leave, 0), window(SIGWINCH, on_resize, 0), alarm(SIGALRM, on_alarm, 0);
    Terminal terminal(options.color);
    works = terminal.works();
    if (works) watch(terminal, options, signals);
  }
  if (leave_by != 0) {
    ::signal(leave_by, SIG_DFL);
    ::raise(leave_by);
  }
  if (works) return 0;
  std::fputs("dsmtop: this terminal is not known to ncurses; set TERM, or try --once\n", stderr);
  return 1;
}

}  // namespace viewer
