// sysv_table: what every System V call of shared memory and semaphores does, one line for each case.
//
// The lines name no id, pid, key or time, so two runs print the same: on a bare kernel, and under dshmrun.
//
//   $ unshare -i build/bin/sysv_table >kernel        # in a namespace of its own: one row takes all segments there can be
//   $ build/bin/dshmrun build/bin/sysv_table >ours; diff kernel ours
//   $ build/bin/sysv_table --only sem                 # rows whose name has this in it
//   $ build/bin/sysv_table --role a --key 77 & build/bin/sysv_table --role b --key 77    # also on two hosts
//
// Started by root, each row is run as root and again as user 65534. Each is a process of its own, which is ended after
// --seconds (20). What a row has made is removed after it, even if it crashed.
#include "dsm/tests/sysv_table.hpp"

#include <fcntl.h>
#include <grp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <iterator>
#include <new>

namespace table {
namespace {

struct Made {
  std::atomic<int> count{0};
  struct One {
    bool set;
    int id;
  } all[20'000]{};
};
Made* made = nullptr;
key_t first_key = 0;
std::vector<pid_t> children;  // of this process, in the order in which they came
pid_t parent = 0;             // of this process, if it is a Child
volatile sig_atomic_t stopped = 0;

int noted(bool set, int id) {
  if (id < 0) return id;
  const int place = made->count++;
  if (place < static_cast<int>(std::size(made->all))) made->all[place] = {set, id};
  return id;
}

void remove_all() {
  const int count = std::min(made->count.load(), static_cast<int>(std::size(made->all)));
  for (int i = 0; i < count; ++i) {
    if (made->all[i].set) {
      ::semctl(made->all[i].id, 0, IPC_RMID);
    } else {
      ::shmctl(made->all[i].id, IPC_RMID, nullptr);
    }
  }
  made->count = 0;
}

[[noreturn]] void surprised(const char* what) {
  const std::string why = std::string("cannot: ") + what + ": " + said(-1L) + "\n";
  (void)!::write(STDOUT_FILENO, why.data(), why.size());
  ::_exit(3);
}

void become_nobody() {
  if (::geteuid() != 0) return;
  if (::setgroups(0, nullptr) != 0 || ::setresgid(nobody, nobody, nobody) != 0 ||
      ::setresuid(nobody, nobody, nobody) != 0)
    surprised("be an ordinary user");
}

std::string how(int status) {
  if (WIFSIGNALED(status)) return text("died by SIG%s", sigabbrev_np(WTERMSIG(status)));
  return text("ended with %d", WEXITSTATUS(status));
}

pid_t reap(pid_t pid, int& status) {
  pid_t got = 0;
  do got = ::waitpid(pid, &status, 0);
  while (got < 0 && errno == EINTR && stopped == 0);
  return got;
}

// The row's process leads a group, which ends with it.
bool run(const Row& row, bool as_user, unsigned seconds) {
  const std::string name = std::string(as_user ? "user " : "root ") + row.name;
  std::fflush(stdout);
  const pid_t pid = ::fork();
  if (pid < 0) return std::perror("sysv_table: fork"), false;
  if (pid == 0) {
    ::setpgid(0, 0);
    if (as_user) become_nobody();
    ::alarm(seconds);
    const std::string line = name + ": " + row.run() + "\n";
    (void)!::write(STDOUT_FILENO, line.data(), line.size());
    ::_exit(0);
  }
  ::setpgid(pid, pid);
  int status = 0;
  const bool ended = reap(pid, status) == pid;
  ::kill(-pid, SIGKILL);
  if (!ended) reap(pid, status);
  while (::waitpid(-pid, nullptr, 0) > 0) {
  }
  if (ended && status == 0) return true;
  std::printf("%s: %s\n", name.c_str(), how(status).c_str());
  return false;
}

}  // namespace

// ---- words

std::string text(const char* format, ...) {
  char room[2000];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(room, sizeof room, format, arguments);
  va_end(arguments);
  return room;
}

std::string said(long result) {
  if (result != -1) return "ok";
  const char* const name = ::strerrorname_np(errno);
  return name != nullptr ? name : text("errno %d", errno);
}
std::string said(const void* address) { return said(address == reinterpret_cast<void*>(-1) ? -1L : 0L); }

std::string who(pid_t pid) {
  if (pid == 0) return "0";
  if (pid == ::getpid()) return "me";
  if (pid == parent) return "parent";
  for (std::size_t i = 0; i < children.size(); ++i) {
    if (children[i] == pid) return i == 0 ? "child" : text("child%zu", i + 1);
  }
  return "other";
}

std::string when(std::int64_t seconds) {
  if (seconds == 0) return "0";
  return std::labs(static_cast<long>(seconds - std::time(nullptr))) < 3600 ? "set" : std::to_string(seconds);
}

namespace {
std::string perm(const ipc_perm& p) {
  const auto user = [](unsigned id) { return id == ::geteuid() ? std::string("mine") : std::to_string(id); };
  const auto group = [](unsigned id) { return id == ::getegid() ? std::string("mine") : std::to_string(id); };
  return text("key=%s uid=%s gid=%s cuid=%s cgid=%s mode=%05o", p.__key == 0 ? "0" : "given", user(p.uid).c_str(),
              group(p.gid).c_str(), user(p.cuid).c_str(), group(p.cgid).c_str(), p.mode);
}
}  // namespace

std::string segment(const shmid_ds& d) {
  return perm(d.shm_perm) + text(" size=%zu nattch=%lu cpid=%s lpid=%s atime=%s dtime=%s ctime=%s", d.shm_segsz,
                                 static_cast<unsigned long>(d.shm_nattch), who(d.shm_cpid).c_str(),
                                 who(d.shm_lpid).c_str(), when(d.shm_atime).c_str(), when(d.shm_dtime).c_str(),
                                 when(d.shm_ctime).c_str());
}
std::string segment(int id) {
  shmid_ds data{};
  return ::shmctl(id, IPC_STAT, &data) == 0 ? segment(data) : said(-1L);
}

std::string set(const semid_ds& d) {
  return perm(d.sem_perm) + text(" nsems=%lu otime=%s ctime=%s", static_cast<unsigned long>(d.sem_nsems),
                                 when(d.sem_otime).c_str(), when(d.sem_ctime).c_str());
}
std::string set(int id) {
  semid_ds data{};
  return ::semctl(id, 0, IPC_STAT, Semun{.buf = &data}) == 0 ? set(data) : said(-1L);
}

std::string values(int id) {
  semid_ds data{};
  if (::semctl(id, 0, IPC_STAT, Semun{.buf = &data}) != 0) return said(-1L);
  std::vector<unsigned short> all(data.sem_nsems);
  if (::semctl(id, 0, GETALL, Semun{.array = all.data()}) != 0) return said(-1L);
  std::string line;
  for (const unsigned short one : all) line += (line.empty() ? "" : ",") + std::to_string(one);
  return line;
}

// ---- objects

key_t key_number(int n) { return first_key + n; }
int get_segment(key_t key, std::size_t size, int flags) { return noted(false, ::shmget(key, size, flags)); }
int get_set(key_t key, int count, int flags) { return noted(true, ::semget(key, count, flags)); }

int new_segment(std::size_t size, int flags) {
  const int id = get_segment(IPC_PRIVATE, size, IPC_CREAT | flags);
  if (id < 0) surprised("shmget IPC_PRIVATE");
  return id;
}
int new_set(int count, int flags) {
  const int id = get_set(IPC_PRIVATE, count, IPC_CREAT | flags);
  if (id < 0) surprised("semget IPC_PRIVATE");
  return id;
}
char* attach(int id, int flags) {
  void* const address = ::shmat(id, nullptr, flags);
  if (address == reinterpret_cast<void*>(-1)) surprised("shmat");
  return static_cast<char*>(address);
}

int operate(int id, std::vector<sembuf> ops) { return ::semop(id, ops.data(), ops.size()); }
int set_value(int id, int number, int value) { return ::semctl(id, number, SETVAL, Semun{.val = value}); }
int set_values(int id, std::vector<unsigned short> all) { return ::semctl(id, 0, SETALL, Semun{.array = all.data()}); }
int value(int id, int number) { return ::semctl(id, number, GETVAL); }

void until(const std::function<bool()>& holds) {
  const timespec moment{0, 200'000};
  while (!holds()) ::nanosleep(&moment, nullptr);
}
void until_waiting(int id, int count, int number) {
  until([=] { return ::semctl(id, number, GETNCNT) == count; });
}

// ---- processes

Child::Child(const std::function<std::string(Child&)>& body) {
  int down[2], up[2];
  if (::pipe2(down, 0) != 0 || ::pipe2(up, 0) != 0) surprised("pipe");
  const pid_t me = ::getpid();
  pid_ = ::fork();
  if (pid_ < 0) surprised("fork");
  in_ = pid_ == 0 ? down[0] : up[0];
  out_ = pid_ == 0 ? up[1] : down[1];
  ::close(pid_ == 0 ? down[1] : down[0]);
  ::close(pid_ == 0 ? up[0] : up[1]);
  if (pid_ != 0) {
    children.push_back(pid_);
    return;
  }
  parent = me;
  children.clear();
  const std::string result = body(*this);
  (void)!::write(out_, result.data(), result.size());
  ::_exit(0);
}

Child::~Child() {
  ::close(in_);
  ::close(out_);
}

void Child::tell() {
  if (::write(out_, ".", 1) != 1) surprised("tell");
}
void Child::hear() {
  char word = 0;
  ssize_t got = 0;
  do got = ::read(in_, &word, 1);
  while (got < 0 && errno == EINTR);
  if (got != 1) surprised("hear");
}

std::string Child::ended() {
  std::string result;
  char room[2000];
  for (;;) {
    const ssize_t got = ::read(in_, room, sizeof room);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    result.append(room, static_cast<std::size_t>(got));
  }
  int status = 0;
  if (reap(pid_, status) != pid_) surprised("waitpid");
  return status == 0 ? result : how(status);
}

void Child::signal(int number) const { ::kill(pid_, number); }

std::string in_child(const std::function<std::string()>& body) {
  return Child([&](Child&) { return body(); }).ended();
}

std::string as(unsigned uid, unsigned gid, const std::function<std::string()>& body, const std::vector<gid_t>& groups) {
  return in_child([&] {
    if (::setgroups(groups.size(), groups.data()) != 0 || ::setegid(gid) != 0 || ::seteuid(uid) != 0)
      surprised("be another user");
    return body();
  });
}

void exec_and_hold(const Child& self) {
  const std::string in = std::to_string(self.in()), out = std::to_string(self.out());
  ::execl("/proc/self/exe", "sysv_table", "--hold", in.c_str(), out.c_str(), nullptr);
  surprised("exec");
}

int hold(int in, int out) {
  char word = '.';
  if (::write(out, &word, 1) != 1) return 3;
  return ::read(in, &word, 1) == 1 ? 0 : 3;
}

}  // namespace table

namespace {

using namespace table;

struct Options {
  std::string only{}, role{};
  key_t key = 0;
  unsigned seconds = 20;
};

[[noreturn]] void usage() {
  std::fprintf(stderr, "usage: sysv_table [--only PART-OF-NAME] [--seconds N] [--role a|b --key N]\n");
  std::exit(2);
}

Options read(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; i += 2) {
    const std::string name = argv[i];
    if (i + 1 == argc) usage();
    const char* const argument = argv[i + 1];
    if (name == "--only") {
      options.only = argument;
    } else if (name == "--seconds") {
      options.seconds = static_cast<unsigned>(std::atoi(argument));
    } else if (name == "--role" && (argument == std::string("a") || argument == std::string("b"))) {
      options.role = argument;
    } else if (name == "--key") {
      options.key = static_cast<key_t>(std::strtoll(argument, nullptr, 0));
    } else {
      usage();
    }
  }
  if (options.role.empty() != (options.key == 0)) usage();
  return options;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 4 && std::strcmp(argv[1], "--hold") == 0) return table::hold(std::atoi(argv[2]), std::atoi(argv[3]));
  const Options options = read(argc, argv);
  void* const shared = ::mmap(nullptr, sizeof(Made), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (shared == MAP_FAILED) return std::perror("sysv_table: mmap"), 3;
  made = new (shared) Made;
  first_key = options.key != 0
                  ? options.key
                  : static_cast<key_t>(0x40000000U | (static_cast<unsigned>(::getpid()) & 0x3fffffU) << 8U);
  // Children of a row that ended early become ours, and a row that is stopped from outside is cleaned up after.
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  struct sigaction stop {};
  stop.sa_handler = [](int) { stopped = 1; };
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) ::sigaction(number, &stop, nullptr);

  std::vector<Row> rows;
  if (options.role.empty()) {
    for (const auto& part : {get_rows(), attach_rows(), process_rows(), set_rows(), operation_rows(), age_rows()})
      rows.insert(rows.end(), part.begin(), part.end());
  } else {
    rows = pair_rows(options.role);
  }
  bool all = true;
  for (const Who round : {Who::root, Who::user}) {
    if (round == Who::root && ::geteuid() != 0) continue;
    if (round == Who::user && !options.role.empty() && ::geteuid() == 0) continue;
    for (const Row& row : rows) {
      if (stopped != 0 || (row.who != Who::both && row.who != round)) continue;
      if (std::string(row.name).find(options.only) != std::string::npos)
        all = run(row, round == Who::user, options.seconds) && all;
      // Rows of a pair use what an earlier one has made.
      if (options.role.empty()) remove_all();
    }
  }
  remove_all();
  return all && stopped == 0 ? 0 : 1;
}
