// A member of a session that does one thing: `daemon_run_test --member MODE COUNT`. Some speak the rendezvous only, to do
// what libdsm does not.
#include <dsm/dsm.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <map>

#include "dsm/net/key_file.hpp"
#include "dsm/net/mesh.hpp"
#include "dsm/tests/daemon_bench.hpp"
#include "ipc/socket.hpp"

namespace dsm::daemon::testing {
namespace {

void say(const char* what) {
  std::printf("%s %d\n", what, DSM_NODE_ID);
  std::fflush(stdout);
}

[[noreturn]] void wait_for_ever() {
  for (;;) ::pause();
}

std::atomic_ref<long> counter(char* base) { return std::atomic_ref(*reinterpret_cast<long*>(base)); }

// ---- by libdsm ----

int barriers(char*, int count) {
  for (int i = 0; i < count; ++i) {
    if (dsm_barrier() != 0) return 1;
  }
  return 0;
}

// From each member to the next.
int semaphores(char* base, int count) {
  const auto name = [](int rank) { return "turn-" + std::to_string(rank % DSM_NODE_NUM); };
  dsm_sem_t* const mine = dsm_sem_open(name(DSM_NODE_ID).c_str(), DSM_NODE_ID == 0 ? 1 : 0);
  dsm_sem_t* const next = dsm_sem_open(name(DSM_NODE_ID + 1).c_str(), DSM_NODE_ID + 1 == DSM_NODE_NUM ? 1 : 0);
  if (mine == nullptr || next == nullptr) return 1;
  for (int i = 0; i < count; ++i) {
    if (dsm_sem_wait(mine) != 0) return 1;
    if (counter(base).fetch_add(1) != static_cast<long>(i) * DSM_NODE_NUM + DSM_NODE_ID) return 1;
    if (dsm_sem_post(next) != 0) return 1;
  }
  return dsm_sem_close(mine) == 0 && dsm_sem_close(next) == 0 ? 0 : 1;
}

int work(char* base, int count) {
  for (int i = 0; i < count; ++i) {
    counter(base).fetch_add(1);
    if (dsm_barrier() != 0) return 1;
  }
  return counter(base) == static_cast<long>(count) * DSM_NODE_NUM ? 0 : 1;
}

// The others wait at the barrier, rank `count` never comes.
int barrier_without(char*, int count) {
  say("runs");
  if (DSM_NODE_ID == count) wait_for_ever();
  return dsm_barrier();
}

// Has a child that lives on, with all that it has inherited, but not for ever.
int fork_and_wait(char*, int) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(60);
    wait_for_ever();
  }
  std::printf("child %d\n", static_cast<int>(child));
  say("runs");
  wait_for_ever();
}

// It looks at shared memory, and computes for ever.
int spin(char* base, int) {
  say("runs");
  while (counter(base) >= 0) {
  }
  return 1;
}

// They meet again and again, until there is a file beside the key's.
int until_told(char* base, int) {
  const std::string enough = std::string(std::getenv("DSM_KEY_FILE")) + ".enough";
  const std::atomic_ref<long> told(*reinterpret_cast<long*>(base + 4096));
  bool over = false;
  long rounds = 0;
  for (; !over; ++rounds) {
    counter(base).fetch_add(1);
    if (DSM_NODE_ID == 0 && ::access(enough.c_str(), F_OK) == 0) told = 1;
    if (dsm_barrier() != 0) return 1;
    over = told != 0;
    if (counter(base) != (rounds + 1) * DSM_NODE_NUM) return 1;
    if (dsm_barrier() != 0) return 1;
    if (rounds % 64 == 0) say("meets");
  }
  return 0;
}

int finalize_without(char*, int count) {
  say("runs");
  if (DSM_NODE_ID == count) wait_for_ever();
  return 0;
}

int leave_without_finalize(char*, int count) {
  say("runs");
  if (DSM_NODE_ID == count) std::_Exit(0);
  return dsm_barrier();
}

int as_library(const std::string& mode, int count) {
  const std::map<std::string, int (*)(char*, int)> modes = {{"barriers", barriers},
                                                            {"semaphores", semaphores},
                                                            {"work", work},
                                                            {"barrier-without", barrier_without},
                                                            {"spin", spin},
                                                            {"fork", fork_and_wait},
                                                            {"until-told", until_told},
                                                            {"finalize-without", finalize_without},
                                                            {"leave", leave_without_finalize}};
  char* const base = dsm_init(0, nullptr);
  if (base == nullptr) return 3;
  const int code = modes.at(mode)(base, count);
  if (code == 0) dsm_finalize();
  return code;
}

// dsm_join instead of the environment: where, and how many.
int by_call(int members) {
  const std::string text = std::getenv("DSM_SESSION");
  const std::string where = text.substr(0, text.rfind(':'));
  ::setenv("DSM_SESSION", "nonsense", 1);  // counts less
  if (dsm_join("nowhere", 2) != -1 || errno != EINVAL || dsm_join(where.c_str(), members) != 0) return 4;
  if (dsm_init(0, nullptr) == nullptr) return 3;
  if (dsm_join(where.c_str(), members) != -1 || errno != EALREADY || DSM_NODE_NUM != members) return 5;
  dsm_finalize();
  return 0;
}

// ---- by hand ----

struct Guest {
  net::SessionAddress where;
  net::JobKey key;
  std::optional<net::Channel> daemon;

  Guest() {
    std::string why;
    where = net::parse_session(std::getenv("DSM_SESSION"), why).value();
    key = net::read_key_file(net::usual_key_file());
    daemon.emplace(net::connect(where.host, where.port, key, launch::testing::Clock::now() + launch::testing::patience,
                                net::max_control_body));
  }
  void enter(std::uint32_t newer = 0) {
    net::Platform platform = net::Platform::here();
    platform.version += newer;
    (void)net::send(*daemon, net::Enter{where.session, where.members, ::getpid(), 1, platform});
  }
  net::ControlMessage answer() {
    net::FrameHeader header{};
    if (daemon->receive_header(header) != net::Io::done) std::exit(6);
    std::vector<std::uint8_t> body(header.length + 1);
    if (daemon->receive_body(body.data()) != net::Io::done) std::exit(6);
    return net::read_control(header, body.data()).value();
  }
};

int another_version() {
  Guest guest;
  guest.enter(1);
  std::printf("%s\n", std::get<net::Refusal>(guest.answer()).why.c_str());
  return 0;
}

// Has a place, and then nothing.
int never_joins() {
  Guest guest;
  guest.enter();
  (void)std::get<net::Place>(guest.answer());
  say("placed");
  wait_for_ever();
}

// Gets its Welcome, and then its mesh port answers nobody: the others are in dsm_init.
int never_connects() {
  Guest guest;
  guest.enter();
  const auto place = std::get<net::Place>(guest.answer());
  const ipc::Fd door = ipc::listen_tcp("127.0.0.1", 0);
  (void)net::send(*guest.daemon, net::Join{place.rank, ::getpid(), ipc::local_port(door.get()), net::Platform::here()});
  (void)std::get<net::Welcome>(guest.answer());
  say("welcomed");
  wait_for_ever();
}

// Has the key, and says what nobody says.
int nonsense() {
  std::vector<Guest> guests(3);
  net::FrameHeader header{};
  header.kind = static_cast<std::uint8_t>(net::FrameKind::control);
  header.length = 0xffffffffU;
  (void)!::write(guests[0].daemon->fd(), &header, sizeof header);
  (void)net::send(*guests[1].daemon, net::Join{0, 1, 1, net::Platform::here()});
  (void)net::report(*guests[2].daemon, {net::Report::Phase::lost_peer, 0});
  for (Guest& guest : guests) {
    if (guest.daemon->receive_header(header) == net::Io::done) return 1;
  }
  Guest placed;
  placed.enter();
  (void)std::get<net::Place>(placed.answer());
  (void)net::report(*placed.daemon, {net::Report::Phase::finalized, 0});
  return std::holds_alternative<net::Refusal>(placed.answer()) ? 0 : 1;
}

}  // namespace

int member_main(const std::vector<std::string>& arguments) {
  const std::string& mode = arguments.at(0);
  const int count = std::stoi(arguments.at(1));
  if (mode == "call") return by_call(count);
  if (mode == "another-version") return another_version();
  if (mode == "never-joins") return never_joins();
  if (mode == "never-connects") return never_connects();
  if (mode == "nonsense") return nonsense();
  return as_library(mode, count);
}

}  // namespace dsm::daemon::testing

int main(int argc, char** argv) {
  ::signal(SIGPIPE, SIG_IGN);
  if (argc >= 3 && std::string(argv[1]) == "--member") {
    return dsm::daemon::testing::member_main({argv + 2, argv + argc});
  }
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
