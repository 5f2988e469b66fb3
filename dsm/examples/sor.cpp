// sor - red and black cells in place: one grid is enough when neighbours never change at the same time.
//
// Successive over-relaxation, for the same plate as in jacobi, needs fewer rounds and half the memory: a cell is moved
// beyond the mean of its four neighbours, in place. The cells are coloured like a chessboard. A red cell has only black
// neighbours: all red ones may change at once, by any rank in any order; a barrier; then all black ones; a barrier.
//
// Nobody reads a number that somebody else writes. But both colours live in the same page, and pages are what travels:
// the row at the edge of a block goes to the neighbour and comes back in *each half* of a round. In jacobi it goes once
// a round. Less work, but more faults and messages for as many rounds: compare the counters of the two with --rounds
// 500.
//
// The order within one colour does not matter, so the result is that of the serial run, bit for bit.
//
// In dsmtop: as in jacobi one run of a letter per rank; the page where two meet is in the list of hot pages.
//
//   $ build/bin/dsmexec machine_file sor --size 1024 --rounds 100
//   [Proc 0 : localhost : stdout] sor: OK
#include "dsm/examples/example.hpp"

namespace {

using Grid = example::Rows<double>;
constexpr double beyond = 1.8;  // 1 stops at the mean; from 2 on nothing converges

// The cells of one colour in these rows.
void relax(Grid& grid, std::size_t colour, example::Range rows, std::size_t size) {
  for (std::size_t row = rows.begin; row < rows.end; ++row) {
    const double *above = grid[row - 1], *below = grid[row + 1];
    double* here = grid[row];
    for (std::size_t i = 1 + (row + colour) % 2; i + 1 < size; i += 2) {
      const double mean = (above[i] + below[i] + here[i - 1] + here[i + 1]) / 4;
      here[i] += beyond * (mean - here[i]);
    }
  }
}

// All of it by one rank.
Grid serial(const Grid& shape, std::size_t size, std::size_t rounds) {
  Grid grid = shape.alone();
  grid.fill({1, size - 1});
  for (std::size_t half = 0; half < 2 * rounds; ++half) relax(grid, half % 2, {1, size - 1}, size);
  return grid;
}

}  // namespace

int main(int argc, char** argv) {
  std::size_t size = 0, rounds = 0;
  example::Program program(argc, argv, "heat spreads over a plate: red and black cells of one grid, in turns");
  program.number("size", size, 512, {3, 65536}, "rows and columns of the plate");
  program.number("rounds", rounds, 50, {1, 1'000'000}, "how often every cell is computed");

  return program.run([&](dsm::Job& job, example::Check& check) {
    Grid grid(job, size, size);
    const example::Range mine = example::share(job, 1, size - 1);  // the first and the last row stay as they are: 0
    grid.fill(mine);
    job.barrier();

    for (std::size_t half = 0; half < 2 * rounds; ++half) {
      relax(grid, half % 2, mine, size);
      job.barrier();
    }

    return check.verify([&] {
      Grid expected = serial(grid, size, rounds);
      return check.same("cell", grid.cells(), expected.cells());
    });
  });
}
