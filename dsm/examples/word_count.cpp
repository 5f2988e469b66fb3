// word_count - each rank counts its share; the counts are merged in a shared table under many locks, not one.
//
// Rank 0 reads the files into shared memory. Each rank counts the words of its share of the text in private memory,
// where that costs nothing, and adds its counts to the shared table in the end. The table has many stripes, and each
// stripe a lock of its own, so ranks that are busy with different words do not wait for each other. A lock is named by
// an address, so it needs no number and no declaration anywhere else: a dsm::Mutex lies in the stripe that it guards.
//
// A rank takes each lock once, for all of its words in that stripe, and starts at a stripe of its own.
//
// An entry of the table points to the word in the shared text: the text has the same address in every rank.
//
// Words are what letters make, and bytes beyond ASCII count as letters, so UTF-8 stays whole; a and A are the same.
//
// In dsmtop: A for the text, which then turns small in blocks; then the stripes, a page each, go round among the ranks.
//
//   $ build/bin/dsmexec machine_file word_count README.md HACKING.md
//   [Proc 0 : localhost : stdout] word_count: 1608 words, 543 different; most often: a 59, the 56, build 31
//   [Proc 0 : localhost : stdout] word_count: OK
#include <cerrno>
#include <fstream>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string_view>

#include "dsm/examples/example.hpp"

namespace {

using Counts = std::map<std::string_view, std::uint64_t>;

struct Entry {
  const char* word;  // in the shared text; null: free
  std::uint32_t length;
  std::uint32_t count;
  [[nodiscard]] std::string_view text() const { return {word, length}; }
};

struct Stripe {  // a page
  dsm::Mutex mutex;
  Entry entries[255];
};

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || static_cast<unsigned char>(c) >= 0x80; }

// All files, one after the other, in small letters.
std::string read(const std::vector<std::string>& files) {
  std::ostringstream all;
  for (const std::string& name : files) {
    errno = 0;
    std::ifstream file(name);
    const bool empty = file && file.peek() == EOF && errno == 0;
    if (!empty && !(all << file.rdbuf())) throw std::runtime_error(name + ": " + std::strerror(errno));
    all << '\n';
  }
  std::string text = all.str();
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return text;
}

// The words that begin in this range. The last of them may end beyond it.
Counts count_words(std::span<const char> text, example::Range range) {
  Counts counts;
  for (std::size_t i = range.begin; i < range.end; ++i) {
    if (!is_letter(text[i]) || (i > 0 && is_letter(text[i - 1]))) continue;
    std::size_t end = i;
    while (end < text.size() && is_letter(text[end])) ++end;
    ++counts[{&text[i], end - i}];
  }
  return counts;
}

// REQUIRES: the stripe's lock is held.
void add(Stripe& stripe, std::string_view word, std::uint64_t count) {
  for (Entry& entry : stripe.entries) {
    if (entry.word == nullptr) entry = {word.data(), static_cast<std::uint32_t>(word.size()), 0};
    if (entry.text() != word) continue;
    entry.count += static_cast<std::uint32_t>(count);
    return;
  }
  throw std::runtime_error("a stripe of the table is full; choose more --stripes");
}

void merge(const Counts& counts, std::span<Stripe> table, std::size_t first) {
  std::vector<Counts> by_stripe(table.size());
  for (const auto& [word, count] : counts) {
    by_stripe[std::hash<std::string_view>()(word) % table.size()].emplace(word, count);
  }
  for (std::size_t i = 0; i < table.size(); ++i) {
    const std::size_t at = (first + i) % table.size();
    if (by_stripe[at].empty()) continue;
    const std::scoped_lock lock(table[at].mutex);
    for (const auto& [word, count] : by_stripe[at]) add(table[at], word, count);
  }
}

Counts collect(std::span<Stripe> table) {
  Counts counts;
  for (const Stripe& stripe : table) {
    for (const Entry& entry : stripe.entries) {
      if (entry.word != nullptr) counts[entry.text()] += entry.count;
    }
  }
  return counts;
}

void print(const Counts& counts) {
  std::vector<std::pair<std::uint64_t, std::string_view>> by_count;
  std::uint64_t all = 0;
  for (const auto& [word, count] : counts) {
    by_count.emplace_back(count, word);
    all += count;
  }
  std::sort(by_count.rbegin(), by_count.rend());
  std::printf("word_count: %ju words, %zu different", static_cast<std::uintmax_t>(all), counts.size());
  for (std::size_t i = 0; i < std::min<std::size_t>(3, by_count.size()); ++i) {
    std::printf("%s %s %ju", i == 0 ? "; most often:" : ",", std::string(by_count[i].second).c_str(),
                static_cast<std::uintmax_t>(by_count[i].first));
  }
  std::printf("\n");
}

}  // namespace

int main(int argc, char** argv) {
  std::size_t stripes = 0;
  std::vector<std::string> files;
  example::Program program(argc, argv, "counts words: private counts, merged in a shared table with many locks");
  program.number("stripes", stripes, 64, {1, 65536}, "parts of the table, each with its lock and room for 255 words");
  program.files(files);

  return program.run([&](dsm::Job& job, example::Check& check) {
    // How much memory is needed for the text, only rank 0 knows; the others must ask for as much.
    std::size_t& size = job.alloc<std::size_t>(1).front();
    std::string own;
    if (job.rank() == 0) size = (own = read(files)).size();
    job.barrier();
    const std::span<char> text = job.alloc<char>(size);
    const std::span<Stripe> table = job.alloc<Stripe>(stripes);
    std::copy(own.begin(), own.end(), text.begin());  // nothing, but for rank 0
    job.barrier();

    const Counts mine = count_words(text, example::share(job, 0, text.size()));
    merge(mine, table, stripes * static_cast<std::size_t>(job.rank()) / static_cast<std::size_t>(job.size()));

    return check.verify([&] {
      const Counts found = collect(table), expected = count_words(own, {0, own.size()});
      print(found);
      std::vector<std::uint64_t> found_counts, expected_counts;
      for (const auto& [word, count] : expected) {
        expected_counts.push_back(count);
        found_counts.push_back(found.contains(word) ? found.at(word) : 0);
      }
      return check.same("count of word", std::span(found_counts), std::span(expected_counts)) &&
             found.size() == expected.size();
    });
  });
}
