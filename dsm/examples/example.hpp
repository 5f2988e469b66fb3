// dsm/examples/example.hpp - what the examples share: their command line, and joining the job or saying why not.
#pragma once
#include <dsm/dsm.h>

#include <boost/program_options.hpp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <string>

namespace example {

namespace po = boost::program_options;

// Reads the command line. Ends the program after --help (0), printed by one rank only, and after misuse (2).
inline po::variables_map command_line(int argc, char** argv, const char* summary, po::options_description options) {
  const std::string name = std::strrchr(argv[0], '/') != nullptr ? std::strrchr(argv[0], '/') + 1 : argv[0];
  options.add_options()("help,h", "print this and exit");
  try {
    po::variables_map values;
    po::store(po::command_line_parser(argc, argv).options(options).positional({}).run(), values);
    po::notify(values);
    if (values.count("help") == 0) return values;
  } catch (const po::error& e) {
    std::cerr << name << ": " << e.what() << "; see --help" << std::endl;
    std::exit(2);
  }
  const char* rank = std::getenv("DSMEXEC_RANKID");
  if (rank == nullptr || std::strcmp(rank, "0") == 0) {
    std::cout << "dsmexec machine_file " << name << " [options]: " << summary << "\n\n" << options << std::flush;
  }
  std::exit(0);
}

// dsm_init, with whole lines on stdout from here on. Returns the base of the region; ends the program if there is none.
inline char* join(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  char* base = dsm_init(argc, argv);
  if (base != nullptr) return base;
  std::perror("dsm_init");
  std::exit(1);
}

}  // namespace example
