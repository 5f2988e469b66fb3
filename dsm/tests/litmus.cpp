// dsm_litmus - runs litmus tests on real ranks, and counts what comes out: the region is sequentially consistent.
//
//   $ build/bin/dsmexec -n 2 machine_file dsm_litmus sb --rounds 10000
//   $ build/bin/dsmexec machine_file dsm_litmus iriw --rounds 10000 --seed 7
//
// Exit 1 when an outcome is forbidden, or when one that is allowed is too rare.
#include <dsm/dsm.h>

#include <boost/program_options.hpp>
#include <cstdio>

#include "dsm/tests/command_line.hpp"
#include "dsm/tests/litmus_play.hpp"

namespace {

namespace po = boost::program_options;

// The region of the job.
class Region : public litmus::Ground {
 public:
  explicit Region(char* base) : base_(base) {}
  [[nodiscard]] std::size_t me() const override { return static_cast<std::size_t>(DSM_NODE_ID); }
  [[nodiscard]] std::size_t members() const override { return static_cast<std::size_t>(DSM_NODE_NUM); }
  [[nodiscard]] std::size_t page_bytes() const override { return dsm_page_size(); }
  [[nodiscard]] char* base() const override { return base_; }
  [[nodiscard]] char* allocate(std::size_t bytes) override { return static_cast<char*>(dsm_alloc(bytes)); }
  [[nodiscard]] bool barrier() override {
    if (dsm_barrier() == 0) return true;
    std::perror("dsm_barrier");
    return false;
  }

 private:
  char* base_;
};

}  // namespace

int main(int argc, char** argv) {
  litmus::Options o;
  po::options_description options("dsm_litmus sb|mp|iriw|corr|two-homes[-sb|-mp|-2+2w]");
  options.add_options()("help,h", "this text")("name", po::value(&o.name)->required(), "the test")(
      "rounds", po::value(&o.rounds), "how many; 10000")("seed", po::value(&o.seed), "of what is random")(
      "delays", po::value(&o.delays), "on (the default): a random delay before each access; off")(
      "frequencies", po::value(&o.frequencies),
      "on (the default): with delays, no allowed outcome may be too rare; off");
  if (const auto code = command_line::read(argc, argv, "dsm_litmus", options, "name")) return *code;
  if (!litmus::understood(o)) {
    std::fprintf(stderr, "dsm_litmus: no such test, or not such a test; see --help\n");
    return 2;
  }
  return command_line::run_in_job(argc, argv, [&o](char* base) {
    Region region(base);
    return litmus::run_all(o, region, "dsm_litmus");
  });
}
