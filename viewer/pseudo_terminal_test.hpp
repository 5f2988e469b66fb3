// viewer/pseudo_terminal_test.hpp - a program in a pseudo-terminal of 80 x 24, for dsmtop_run_test.
//
// Thread-safety: none.
#pragma once
#include <sys/types.h>
#include <termios.h>

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "ipc/fd.hpp"

namespace viewer {

inline constexpr std::chrono::seconds test_deadline{60};  // for what takes milliseconds on a quiet machine

class PseudoTerminal {
 public:
  // Starts `words` with nothing in its environment but TERM=xterm and LC_ALL=`locale`. Throws std::system_error.
  explicit PseudoTerminal(std::vector<std::string> words, const std::string& locale = "C");
  PseudoTerminal(const PseudoTerminal&) = delete;
  PseudoTerminal& operator=(const PseudoTerminal&) = delete;
  ~PseudoTerminal();  // kills the program if it has not ended

  void type(std::string_view keys);
  void resize(unsigned short width, unsigned short height);
  void signal(int signo);
  void hang_up();                    // the terminal goes away; REQUIRES: nothing but end() is called after
  [[nodiscard]] int unread() const;  // bytes the program has drawn and nobody has read

  // Reads what is drawn until `text` comes by; what was drawn up to there is then forgotten. False after the deadline.
  [[nodiscard]] bool shows(const std::string& text);
  // Waits for the program's end: its status as wait(2) says it, -1 when it does not come. What it draws meanwhile is read
  // unless `reading` is false.
  [[nodiscard]] int end(bool reading = true);
  [[nodiscard]] const std::string& drawn() const { return drawn_; }
  // The terminal's settings are as they were: what `stty -a` shows, rows and columns aside.
  [[nodiscard]] bool as_before() const;

 private:
  [[nodiscard]] struct termios settings() const;
  void read_some(int timeout_ms);

  ipc::Fd master_, slave_;
  struct termios before_ {};
  pid_t pid_ = 0;  // 0: none
  std::string drawn_;
};

}  // namespace viewer
