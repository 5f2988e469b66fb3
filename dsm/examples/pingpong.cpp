// pingpong - two processes take turns: first by looking at a variable, then by two semaphores.
//
// Two ranks count one number up, each every second time. Whose turn it is can be told in two ways:
//
//   a plain variable   Each looks at `turn` until it is its own. That costs nothing but a processor while nothing
//                      changes: whoever looks has a copy of the page, which the other takes from it by writing. Then it
//                      looks again, a fault, and gets the new one.
//   two semaphores     Each waits for its own, and posts the other's. Who waits sleeps; no page is asked for in vain.
//
// Compare the faults and messages of the two. Other ranks take no part.
//
//   $ build/bin/dsmexec machine_file pingpong
//   [Proc 0 : localhost : stdout] a plain variable: 1000 turns in 0.22 s, 2001 faults, 4006 messages
//   [Proc 0 : localhost : stdout] two semaphores: 1000 turns in 0.23 s, 2000 faults, 6003 messages
//   [Proc 0 : localhost : stdout] pingpong: OK
//
// By hand, in two terminals, each of which waits for the other (`build/bin/dsmd &` first):
//
//   $ DSM_SESSION=localhost:8080/pp:2 build/bin/pingpong
#include <thread>

#include "dsm/examples/example.hpp"

namespace {

constexpr int players = 2;

// In pages of their own: the semaphores' number does not travel with the variable.
struct Shared {
  alignas(4096) int turn;    // how many turns have been taken: even, it is rank 0's
  alignas(4096) long count;  // what the semaphores guard
};

// The region is sequentially consistent, but a compiler may keep a plain int in a register: so it is told.
void by_variable(Shared& shared, std::size_t rounds) {
  const std::atomic_ref turn(shared.turn);
  for (std::size_t round = 0; round < rounds; ++round) {
    const int mine = static_cast<int>(2 * round) + DSM_NODE_ID;
    while (turn.load() != mine) std::this_thread::yield();
    turn.store(mine + 1);
  }
}

void by_semaphores(Shared& shared, std::size_t rounds) {
  dsm::Semaphore mine(DSM_NODE_ID == 0 ? "ping" : "pong", DSM_NODE_ID == 0 ? 1 : 0);
  dsm::Semaphore other(DSM_NODE_ID == 0 ? "pong" : "ping", DSM_NODE_ID == 0 ? 0 : 1);
  for (std::size_t round = 0; round < rounds; ++round) {
    mine.acquire();
    if (shared.count != static_cast<long>(2 * round) + DSM_NODE_ID) throw std::runtime_error("it was another's turn");
    ++shared.count;
    other.release();
  }
}

// What this rank has done, and the time, until the next one says.
class Stage {
 public:
  explicit Stage(const char* name) : name_(name) { dsm_stats(&before_); }
  // Collective: all ranks together have taken so many turns.
  void end(std::size_t turns) {
    struct dsm_stats now {};
    dsm_stats(&now);
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start_;
    const std::int64_t mine[] = {
        static_cast<std::int64_t>(now.read_faults + now.write_faults - before_.read_faults - before_.write_faults),
        static_cast<std::int64_t>(now.messages - before_.messages)};
    std::int64_t all[2] = {};
    dsm_reduce_i64(0, mine, all, 2, DSM_SUM);
    if (DSM_NODE_ID != 0) return;
    std::printf("%s: %zu turns in %.2f s, %lld faults, %lld messages\n", name_, turns, time.count(),
                static_cast<long long>(all[0]), static_cast<long long>(all[1]));
  }

 private:
  const char* const name_;
  struct dsm_stats before_ {};
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace

int main(int argc, char** argv) {
  std::size_t rounds = 0;
  example::Program program(argc, argv, "two ranks take turns, by a variable and by semaphores");
  program.number("rounds", rounds, 500, {1, 1'000'000}, "turns of each of the two");

  return program.run([&](dsm::Job& job, example::Check& check) {
    Shared& shared = *reinterpret_cast<Shared*>(job.alloc<char>(sizeof(Shared)).data());
    const bool plays = job.rank() < players && job.size() >= players;
    if (job.size() < players) std::printf("pingpong: it takes two ranks to have turns\n");

    Stage variable("a plain variable");
    if (plays) by_variable(shared, rounds);
    job.barrier();
    variable.end(plays ? 2 * rounds : 0);

    Stage semaphores("two semaphores");
    if (plays) by_semaphores(shared, rounds);
    job.barrier();
    semaphores.end(plays ? 2 * rounds : 0);

    return check.verify([&] {
      const long expected = plays ? static_cast<long>(2 * rounds) : 0;
      long found[] = {shared.turn, shared.count}, both[] = {expected, expected};
      return check.same<long>("count", found, both);
    });
  });
}
