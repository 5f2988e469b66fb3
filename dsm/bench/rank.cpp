#include "dsm/bench/rank.hpp"

#include <dsm/dsm.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <stdexcept>

#include "dsm/bench/limits.hpp"
#include "dsm/bench/report.hpp"
#include "ipc/error.hpp"
#include "ipc/socket.hpp"
#include "ipc/spawn.hpp"

namespace bench {
namespace {

using Clock = std::chrono::steady_clock;

// What rank 1 asks of the others, over a plain TCP connection: a message of the DSM would be counted, and a rank that
// waits in read(2) disturbs nobody.
struct Command {
  enum class Do : std::uint32_t { write, read, barriers, count, end };
  Do what{};
  std::uint32_t amount = 0;  // barriers: how many
  std::uint64_t stamp = 0;   // write, read: what is written to, or must be found in, every page of the block
};

// Where in the region everything lies: page 0 tells the ports, the block follows at a page that lives at rank 0.
class Layout {
 public:
  Layout(char* base, const Task& task)
      : base_(base), ranks_(static_cast<std::uint32_t>(DSM_NODE_NUM)), pattern_{task.block_size, ranks_} {
    const std::size_t pages = ranks_ + std::size_t{pattern_.count} * ranks_;
    if (dsm_page_size() != page_bytes || dsm_size() < pages * page_bytes)
      throw std::runtime_error("the region is too small");
  }
  [[nodiscard]] const Pattern& pattern() const { return pattern_; }
  // Pages are dealt to their homes in turn: `ranks_` apart they all live at rank 0.
  [[nodiscard]] volatile std::uint64_t& word(std::uint32_t page) const {
    return *reinterpret_cast<volatile std::uint64_t*>(base_ + (ranks_ + page) * page_bytes);
  }
  [[nodiscard]] volatile std::uint64_t& port(int rank) const {
    return reinterpret_cast<volatile std::uint64_t*>(base_)[rank];
  }

 private:
  char* base_;
  std::uint32_t ranks_;
  Pattern pattern_;
};

struct dsm_stats stats() {
  struct dsm_stats now {};
  ipc::check(dsm_stats(&now), "dsm_stats");
  return now;
}

void expect(bool right, const std::string& what) {
  if (!right) throw std::runtime_error(what);
}

void barriers(std::uint32_t amount, Samples* samples) {
  for (std::uint32_t i = 0; i < amount; ++i) {
    const auto begin = Clock::now();
    ipc::check(dsm_barrier(), "dsm_barrier");
    if (samples != nullptr) samples->push_back(std::chrono::duration<double, std::micro>(Clock::now() - begin).count());
  }
}

// ---- ranks other than 1 ----

ipc::Fd accept_one(int listener) {
  pollfd wait{listener, POLLIN, 0};
  if (::poll(&wait, 1, 30'000) != 1) throw std::runtime_error("rank 1 did not connect within 30 s");
  ipc::Fd connection(ipc::check(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC), "accept"));
  ipc::set_nonblocking(connection.get(), false);
  ipc::set_nodelay(connection.get());
  return connection;
}

void obey(int connection, const Layout& layout) {
  Command command;
  while (ipc::read_full(connection, &command, sizeof command) == sizeof command && command.what != Command::Do::end) {
    std::uint64_t answer = 0;
    for (const std::uint32_t page : layout.pattern().order()) {
      if (command.what == Command::Do::write) layout.word(page) = command.stamp;
      if (command.what == Command::Do::read) expect(layout.word(page) == command.stamp, "a page has the wrong bytes");
    }
    if (command.what == Command::Do::barriers) barriers(command.amount, nullptr);
    if (command.what == Command::Do::count) answer = stats().messages;
    if (ipc::write_full(connection, &answer, sizeof answer) < 0) ipc::throw_errno("answer rank 1");
  }
}

// ---- rank 1 ----

class Others {
 public:
  explicit Others(const Layout& layout) {
    for (int rank = 0; rank < DSM_NODE_NUM; ++rank) {
      if (rank == 1) continue;
      connections_.push_back(ipc::connect_tcp("127.0.0.1", static_cast<std::uint16_t>(layout.port(rank)), 10'000));
      ipc::set_nonblocking(connections_.back().get(), false);
    }
  }
  void tell(std::size_t who, Command command) const {
    if (ipc::write_full(connections_[who].get(), &command, sizeof command) < 0) ipc::throw_errno("tell a rank");
  }
  std::uint64_t answer(std::size_t who) const {
    std::uint64_t answer = 0;
    if (ipc::read_full(connections_[who].get(), &answer, sizeof answer) != sizeof answer)
      throw std::runtime_error("a rank has gone");
    return answer;
  }
  std::uint64_t ask(std::size_t who, Command command) const {
    tell(who, command);
    return answer(who);
  }
  // Messages sent so far by all ranks.
  std::uint64_t messages() const {
    std::uint64_t sum = stats().messages;
    for (std::size_t who = 0; who < connections_.size(); ++who) sum += ask(who, {Command::Do::count});
    return sum;
  }
  void end() const {
    for (std::size_t who = 0; who < connections_.size(); ++who) tell(who, {Command::Do::end});
  }

 private:
  std::vector<ipc::Fd> connections_;  // rank 0, and rank 2 if there is one
};

struct Totals {
  Samples values, limits_remote, limits_local;  // the running block's are at the end
  Samples ratios;                               // of each block
  std::uint64_t messages = 0;
};

// Every sample is one fault and one message from here; the home's answers are counted for the whole block.
void miss_block(const Layout& layout, const Others& others, bool write, std::uint64_t stamp, Totals& totals) {
  others.ask(0, {Command::Do::write, 0, stamp});             // takes every copy away from here
  if (!write) others.ask(1, {Command::Do::read, 0, stamp});  // the home's copy is clean, and so not lowered by us
  const std::uint64_t before_all = others.messages();
  for (const std::uint32_t page : layout.pattern().order()) {
    const struct dsm_stats before = stats();
    volatile std::uint64_t& word = layout.word(page);
    std::uint64_t found = stamp;
    const auto begin = Clock::now();
    if (write) {
      word = stamp + 1;
    } else {
      found = word;
    }
    const auto end = Clock::now();
    const struct dsm_stats after = stats();
    expect(found == stamp, "a page has the wrong bytes");
    expect(after.read_faults - before.read_faults == (write ? 0 : 1) &&
               after.write_faults - before.write_faults == (write ? 1 : 0) && after.messages - before.messages == 1,
           fmt::format("a sample was not one miss: {} read faults, {} write faults, {} messages sent",
                       after.read_faults - before.read_faults, after.write_faults - before.write_faults,
                       after.messages - before.messages));
    totals.values.push_back(std::chrono::duration<double, std::micro>(end - begin).count());
  }
  const std::uint64_t messages = others.messages() - before_all;
  expect(messages == 2 * std::uint64_t{layout.pattern().count},
         fmt::format("{} misses took {} messages, not 2 each", layout.pattern().count, messages));
  totals.messages += messages;
}

void barrier_block(const Layout& layout, const Others& others, Totals& totals) {
  const std::uint32_t amount = layout.pattern().count;
  const std::uint64_t before = others.messages();
  others.tell(0, {Command::Do::barriers, amount + 1});
  barriers(1, nullptr);  // wakes rank 0; not a sample
  barriers(amount, &totals.values);
  others.answer(0);
  const std::uint64_t messages = others.messages() - before;
  expect(messages == 2 * std::uint64_t{amount + 1},
         fmt::format("{} barriers took {} messages, not 2 each", amount + 1, messages));
  totals.messages += 2 * std::uint64_t{amount};
}

void limit_block(Limits& limits, const std::string& figure, Totals& totals) {
  const auto add = [](Samples& to, const Samples& from) { to.insert(to.end(), from.begin(), from.end()); };
  if (figure == "barrier_2") {
    add(totals.limits_remote, limits.measure(Limits::What::echo));
    return;
  }
  add(totals.limits_remote, limits.measure(Limits::What::page));
  add(totals.limits_local,
      limits.measure(figure == "write_miss" ? Limits::What::write_fault : Limits::What::read_fault));
}

// The machine's speed changes from one tenth of a second to the next: only what was measured side by side is compared.
double ratio_of_last_block(const Totals& totals, std::size_t samples) {
  const auto last = [&](const Samples& all) {
    return all.empty() ? 0 : median(Samples(all.end() - static_cast<std::ptrdiff_t>(samples), all.end()));
  };
  return last(totals.values) / (last(totals.limits_remote) + last(totals.limits_local));
}

Figure measure(const Task& task, const Layout& layout, Limits& limits) {
  const Others others(layout);
  Totals totals;
  // Block 0 warms up both sides, and is then forgotten.
  for (unsigned block = 0; block <= task.blocks; ++block) {
    if (task.figure == "barrier_2") {
      barrier_block(layout, others, totals);
    } else {
      miss_block(layout, others, task.figure == "write_miss", 1000 + block * 10ULL, totals);
    }
    limit_block(limits, task.figure, totals);
    totals.ratios.push_back(ratio_of_last_block(totals, layout.pattern().count));
    if (block == 0) totals = {};
  }
  others.end();
  Figure figure{task.figure, task.regime, "us", median(totals.values), 0, 0, totals.values.size(), 0};
  figure.limit = median(totals.limits_remote) + median(totals.limits_local);
  figure.ratio = median(totals.ratios);
  figure.messages = static_cast<double>(totals.messages) / static_cast<double>(figure.n);
  return figure;
}

}  // namespace

const std::vector<std::string>& figures() {
  static const std::vector<std::string> names = {"read_miss", "write_miss", "barrier_2"};
  return names;
}

// A read miss is clean when the home itself may only read: a third rank reads first and so lowers the home.
int ranks_for(const std::string& figure) {
  if (figure == "read_miss") return 3;
  return figure == "write_miss" || figure == "barrier_2" ? 2 : 0;
}

void run_rank(const Task& task, int argc, char** argv) {
  const char* text = std::getenv("DSMEXEC_RANKID");
  if (text == nullptr) throw std::runtime_error("this is started by dsmexec; run the program without --rank");
  const bool measures = std::string(text) == "1";
  pin(measures ? task.cpu_here : task.cpu_home);

  // Before dsm_init, while there is one thread: the limits' processes know nothing of the DSM.
  std::optional<Limits> limits;
  if (measures) {
    const Pattern pattern{task.block_size, static_cast<std::uint32_t>(ranks_for(task.figure))};
    limits.emplace(task.cpu_here, task.cpu_home, pattern);
  }
  char* base = dsm_init(argc, argv);
  if (base == nullptr) ipc::throw_errno("dsm_init");
  expect(DSM_NODE_NUM == ranks_for(task.figure), "the job has the wrong number of ranks");
  const Layout layout(base, task);

  ipc::Fd listener;
  if (!measures) {
    listener = ipc::listen_tcp("127.0.0.1", 0);
    layout.port(DSM_NODE_ID) = ipc::local_port(listener.get());
  }
  ipc::check(dsm_barrier(), "dsm_barrier");
  if (measures) {
    std::printf("%s\n", to_json(measure(task, layout, *limits)).c_str());
    std::fflush(stdout);
  } else {
    ipc::set_nonblocking(listener.get(), false);
    obey(accept_one(listener.get()).get(), layout);
  }
  dsm_finalize();
}

}  // namespace bench
