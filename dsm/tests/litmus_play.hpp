// dsm/tests/litmus_play.hpp - plays litmus tests (litmus.hpp) on memory that is really shared, and judges what comes out.
//
// Used by dsm_litmus, on the region of a job, and by dshm_litmus, on a System V segment. Every member calls run() with the
// same shape and options. Each round has words of its own that nobody has written, so nothing is ever reset. It begins at
// a barrier, with the pages where earlier rounds, and a few random touches, have left them. Member 0 prints a line for
// each outcome.
#pragma once
#include <cstddef>
#include <string>

#include "dsm/tests/litmus.hpp"

namespace litmus {

struct Options {
  std::string name, delays = "on", frequencies = "on";
  std::size_t rounds = 10000;
  unsigned seed = 1;
};

// Memory, and who shares it.
class Ground {
 public:
  virtual ~Ground() = default;
  [[nodiscard]] virtual std::size_t me() const = 0;  // the shape's rank that this one plays, if there is one
  [[nodiscard]] virtual std::size_t members() const = 0;
  [[nodiscard]] virtual std::size_t page_bytes() const = 0;
  [[nodiscard]] virtual char* base() const = 0;  // where page 0 is
  // The same place for all members, who all ask for the same; zero to begin with. nullptr and errno: there is no room.
  [[nodiscard]] virtual char* allocate(std::size_t bytes) = 0;
  [[nodiscard]] virtual bool barrier() = 0;  // false: it has failed, and that has been said
};

// False when an outcome is forbidden, or when one that is allowed is too rare (with delays: without them nobody says what
// is rare); on stderr is which. True of all members but 0, whatever comes out.
bool run(const Shape& shape, const Options& options, Ground& ground);

// Whether there are tests of that name, and the switches are switches.
bool understood(const Options& options);

// Those that `options` names, one after another; `program` is who complains that there are too few members.
bool run_all(const Options& options, Ground& ground, const char* program);

}  // namespace litmus
