// dsm_sim: random programs over random schedules, on the real cores; what is checked: simulator.hpp.
//
//   $ build/bin/dsm_sim --seed 1 --count 10000
//   $ build/bin/dsm_sim --seed 4711 --count 1 -v        # every step, in words
//
// Exit 0: nothing went wrong; 1: something did, and how to see it again stands on stdout; 2: misuse.
#include <boost/program_options.hpp>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <string>

#include "dsm/core/simulator.hpp"

namespace {

namespace po = boost::program_options;
namespace sim = dsm::core::simulator;

struct Options {
  std::uint64_t seed = 1, count = 10'000;
  sim::Limits limits;
  unsigned threads = 0;
  bool verbose = false;
};

// False: the program is done, with `status`.
bool parse_options(int argc, char** argv, Options& o, int& status) {
  std::string protocol;
  po::options_description options("Options");
  auto add = options.add_options();
  add("help,h", "this text");
  add("seed", po::value(&o.seed)->default_value(o.seed), "of the first schedule; the next one has the next number");
  add("count", po::value(&o.count)->default_value(o.count), "schedules");
  add("protocol", po::value(&protocol)->default_value("both"), "msi, migrate, or both: the seed chooses");
  add("quarrel", po::value(&o.limits.quarrel)->default_value(o.limits.quarrel),
      "how many nodes may run instructions that touch two pages");
  add("threads", po::value(&o.threads)->default_value(o.threads), "of this program; 0: one for each processor");
  add("verbose,v", po::bool_switch(&o.verbose), "print every step");
  status = 2;
  try {
    po::variables_map values;
    po::store(po::command_line_parser(argc, argv).options(options).positional({}).run(), values);
    po::notify(values);
    if (values.count("help") != 0) {
      std::cout << "dsm_sim [options]: random programs over random schedules\n\n" << options << std::flush;
      status = 0;
      return false;
    }
  } catch (const po::error& e) {
    std::cerr << "dsm_sim: " << e.what() << "; see --help" << std::endl;
    return false;
  }
  if (o.limits.quarrel == 0) {
    std::cerr << "dsm_sim: --quarrel must be at least 1\n";
    return false;
  }
  if (protocol == "both") return true;
  o.limits.protocol.emplace();
  if (dsm::core::parse(protocol, *o.limits.protocol)) return true;
  std::cerr << "dsm_sim: no protocol '" << protocol << "'; say msi, migrate or both\n";
  return false;
}

// One schedule after the other, in words.
int tell(const Options& o) {
  for (std::uint64_t i = 0; i < o.count; ++i) {
    std::string trace;
    const sim::Walk walk = sim::walk(o.seed + i, o.limits, &trace);
    std::cout << "seed " << o.seed + i << ": " << walk.world << "\n" << trace;
    if (!walk.violation.empty()) return 1;
  }
  return 0;
}

int simulate(const Options& o) {
  const auto begin = std::chrono::steady_clock::now();
  const sim::Result result = sim::run(o.seed, o.count, o.limits, o.threads);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  if (!result.failed.violation.empty()) {
    std::cout << sim::explain(result, o.limits) << std::flush;
    return 1;
  }
  std::cout << sim::text(result.counts) << std::endl;
  std::printf("nothing wrong; %.1f s, %.0f schedules a second\n", seconds, static_cast<double>(o.count) / seconds);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  int status = 0;
  if (!parse_options(argc, argv, options, status)) return status;
  return options.verbose ? tell(options) : simulate(options);
}
