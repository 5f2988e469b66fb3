// dsm/tests/litmus.hpp - litmus tests: a few accesses of a few ranks to a few locations, and what may come out.
//
// Used by dsm_litmus (litmus.cpp), which runs them on real ranks, and by litmus_test. Plain values, no shared memory.
// The names of the tests: J. Alglave, L. Maranget, M. Tautschnig, "Herding cats", ACM TOPLAS 36(2), 2014.
#pragma once
#include <cstddef>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace litmus {

struct Access {
  bool store;
  std::size_t location;
  unsigned value;  // stored: 1 to 3; a location begins as 0
};
inline Access store(std::size_t location, unsigned value) { return {true, location, value}; }
inline Access load(std::size_t location) { return {false, location, 0}; }

// One digit for each load, rank by rank, in program order; then, where they are asked for, each location's last value.
using Outcome = std::string;

struct Shape {
  std::string name;
  std::size_t locations;                        // each on a page of its own
  std::vector<std::vector<Access>> ranks;       // in program order; further ranks take no part
  bool last_values = false;                     // whether they are part of the outcome
  std::vector<std::vector<std::size_t>> homes;  // of the locations' pages, in turns from round to round
  // With random delays each allowed outcome is seen in so many percent of the rounds; 0: at least once; none: any.
  std::optional<double> rarest_percent;
};

// The shapes that `name` stands for: sb, mp, iriw, corr, two-homes-sb, two-homes-mp, two-homes-2+2w; two-homes: the
// last three. None if there is no such name.
std::vector<Shape> shapes(std::string_view name);

// What sequential consistency allows: the outcomes of all interleavings.
std::set<Outcome> allowed(const Shape& shape);

// "r0=0 r1=1 x=2"
std::string text(const Shape& shape, const Outcome& outcome);

}  // namespace litmus
