// life - halo rows: everything is private but the edges, which are put where the neighbours can see them.
//
// Conway's game of life on a torus. Each rank keeps its block of rows in ordinary private memory. To compute the next
// generation it needs one more row above and below, its halo. So in every generation each rank copies its first and its
// last row into shared memory; a barrier; then it copies the rows next to its own out of it. That is how one writes for
// message passing, and it costs as little: compare the faults with those of jacobi, where the whole grid is shared.
//
// The shared rows exist twice, for even and odd generations: a fast rank may put down its next edges while a slow one
// still reads the present ones, and one barrier for each generation is enough. There is a shared row for each row of
// the torus, for simplicity: shared memory that nobody touches costs nothing.
//
// Cells are whole numbers: the result is exactly that of the serial run.
//
// In dsmtop: a few pages far apart, two for each rank and kind of generation, change between capital and small.
//
//   $ build/bin/dsmexec machine_file life --rows 1000 --columns 1000 --generations 500
//   [Proc 0 : localhost : stdout] life: OK
#include <random>

#include "dsm/examples/example.hpp"

namespace {

using Row = std::vector<std::uint8_t>;  // 1 alive, 0 dead
using Block = std::vector<Row>;         // the first and the last row are the halo

// The first generation of some rows, the same whoever asks for them.
Block begin_with(example::Range rows, std::size_t columns) {
  Block block(rows.size() + 2, Row(columns));
  for (std::size_t row = rows.begin; row < rows.end; ++row) {
    std::minstd_rand random(static_cast<unsigned>(row) + 1);
    random.discard(10);  // the first numbers of neighbouring seeds resemble each other
    for (std::uint8_t& cell : block[row - rows.begin + 1]) cell = random() % 100 < 35 ? 1 : 0;
  }
  return block;
}

// The next generation, but for the halo.
Block next(const Block& old) {
  Block fresh = old;
  const std::size_t columns = old.front().size();
  for (std::size_t row = 1; row + 1 < old.size(); ++row) {
    const Row &above = old[row - 1], &here = old[row], &below = old[row + 1];
    for (std::size_t i = 0; i < columns; ++i) {
      const std::size_t left = i == 0 ? columns - 1 : i - 1, right = i + 1 == columns ? 0 : i + 1;
      const int alive =
          above[left] + above[i] + above[right] + here[left] + here[right] + below[left] + below[i] + below[right];
      fresh[row][i] = alive == 3 || (alive == 2 && here[i] == 1) ? 1 : 0;
    }
  }
  return fresh;
}

// All of it by one rank: the halo of the whole torus is its own other edge.
Block serial(std::size_t rows, std::size_t columns, std::size_t generations) {
  Block block = begin_with({0, rows}, columns);
  for (std::size_t g = 0; g < generations; ++g) {
    block.front() = block[rows];
    block.back() = block[1];
    block = next(block);
  }
  return block;
}

}  // namespace

int main(int argc, char** argv) {
  std::size_t rows = 0, columns = 0, generations = 0;
  example::Program program(argc, argv, "Conway's game of life: private blocks, shared edges");
  program.number("rows", rows, 256, {1, 65536}, "rows of the torus");
  program.number("columns", columns, 512, {1, 65536}, "columns of the torus");
  program.number("generations", generations, 50, {0, 1'000'000}, "how many to compute");

  return program.run([&](dsm::Job& job, example::Check& check) {
    example::Rows<std::uint8_t> even(job, rows, columns), odd(job, rows, columns), result(job, rows, columns);
    const example::Range mine = example::share(job, 0, rows);
    Block block = begin_with(mine, columns);

    for (std::size_t g = 0; g < generations; ++g) {
      auto& edges = g % 2 == 0 ? even : odd;
      if (mine.size() > 0) {
        std::copy_n(block[1].data(), columns, edges[mine.begin]);
        std::copy_n(block[mine.size()].data(), columns, edges[mine.end - 1]);
      }
      job.barrier();
      if (mine.size() > 0) {
        std::copy_n(edges[(mine.begin + rows - 1) % rows], columns, block.front().data());
        std::copy_n(edges[mine.end % rows], columns, block.back().data());
        block = next(block);
      }
    }

    for (std::size_t row = mine.begin; row < mine.end; ++row) {
      std::copy_n(block[row - mine.begin + 1].data(), columns, result[row]);
    }
    return check.verify([&] {
      const Block whole = serial(rows, columns, generations);
      auto expected = result.alone();
      for (std::size_t row = 0; row < rows; ++row) std::copy_n(whole[row + 1].data(), columns, expected[row]);
      return check.same("cell", result.cells(), expected.cells());
    });
  });
}
