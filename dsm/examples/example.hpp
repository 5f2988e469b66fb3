// dsm/examples/example.hpp - what the examples share: their command line, joining the job or saying why not; and for
// those that compute something (Program): sharing out rows, counting faults, and comparing with the serial run.
//
// Thread-safety: each rank's main thread only. async-signal-safe: no.
#pragma once
#include <dsm/dsm.h>

#include <algorithm>
#include <atomic>
#include <boost/program_options.hpp>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dsm/dsm.hpp>
#include <functional>
#include <iomanip>
#include <iostream>
#include <limits>
#include <optional>
#include <span>
#include <sstream>
#include <string>
#include <vector>

namespace example {

namespace po = boost::program_options;

inline std::string program_name(char** argv) {
  return std::strrchr(argv[0], '/') != nullptr ? std::strrchr(argv[0], '/') + 1 : argv[0];
}

[[noreturn]] inline void misuse(const std::string& name, const std::string& what) {
  std::cerr << name << ": " << what << "; see --help" << std::endl;
  std::exit(2);
}

// Reads the command line. Ends the program after --help (0), printed by one rank only, and after misuse (2).
// `operands` names the option that takes what is no option, if there is one.
inline po::variables_map command_line(int argc, char** argv, const char* summary, po::options_description options,
                                      const char* operands = nullptr) {
  const std::string name = program_name(argv);
  po::positional_options_description positional;
  if (operands != nullptr) positional.add(operands, -1);
  options.add_options()("help,h", "print this and exit");
  try {
    po::variables_map values;
    po::store(po::command_line_parser(argc, argv).options(options).positional(positional).run(), values);
    po::notify(values);
    if (values.count("help") == 0) return values;
  } catch (const po::error& e) {
    misuse(name, e.what());
  }
  const char* rank = std::getenv("DSMEXEC_RANKID");
  if (rank == nullptr || std::strcmp(rank, "0") == 0) {
    std::cout << "dsmexec machine_file " << name << " [options]" << (operands != nullptr ? " FILE...: " : ": ")
              << summary << "\n\n"
              << options << std::flush;
  }
  std::exit(0);
}

// dsm_init, with whole lines on stdout from here on. Returns the base of the region; ends the program if there is none:
// a line on stderr has said why.
inline char* join(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  char* base = dsm_init(argc, argv);
  if (base == nullptr) std::exit(1);
  return base;
}

struct Range {
  std::size_t begin, end;
  [[nodiscard]] std::size_t size() const { return end - begin; }
};

// A rank's share of begin .. end-1: the ranks get blocks of equal size, or nearly so, in rank order. May be empty.
inline Range share(std::size_t rank, std::size_t ranks, std::size_t begin, std::size_t end) {
  return {begin + (end - begin) * rank / ranks, begin + (end - begin) * (rank + 1) / ranks};
}
// This rank's.
inline Range share(const dsm::Job& job, std::size_t begin, std::size_t end) {
  return share(static_cast<std::size_t>(job.rank()), static_cast<std::size_t>(job.size()), begin, end);
}

// A table of numbers in shared memory. Each row begins on a page of its own: two ranks that write different rows would
// otherwise quarrel about the page that holds the end of one and the beginning of the other.
template <class T>
class Rows {
 public:
  Rows(dsm::Job& job, std::size_t rows, std::size_t columns)
      : columns_(columns),
        stride_((columns * sizeof(T) + job.page_size() - 1) / job.page_size() * job.page_size() / sizeof(T)),
        cells_(job.alloc<T>(rows * stride_)) {}
  // The same shape in this rank's private memory, all zero: for the serial run.
  [[nodiscard]] Rows alone() const { return Rows(columns_, stride_, std::vector<T>(cells_.size())); }

  T* operator[](std::size_t row) { return &cells_[row * stride_]; }
  const T* operator[](std::size_t row) const { return &cells_[row * stride_]; }
  [[nodiscard]] std::span<T> cells() { return cells_; }

  // Something to compute with: numbers from 0 to 15, the same whoever asks, different for another `salt`.
  void fill(Range rows, std::size_t salt = 0) {
    for (std::size_t row = rows.begin; row < rows.end; ++row) {
      for (std::size_t i = 0; i < columns_; ++i) (*this)[row][i] = static_cast<T>((row * 31 + i * 17 + salt) % 101) / 7;
    }
  }

 private:
  Rows(std::size_t columns, std::size_t stride, std::vector<T> own)
      : columns_(columns), stride_(stride), own_(std::move(own)), cells_(own_) {}
  std::size_t columns_, stride_;
  std::vector<T> own_;  // empty if shared
  std::span<T> cells_;
};

// How an example ends: the counters, then the comparison with the serial run.
class Check {
 public:
  Check(dsm::Job& job, std::string name, bool spoil)
      : job_(job), name_(std::move(name)), spoil_(spoil), totals_(job.alloc<std::uint64_t>(3)) {}

  // Collective; the last thing that a body does. Waits for all ranks and prints what they have done together; then rank
  // 0 calls `correct` and prints the verdict, which is returned; the others return true.
  bool verify(const std::function<bool()>& correct) {
    job_.barrier();
    struct dsm_stats mine {};
    dsm_stats(&mine);
    const std::uint64_t counts[] = {mine.read_faults, mine.write_faults, mine.messages};
    for (std::size_t i = 0; i < totals_.size(); ++i) std::atomic_ref(totals_[i]).fetch_add(counts[i]);
    job_.barrier();
    if (job_.rank() != 0) return true;
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start_;
    std::printf("%s: %d rank%s, %.2f s, read_faults %llu, write_faults %llu, messages %llu\n", name_.c_str(),
                job_.size(), job_.size() == 1 ? "" : "s", time.count(), total(0), total(1), total(2));
    const bool good = correct();
    std::printf("%s: %s\n", name_.c_str(), good ? "OK" : "FAILED");
    return good;
  }

  // Whether all numbers are the same, bit for bit; says which is the first that is not. With --spoil, one is made
  // wrong.
  template <class T>
  bool same(const char* what, std::span<T> found, std::span<T> expected) {
    if (found.size() != expected.size()) return wrong(what, 0, found.size(), expected.size());
    if (spoil_ && !found.empty()) *reinterpret_cast<unsigned char*>(&found[found.size() / 2]) ^= 1U;
    for (std::size_t i = 0; i < found.size(); ++i) {
      if (std::memcmp(&found[i], &expected[i], sizeof(T)) != 0) return wrong(what, i, found[i], expected[i]);
    }
    return true;
  }

 private:
  template <class T>
  bool wrong(const char* what, std::size_t index, T found, T expected) {
    std::fprintf(stderr, "%s: %s %zu is %s, the serial run has %s\n", name_.c_str(), what, index, digits(found).c_str(),
                 digits(expected).c_str());
    return false;
  }
  // All digits that it takes to tell one number from the next.
  template <class T>
  static std::string digits(T number) {
    std::ostringstream text;
    text << std::setprecision(std::numeric_limits<T>::max_digits10) << +number;
    return text.str();
  }
  [[nodiscard]] unsigned long long total(std::size_t i) const { return totals_[i]; }

  dsm::Job& job_;
  const std::string name_;
  const bool spoil_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  const std::span<std::uint64_t> totals_;
};

// An example that computes something: its options, and what surrounds its body.
class Program {
 public:
  Program(int argc, char** argv, const char* summary) : argc_(argc), argv_(argv), summary_(summary) {}

  // --name N, a number from bounds.begin to bounds.end, both included.
  void number(const char* name, std::size_t& value, std::size_t usual, Range bounds, const char* meaning) {
    numbers_.push_back({name, &value, usual, bounds, meaning});
  }
  // FILE...: at least one.
  void files(std::vector<std::string>& names) { files_ = &names; }

  // main's body, in a job. An exception that left the scope of the Job would abort the program, so it is caught within.
  int run(const std::function<bool(dsm::Job&, Check&)>& body) {
    const std::string name = program_name(argv_);
    try {
      read_command_line(name);
      std::setvbuf(stdout, nullptr, _IOLBF, 0);
      std::optional<dsm::Job> job;
      try {
        job.emplace(argc_, argv_);
      } catch (const std::system_error&) {
        return 1;  // a line on stderr has said why
      }
      return inside(*job, name, body) ? 0 : 1;
    } catch (const std::exception& e) {
      std::fprintf(stderr, "%s: %s\n", name.c_str(), e.what());
      return 1;
    }
  }

 private:
  struct Number {
    const char* name;
    std::size_t* value;
    std::size_t usual;
    Range bounds;
    const char* meaning;

    void set(long long given) const {
      if (given < static_cast<long long>(bounds.begin) || given > static_cast<long long>(bounds.end)) {
        throw po::error("--" + std::string(name) + " " + std::to_string(given) + ": a number from " +
                        std::to_string(bounds.begin) + " to " + std::to_string(bounds.end) + " is needed");
      }
      *value = static_cast<std::size_t>(given);
    }
  };

  void read_command_line(const std::string& name) {
    po::options_description options("Options");
    for (const Number& n : numbers_) {
      const auto semantic = po::value<long long>()->value_name("N")->default_value(static_cast<long long>(n.usual));
      options.add_options()(n.name, semantic->notifier([n](long long given) { n.set(given); }), n.meaning);
    }
    if (files_ != nullptr) {
      options.add_options()("file", po::value(files_)->value_name("FILE"), "a text file that rank 0 can read");
    }
    options.add_options()("spoil", po::bool_switch(&spoil_),
                          "flip one bit of the result before it is compared, to see that the comparison notices");
    command_line(argc_, argv_, summary_, options, files_ != nullptr ? "file" : nullptr);
    if (files_ != nullptr && files_->empty()) misuse(name, "no file is named");
  }

  bool inside(dsm::Job& job, const std::string& name, const std::function<bool(dsm::Job&, Check&)>& body) {
    try {
      Check check(job, name, spoil_);
      return body(job, check);
    } catch (const std::bad_alloc&) {  // of Job::alloc, so in all ranks: one tells, and all leave together
      if (job.rank() != 0) return false;
      std::fprintf(stderr, "%s: more is needed than the job's %zu MB of shared memory: dsmexec --size gives more\n",
                   name.c_str(), dsm_size() >> 20);
      return false;
    } catch (const std::exception& e) {  // in this rank: it goes without dsm_finalize, and dsmexec stops the others
      std::fprintf(stderr, "%s: rank %d: %s\n", name.c_str(), job.rank(), e.what());
      std::exit(1);
    }
  }

  const int argc_;
  char** const argv_;
  const char* const summary_;
  bool spoil_ = false;
  std::vector<std::string>* files_ = nullptr;
  std::vector<Number> numbers_;
};

}  // namespace example
