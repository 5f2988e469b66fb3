// pi - each rank adds up its part of a sum, and one reduction adds up the parts.
//
// The area under 4/(1+x*x) from 0 to 1 is pi. The ranks share out the strips; nobody reads what another one writes, until
// dsm_reduce_f64 puts the parts together in rank 0, in the order of the ranks: so the same ranks get the same bits each
// time. As much computing as you like, and a handful of messages.
//
//   $ build/bin/dsmexec machine_file pi
//   [Proc 0 : localhost : stdout] pi is 3.141592653590
//   [Proc 0 : localhost : stdout] pi: OK
//
// By hand, in three terminals (`build/bin/dsmd &` first):
//
//   $ DSM_SESSION=localhost:8080/pi:3 build/bin/pi
#include <cmath>

#include "dsm/examples/example.hpp"

namespace {

// The middle of each strip stands for all of it.
double sum(example::Range strips, std::size_t all) {
  const double width = 1.0 / static_cast<double>(all);
  double area = 0;
  for (std::size_t i = strips.begin; i < strips.end; ++i) {
    const double x = (static_cast<double>(i) + 0.5) * width;
    area += 4 / (1 + x * x);
  }
  return area * width;
}

// The same parts, added up by one rank.
double serial(std::size_t ranks, std::size_t strips) {
  double all = 0;
  for (std::size_t rank = 0; rank < ranks; ++rank) all += sum(example::share(rank, ranks, 0, strips), strips);
  return all;
}

}  // namespace

int main(int argc, char** argv) {
  std::size_t strips = 0;
  example::Program program(argc, argv, "the area under a curve: parts, and one reduction");
  program.number("strips", strips, 10'000'000, {1, 10'000'000'000}, "into how many the area is cut");

  return program.run([&](dsm::Job& job, example::Check& check) {
    const double mine = sum(example::share(job, 0, strips), strips);
    double pi = 0;
    if (dsm_reduce_f64(0, &mine, &pi, 1, DSM_SUM) != 0)
      throw std::system_error(errno, std::generic_category(), "reduce");
    if (job.rank() == 0) std::printf("pi is %.12f\n", pi);
    return check.verify([&] {
      double expected = serial(static_cast<std::size_t>(job.size()), strips);
      return check.same<double>("sum", {&pi, 1}, {&expected, 1}) &&
             std::fabs(pi - std::acos(-1.0)) < 1 / static_cast<double>(strips);
    });
  });
}
