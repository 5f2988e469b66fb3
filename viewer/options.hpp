// viewer/options.hpp - dsmtop's command line.
#pragma once
#include <stdexcept>
#include <string>

namespace viewer {

struct Options {
  enum class What { watch, list, once, json, batch, help, version };
  enum class Color { automatic, never, always };
  What what = What::watch;
  std::string job;  // empty: the newest
  Color color = Color::automatic;
  bool ascii = false;
  int frames = 0;    // batch
  std::string help;  // the text, for What::help
};

// One clear line about what is wrong; exit status 2.
struct Misuse : std::runtime_error {
  using std::runtime_error::runtime_error;
};

[[nodiscard]] Options parse_options(int argc, const char* const* argv);  // throws Misuse

}  // namespace viewer
