// dsm/tests/fuzz/harness.hpp - the fuzzers: one function for each parser, which takes any bytes there are.
//
// Each feeds its parser and checks what must hold whatever came: what is taken is within its ranges and comes back as
// it was; what is refused is refused with one line. `make fuzz` has libFuzzer call them (driver.cpp), `make test` runs
// the corpus and some mutations of it (fuzz_test.cpp). They keep nothing from one call to the next, so that bytes that
// broke something once break it again. Thread-safety: none.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <ostream>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>

namespace dsm::fuzz {

using Input = std::span<const std::uint8_t>;

void machine_file(Input input);  // the text
void frame(Input input);         // headers, and the streams of Channel and Link
void message(Input input);       // JSON: of dsmexec and its agents, of ranks and the coordinator
void handshake(Input input);     // both roles, the door, and what comes from one who has the key
void classroom(Input input);     // clients of an open rendezvous
void sealed(Input input);        // what was sealed, and changed on its way
void sysv(Input input);          // frames of System V IPC, and agents that say them

struct Harness {
  const char* name;
  void (*run)(Input);
  friend void PrintTo(const Harness& harness, std::ostream* out) { *out << harness.name; }  // GoogleTest's
};
inline constexpr std::array<Harness, 7> harnesses = {{{"machine_file", machine_file},
                                                      {"frame", frame},
                                                      {"message", message},
                                                      {"handshake", handshake},
                                                      {"classroom", classroom},
                                                      {"sealed", sealed},
                                                      {"sysv", sysv}}};

// A property does not hold. Nobody here catches it: to libFuzzer that is a crash, to GoogleTest a failure.
struct Broken : std::logic_error {
  using std::logic_error::logic_error;
};
void check(bool holds, const char* what);
// `text` can stand in a message to the user: one line, not empty, no control characters.
void check_line(std::string_view text, const char* what);

// Decisions, taken from the front of the input. At its end all that are left are 0.
class Script {
 public:
  explicit Script(Input input) : left_(input) {}
  [[nodiscard]] bool is_over() const { return left_.empty(); }
  std::uint8_t byte();
  std::size_t below(std::size_t limit) { return byte() % limit; }  // REQUIRES: 0 < limit
  std::string bytes(std::size_t most);
  std::string rest() { return bytes(left_.size()); }

 private:
  Input left_;
};

}  // namespace dsm::fuzz
