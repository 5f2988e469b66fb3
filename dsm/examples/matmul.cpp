// matmul - reading together: each page of B comes to a rank once, and stays.
//
// C = A * B. Each rank computes a block of rows of C. For that it needs the same rows of A, and all of B. Nobody asks
// for B or sends it: a rank touches it, the page comes, and since nobody writes B any more, copies may be everywhere.
//
// The loop over the rows of B is the outermost. A rank is done with a page of B before it looks at the next one: also
// under `-p migrate`, where a page has one copy that moves, a page of B then comes to each rank once, or not much
// oftener. With the rows of C outermost, as in a textbook, all of B would come again for every row of C there: try it.
//
// Every element of C is added up in the same order as in the serial run, so the result is the same bit for bit.
//
// In dsmtop: A and B fill with A, rank 0's letter; then B turns small, page after page, while C fills in blocks.
//
//   $ build/bin/dsmexec machine_file matmul --size 512
//   $ build/bin/dsmexec -p migrate machine_file matmul --size 512
//   [Proc 0 : localhost : stdout] matmul: OK
#include "dsm/examples/example.hpp"

namespace {

using Matrix = example::Rows<double>;

// These rows of C, which is all zero.
void multiply(const Matrix& a, const Matrix& b, Matrix& c, example::Range rows, std::size_t size) {
  for (std::size_t k = 0; k < size; ++k) {
    const double* row_of_b = b[k];
    for (std::size_t row = rows.begin; row < rows.end; ++row) {
      const double factor = a[row][k];
      double* out = c[row];
      for (std::size_t i = 0; i < size; ++i) out[i] += factor * row_of_b[i];
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::size_t size = 0;
  example::Program program(argc, argv, "C = A * B: everybody reads all of B");
  program.number("size", size, 256, {1, 16384}, "rows and columns of the matrices");

  return program.run([&](dsm::Job& job, example::Check& check) {
    Matrix a(job, size, size), b(job, size, size), c(job, size, size);
    if (job.rank() == 0) {
      a.fill({0, size}, 1);
      b.fill({0, size}, 2);
    }
    job.barrier();

    multiply(a, b, c, example::share(job, 0, size), size);

    return check.verify([&] {
      Matrix own_a = a.alone(), own_b = b.alone(), expected = c.alone();
      own_a.fill({0, size}, 1);
      own_b.fill({0, size}, 2);
      multiply(own_a, own_b, expected, {0, size}, size);
      return check.same("element", c.cells(), expected.cells());
    });
  });
}
