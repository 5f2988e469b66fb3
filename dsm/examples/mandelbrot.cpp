// mandelbrot - self-scheduling: an atomic counter in shared memory hands out the work.
//
// Some parts of the picture take a thousand times longer than others, and nobody knows which. So nothing is dealt out
// beforehand: whoever has time takes the next piece, by adding one to a shared counter. It is an ordinary atomic
// instruction; the page of the counter comes to the rank that executes it, and nobody else can touch it meanwhile.
//
// A piece is as many pixels as fit in a page, so that no two ranks write the same page.
//
// A pixel depends on nothing else, so the picture is the same as that of the serial run.
//
// In dsmtop: one page, that of the counter, is always on the move; the picture fills with the letters of those who were
// faster, long runs where it is cheap, short ones where it is dear.
//
//   $ build/bin/dsmexec machine_file mandelbrot --width 2048 --height 2048
//   [Proc 0 : localhost : stdout] mandelbrot: rank 0 computed 31 of 128 pieces
//   [Proc 0 : localhost : stdout] mandelbrot: OK
#include "dsm/examples/example.hpp"

namespace {

using Pixel = std::uint16_t;

struct Picture {
  std::size_t width, height, steps;
  [[nodiscard]] std::size_t pixels() const { return width * height; }

  // After how many steps the point of this pixel has left the circle of radius 2.
  [[nodiscard]] Pixel at(std::size_t pixel) const {
    const std::size_t column = pixel % width, line = pixel / width;
    const double across = static_cast<double>(column) / static_cast<double>(width);
    const double down = static_cast<double>(line) / static_cast<double>(height);
    const double re = -2.25 + 3 * across, im = -1.25 + 2.5 * down;
    double x = 0, y = 0;
    std::size_t step = 0;
    for (; step < steps && x * x + y * y <= 4; ++step) {
      const double next = x * x - y * y + re;
      y = 2 * x * y + im;
      x = next;
    }
    return static_cast<Pixel>(step);
  }
};

}  // namespace

int main(int argc, char** argv) {
  Picture picture{};
  example::Program program(argc, argv, "the Mandelbrot set: an atomic counter hands out the work");
  program.number("width", picture.width, 512, {1, 65536}, "pixels in a line");
  program.number("height", picture.height, 512, {1, 65536}, "lines");
  program.number("steps", picture.steps, 500, {1, 65535}, "where to give up: points that stay so long are in the set");

  return program.run([&](dsm::Job& job, example::Check& check) {
    const std::span<Pixel> pixels = job.alloc<Pixel>(picture.pixels());
    const std::atomic_ref<std::uint64_t> next_piece(job.alloc<std::uint64_t>(1).front());
    const std::size_t piece = job.page_size() / sizeof(Pixel);
    const std::size_t pieces = (picture.pixels() + piece - 1) / piece;

    std::size_t mine = 0;
    for (std::uint64_t p = next_piece.fetch_add(1); p < pieces; p = next_piece.fetch_add(1)) {
      const std::size_t end = std::min((p + 1) * piece, picture.pixels());
      for (std::size_t pixel = p * piece; pixel < end; ++pixel) pixels[pixel] = picture.at(pixel);
      ++mine;
    }
    std::printf("mandelbrot: rank %d computed %zu of %zu pieces\n", job.rank(), mine, pieces);

    return check.verify([&] {
      std::vector<Pixel> expected(picture.pixels());
      for (std::size_t pixel = 0; pixel < expected.size(); ++pixel) expected[pixel] = picture.at(pixel);
      return check.same("pixel", pixels, std::span(expected));
    });
  });
}
