// The fuzzers without libFuzzer: each harness over its corpus, and over some mutations of it. `make fuzz` is the long
// way.
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "dsm/tests/fuzz/harness.hpp"

namespace dsm::fuzz {
namespace {

constexpr const char* corpus_folder = "dsm/tests/fuzz/corpus";  // tests run at the top of the tree
constexpr std::uint32_t rounds = 2000, least_rounds = 100;      // for each harness ...
constexpr std::chrono::milliseconds patience{800};  // ... but no longer than this, where the machine is slow

struct File {
  std::string name, bytes;
};

std::vector<File> corpus(const std::string& harness) {
  std::vector<File> files;
  for (const auto& entry : std::filesystem::directory_iterator(std::filesystem::path(corpus_folder) / harness)) {
    std::ifstream in(entry.path(), std::ios::binary);
    files.push_back({entry.path().filename(), {std::istreambuf_iterator<char>(in), {}}});
  }
  std::sort(files.begin(), files.end(), [](const File& a, const File& b) { return a.name < b.name; });
  return files;
}

void run(const Harness& harness, const std::string& bytes) {
  // A copy of just that size: a byte read behind it is seen by AddressSanitizer.
  const std::vector<std::uint8_t> input(bytes.begin(), bytes.end());
  harness.run(input);
}

class Fuzz : public ::testing::TestWithParam<Harness> {};

TEST_P(Fuzz, CorpusHoldsWhatMustHold) {
  const auto files = corpus(GetParam().name);
  ASSERT_GE(files.size(), 10u);
  for (const File& file : files) {
    EXPECT_NO_THROW(run(GetParam(), file.bytes)) << corpus_folder << "/" << GetParam().name << "/" << file.name;
  }
}

// FUZZ_SEED=N FUZZ_ROUNDS=N
std::uint32_t from_environment(const char* name, std::uint32_t otherwise) {
  const char* const text = std::getenv(name);
  return text != nullptr ? static_cast<std::uint32_t>(std::stoul(text)) : otherwise;
}

class Mutator {
 public:
  Mutator(const std::vector<File>& files, std::uint32_t seed) : files_(files), random_(seed) {}
  std::string next() {
    std::string text = any();
    for (std::size_t changes = 1 + below(4); changes > 0; --changes) change(text);
    return text;
  }

 private:
  std::size_t below(std::size_t limit) { return random_() % limit; }
  const std::string& any() { return files_[below(files_.size())].bytes; }
  void change(std::string& text) {
    const std::size_t at = below(text.size() + 1), size = 1 + below(8);
    const char byte = static_cast<char>(random_());
    switch (below(5)) {
      case 0:
        text.erase(at, size);
        break;
      case 1:
        text.insert(at, size, byte);
        break;
      case 2:
        if (at < text.size()) text[at] = byte;
        break;
      case 3:
        if (at < text.size()) text[at] = static_cast<char>(text[at] ^ (1 << below(8)));
        break;
      default: {  // the rest is another's
        const std::string& other = any();
        text.resize(at);
        text += other.substr(std::min(at, other.size()));
      }
    }
  }
  const std::vector<File>& files_;
  std::mt19937 random_;
};

TEST_P(Fuzz, MutationsHoldWhatMustHold) {
  const std::uint32_t seed = from_environment("FUZZ_SEED", std::random_device{}());
  std::printf("FUZZ_SEED=%u\n", seed);
  std::fflush(stdout);  // a sanitizer may end the program
  const auto files = corpus(GetParam().name);
  ASSERT_FALSE(files.empty());
  Mutator mutator(files, seed);
  const std::uint32_t count = from_environment("FUZZ_ROUNDS", rounds);
  const auto end = std::chrono::steady_clock::now() + patience;
  for (std::uint32_t round = 0; round < count; ++round) {
    if (count == rounds && round >= least_rounds && std::chrono::steady_clock::now() > end) break;
    const std::string bytes = mutator.next();
    ASSERT_NO_THROW(run(GetParam(), bytes))
        << "seed " << seed << ", round " << round << ": " << ::testing::PrintToString(bytes);
  }
}

INSTANTIATE_TEST_SUITE_P(Each, Fuzz, ::testing::ValuesIn(harnesses),
                         [](const auto& harness) { return std::string(harness.param.name); });

TEST(FuzzHarness, WhatDoesNotHoldIsAFinding) {
  EXPECT_NO_THROW(check(true, "holds"));
  EXPECT_THROW(check(false, "does not hold"), Broken);
  EXPECT_THROW(check_line("two\nlines", "not one line"), Broken);
  EXPECT_THROW(check_line("", "nothing"), Broken);
  EXPECT_NO_THROW(check_line("one line", "one line"));
}

}  // namespace
}  // namespace dsm::fuzz
