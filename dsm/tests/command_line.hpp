// dsm/tests/command_line.hpp - what the programs dsm_stress and dsm_litmus begin and end with: their command line, and the
// job around what they do.
#pragma once
#include <dsm/dsm.h>

#include <boost/program_options.hpp>
#include <cstdio>
#include <iostream>
#include <optional>

namespace command_line {

// Stores what the command line says where `options` says; `operand` is the option that takes what is no option. The exit
// code, if the program is to end here: 0 after --help, 2 after misuse.
inline std::optional<int> read(int argc, char** argv, const char* program,
                               const boost::program_options::options_description& options, const char* operand) {
  namespace po = boost::program_options;
  po::positional_options_description positional;
  positional.add(operand, 1);
  try {
    po::variables_map map;
    po::store(po::command_line_parser(argc, argv).options(options).positional(positional).run(), map);
    if (map.count("help") != 0) {
      std::cout << options;
      return 0;
    }
    po::notify(map);
  } catch (const po::error& e) {
    std::fprintf(stderr, "%s: %s; see --help\n", program, e.what());
    return 2;
  }
  return std::nullopt;
}

// Joins the job, runs `body(base of the region)`, which says whether all was well, and leaves. The exit code.
template <class Body>
int run_in_job(int argc, char** argv, Body body) {
  char* const region = dsm_init(argc, argv);
  if (region == nullptr) return 1;
  const bool ok = body(region);
  std::fflush(stdout);
  dsm_finalize();
  return ok ? 0 : 1;
}

}  // namespace command_line
