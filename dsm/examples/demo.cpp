// demo - four ways of sharing pages, slow enough to watch in dsmtop.
//
// The acts: many read what one writes; one page goes round; neighbours in one page disturb each other; and a picture is
// smoothed by all ranks together. Each act knows what must come out, by a serial run of the same thing, and checks it.
//
//   $ make demo                                            in one terminal
//   $ build/bin/dsmtop                                     in another
//   $ build/bin/dsmexec machine_file demo --seconds 60     slower
//   $ build/bin/dsmexec machine_file demo | tail -1        not on a terminal: quick
//   [Proc 0 : localhost : stdout] demo: OK
#include <unistd.h>

#include <algorithm>
#include <stdexcept>

#include "dsm/examples/acts.hpp"
#include "dsm/examples/example.hpp"

namespace {

using std::chrono::milliseconds;
namespace po = example::po;

constexpr int longest_s = 24 * 3600;
constexpr int slowest_ms = 60'000;

// dsmexec tells its ranks whether its own stdout is a terminal.
bool somebody_watches() {
  if (const char* told = std::getenv("DSMEXEC_TTY")) return std::strcmp(told, "1") == 0;
  return std::getenv("DSMEXEC_RANKID") == nullptr && isatty(STDOUT_FILENO) == 1;
}

void expect_within(int value, int most, const char* option) {
  if (value >= 0 && value <= most) return;
  throw po::error(std::string("--") + option + " " + std::to_string(value) + ": a number from 0 to " +
                  std::to_string(most) + " is needed");
}

example::Pace choose_pace(int argc, char** argv) {
  po::options_description options("Options");
  options.add_options()  //
      ("pace", po::value<int>()->value_name("MS")->notifier([](int v) { expect_within(v, slowest_ms, "pace"); }),
       "show each step for so many milliseconds (default: 400 if dsmexec's stdout is a terminal, else 0)")  //
      ("seconds", po::value<int>()->value_name("N")->notifier([](int v) { expect_within(v, longest_s, "seconds"); }),
       "take about so long in all (default: 25 if dsmexec's stdout is a terminal, else as long as it takes)");
  const po::variables_map values =
      example::command_line(argc, argv, "four ways of sharing pages, to be watched in dsmtop", options);
  example::Pace pace;
  if (values.count("seconds") > 0) {
    pace.total = std::chrono::seconds(values["seconds"].as<int>());
  } else if (values.count("pace") == 0 && somebody_watches()) {
    pace.total = std::chrono::seconds(25);
  }
  // Without a word on the pace, at least some sixty steps in the time there is.
  pace.step =
      values.count("pace") > 0 ? milliseconds(values["pace"].as<int>()) : std::min(milliseconds(400), pace.total / 60);
  return pace;
}

}  // namespace

int main(int argc, char** argv) {
  const example::Pace pace = choose_pace(argc, argv);
  example::Stage stage(example::join(argc, argv), pace);
  if (DSM_NODE_ID == 0) {
    std::printf("demo: %d ranks, pages of %zu bytes%s\n", DSM_NODE_NUM, dsm_page_size(),
                pace.watched() ? "; watch them move with dsmtop in another terminal" : "");
  }
  try {
    example::read_sharing(stage);
    example::ping_pong(stage);
    example::false_sharing(stage);
    example::stencil(stage);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "demo: %s\n", e.what());
    return 1;  // without dsm_finalize: dsmexec stops the others
  }
  const bool good = stage.good();
  dsm_finalize();
  if (DSM_NODE_ID == 0) std::printf(good ? "demo: OK\n" : "demo: FAILED\n");
  return good ? 0 : 1;
}
