// lu - one row is read by all: the owner of the pivot row writes it for the last time, and everybody takes a copy.
//
// Gaussian elimination splits a matrix into a lower and an upper triangle, in place. In step k, a multiple of row k,
// the pivot row, is taken from every row below. Rows are dealt out like cards, row i to rank i % ranks: in blocks, the
// rank with the first rows would soon have nothing left to do.
//
// A row is written by its owner only, so its page stays there; when its turn as the pivot row comes, a copy goes to all
// ranks, and the barrier says that it is final. Each row begins on a page of its own (example::Rows): two rows of
// different owners in one page would move that page to and fro all the time.
//
// The matrix has a heavy diagonal, so no rows need to be exchanged. Each element goes through the same operations in
// the same order as in the serial run, so the result is the same bit for bit.
//
// In dsmtop: OWNED falls and COPIES rises, for all ranks alike, as one row after the other turns from capital to small;
// much of the time somebody waits at the barrier (BARR).
//
//   $ build/bin/dsmexec machine_file lu --size 1024
//   [Proc 0 : localhost : stdout] lu: OK
#include "dsm/examples/example.hpp"

namespace {

using Matrix = example::Rows<double>;

void fill_row(Matrix& matrix, std::size_t row, std::size_t size) {
  matrix.fill({row, row + 1});
  matrix[row][row] += 16 * static_cast<double>(size);  // more than the rest of the row together
}

// Step k for one row below the pivot row. The multiple goes where the zero would be.
void eliminate(const double* pivot, double* row, std::size_t k, std::size_t size) {
  row[k] /= pivot[k];
  for (std::size_t i = k + 1; i < size; ++i) row[i] -= row[k] * pivot[i];
}

// All of it by one rank.
Matrix serial(const Matrix& shape, std::size_t size) {
  Matrix matrix = shape.alone();
  for (std::size_t row = 0; row < size; ++row) fill_row(matrix, row, size);
  for (std::size_t k = 0; k < size; ++k) {
    for (std::size_t row = k + 1; row < size; ++row) eliminate(matrix[k], matrix[row], k, size);
  }
  return matrix;
}

}  // namespace

int main(int argc, char** argv) {
  std::size_t size = 0;
  example::Program program(argc, argv, "Gaussian elimination: in each step everybody reads one row");
  program.number("size", size, 256, {1, 16384}, "rows and columns of the matrix");

  return program.run([&](dsm::Job& job, example::Check& check) {
    Matrix matrix(job, size, size);
    const auto rank = static_cast<std::size_t>(job.rank()), ranks = static_cast<std::size_t>(job.size());
    for (std::size_t row = rank; row < size; row += ranks) fill_row(matrix, row, size);
    job.barrier();

    std::vector<double> pivot(size);
    for (std::size_t k = 0; k < size; ++k) {
      // A private copy is made in one go. Where a page has only one copy (-p migrate), everybody would pull at it.
      std::copy_n(matrix[k], size, pivot.data());
      for (std::size_t row = rank; row < size; row += ranks) {
        if (row > k) eliminate(pivot.data(), matrix[row], k, size);
      }
      job.barrier();  // now row k + 1 is final
    }

    return check.verify([&] {
      Matrix expected = serial(matrix, size);
      return check.same("element", matrix.cells(), expected.cells());
    });
  });
}
