// dshm_litmus - the litmus tests of dsm_litmus on a System V segment. Plain System V: it runs natively, and under dshmrun
// with each member on a host of its own.
//
//   $ dshm_litmus sb 4711 --members 2 --member 0 & dshm_litmus sb 4711 --members 2 --member 1
//
// Rounds begin at a barrier of semaphores, which moves no page. Exit 1 when an outcome is forbidden, or when a member does
// not come within 20 s.
#include <sys/ipc.h>
#include <sys/sem.h>
#include <sys/shm.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <exception>
#include <string>
#include <vector>

#include "dsm/tests/litmus_play.hpp"
#include "ipc/error.hpp"
#include "ipc/program.hpp"

namespace {

constexpr std::size_t page = 4096, room = std::size_t{64} << 20;  // most of it is never touched

// Semaphore 0 counts who has come; semaphore n lets member n go on.
class Segment : public litmus::Ground {
 public:
  Segment(key_t key, int me, int members)
      : me_(static_cast<unsigned short>(me)), members_(static_cast<unsigned short>(members)) {
    set_ = ipc::check(::semget(key, members, IPC_CREAT | 0600), "semget");
    id_ = ipc::check(::shmget(key, room, IPC_CREAT | 0600), "shmget");
    base_ = static_cast<char*>(::shmat(id_, nullptr, 0));
    ipc::check(reinterpret_cast<std::intptr_t>(base_), "shmat");
  }
  Segment(const Segment&) = delete;

  [[nodiscard]] std::size_t me() const override { return me_; }
  [[nodiscard]] std::size_t members() const override { return members_; }
  [[nodiscard]] std::size_t page_bytes() const override { return page; }
  [[nodiscard]] char* base() const override { return base_; }
  [[nodiscard]] char* allocate(std::size_t bytes) override {
    const std::size_t begin = used_, pages = (bytes + page - 1) / page;
    if (pages * page > room - begin) return errno = ENOMEM, nullptr;
    used_ += pages * page;
    return base_ + begin;
  }
  [[nodiscard]] bool barrier() override {
    if (me_ != 0) return operate({{0, 1, 0}}) && operate({{me_, -1, 0}});
    return operate({{0, static_cast<short>(1 - members_), 0}}) && let_go();
  }

  // The first member removes all when the others need nothing more.
  void leave() {
    if (me_ != 0) return static_cast<void>(operate({{0, 1, 0}}));
    static_cast<void>(operate({{0, static_cast<short>(1 - members_), 0}}));
    ipc::check(::shmctl(id_, IPC_RMID, nullptr), "shmctl IPC_RMID");
    ipc::check(::semctl(set_, 0, IPC_RMID), "semctl IPC_RMID");
  }

 private:
  [[nodiscard]] bool let_go() {
    std::vector<sembuf> all;
    for (unsigned short other = 1; other < members_; ++other) all.push_back({other, 1, 0});
    return operate(std::move(all));
  }
  [[nodiscard]] bool operate(std::vector<sembuf> operations) const {
    const timespec limit{20, 0};
    if (::semtimedop(set_, operations.data(), operations.size(), &limit) == 0) return true;
    std::perror(errno == EAGAIN ? "dshm_litmus: another member does not come" : "dshm_litmus: semtimedop");
    return false;
  }

  unsigned short me_, members_;
  int set_ = -1, id_ = -1;
  char* base_ = nullptr;
  std::size_t used_ = 0;
};

int run(int argc, char** argv) {
  litmus::Options o;
  int me = 0, members = 2;
  ipc::Program about;
  about.usage = "dshm_litmus sb|mp|iriw|corr|two-homes[-sb|-mp|-2+2w] KEY [options]";
  about.operands = {"NAME", "KEY"};
  ipc::add_number(about.options, "members", members, 2, 64, "processes that play");
  ipc::add_number(about.options, "member", me, 0, 63, "which of them this is");
  ipc::add_number(about.options, "rounds", o.rounds, std::size_t{1}, std::size_t{1000000}, "how many");
  ipc::add_number(about.options, "seed", o.seed, 0U, 4000000000U, "of what is random");
  about.options.add_options()("delays", ipc::po::value(&o.delays), "on (the default): random delays; off")(
      "frequencies", ipc::po::value(&o.frequencies), "on (the default): no allowed outcome may be too rare; off");
  return ipc::run_program(argc, argv, about, [&](const auto& values) {
    o.name = values["NAME"].template as<std::string>();
    if (!litmus::understood(o) || me >= members) throw ipc::UsageError("no such test, or not such a test");
    Segment segment(static_cast<key_t>(ipc::whole_number(values["KEY"].template as<std::string>())), me, members);
    const bool ok = litmus::run_all(o, segment, "dshm_litmus");
    segment.leave();
    return ok ? 0 : 1;
  });
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "dshm_litmus: %s\n", error.what());
    return 1;
  }
}
