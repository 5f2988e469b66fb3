// jacobi - two grids and a barrier: only the rows at the edges travel.
//
// Heat spreads over a plate that is warm here and cold there, and whose edges stay as they are. In each round every
// cell becomes the mean of its four neighbours. All ranks read one grid and write the other, each its own block of
// rows, so nobody reads what somebody writes; the barrier ends the round, and the grids change places. A rank needs,
// besides its own rows, only the last row of the block above and the first of the block below: two pages a round (rows
// of 512 numbers are a page), however many rows there are.
//
// The same numbers are added in the same order as in the serial run, so the result is the same bit for bit.
//
// In dsmtop: long runs of one letter, capital (written by their owner); where two runs meet, letters that change
// between small (the neighbour has a copy) and capital.
//
//   $ build/bin/dsmexec machine_file jacobi --size 1024 --rounds 200
//   [Proc 0 : localhost : stdout] jacobi: OK
#include "dsm/examples/example.hpp"

namespace {

using Grid = example::Rows<double>;

// One round over these rows.
void relax(const Grid& from, Grid& to, example::Range rows, std::size_t size) {
  for (std::size_t row = rows.begin; row < rows.end; ++row) {
    const double *above = from[row - 1], *here = from[row], *below = from[row + 1];
    double* out = to[row];
    for (std::size_t i = 1; i + 1 < size; ++i) out[i] = (above[i] + below[i] + here[i - 1] + here[i + 1]) / 4;
  }
}

// All of it by one rank.
Grid serial(const Grid& shape, std::size_t size, std::size_t rounds) {
  Grid even = shape.alone(), odd = shape.alone();
  even.fill({1, size - 1});
  odd.fill({1, size - 1});
  for (std::size_t round = 0; round < rounds; ++round) {
    relax(round % 2 == 0 ? even : odd, round % 2 == 0 ? odd : even, {1, size - 1}, size);
  }
  return rounds % 2 == 0 ? std::move(even) : std::move(odd);
}

}  // namespace

int main(int argc, char** argv) {
  std::size_t size = 0, rounds = 0;
  example::Program program(argc, argv, "heat spreads over a plate: two grids and a barrier");
  program.number("size", size, 512, {3, 65536}, "rows and columns of the plate");
  program.number("rounds", rounds, 50, {1, 1'000'000}, "how often every cell is computed");

  return program.run([&](dsm::Job& job, example::Check& check) {
    Grid even(job, size, size), odd(job, size, size);
    const example::Range mine = example::share(job, 1, size - 1);  // the first and the last row stay as they are: 0
    even.fill(mine);
    odd.fill(mine);
    job.barrier();

    for (std::size_t round = 0; round < rounds; ++round) {
      if (round % 2 == 0) {
        relax(even, odd, mine, size);
      } else {
        relax(odd, even, mine, size);
      }
      job.barrier();
    }

    return check.verify([&] {
      Grid expected = serial(even, size, rounds);
      return check.same("cell", (rounds % 2 == 0 ? even : odd).cells(), expected.cells());
    });
  });
}
