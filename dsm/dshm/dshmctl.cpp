// dshmctl - looks at the System V objects of a dsmd, removes them, reads and writes segments.
//
//   $ dshmctl -s node1:8080 list
//   shared memory segments
//           ID         KEY OWNER      MODE        BYTES  ATTACHED  STATUS
//            0  0x00001d5a me         0600         4096         2
//   semaphore sets
//           ID         KEY OWNER      MODE   SEMAPHORES
//            0  0x00001d5a me         0600            2
//   $ dshmctl -s node1:8080 read 0 0 5
//   hello
//
// Plain System V calls, those of libdshm; so it may do what whoever starts it may do. Exit code: 0, 1 (something failed), 2
// (misuse).
#include <pwd.h>
#include <sys/ipc.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <limits>
#include <optional>

#include "dsm/dshm/objects.hpp"
#include "ipc/program.hpp"

namespace {

using ipc::UsageError;
using Words = std::vector<std::string>;

// semctl(2): "must be defined by the caller".
union Semun {
  int val;
  semid_ds* buf;
  unsigned short* array;
  seminfo* info;
};

std::string format(const char* how, auto... values) {
  const int length = std::snprintf(nullptr, 0, how, values...);
  std::string text(static_cast<std::size_t>(length) + 1, '\0');
  std::snprintf(text.data(), text.size(), how, values...);
  text.pop_back();
  return text;
}

// ---- the objects -----------------------------------------------------------------------------------------------------

std::string user(uid_t uid) {
  const passwd* const entry = ::getpwuid(uid);
  return entry != nullptr ? entry->pw_name : std::to_string(uid);
}
std::string moment(time_t seconds) {
  if (seconds == 0) return "never";
  tm parts{};
  char text[64];
  ::localtime_r(&seconds, &parts);
  return std::string(text, std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &parts));
}
unsigned key_of(const ipc_perm& perm) { return static_cast<unsigned>(perm.__key); }
unsigned mode_of(const ipc_perm& perm) { return perm.mode & 0777U; }
std::string status_of(const ipc_perm& perm) {
  std::string words;
  if ((perm.mode & SHM_DEST) != 0) words += " dest";
  if ((perm.mode & SHM_LOCKED) != 0) words += " locked";
  return words.empty() ? words : words.substr(1);
}

[[noreturn]] void fail(const std::string& what, int id) {
  if (errno == EINVAL) throw std::runtime_error(what + " " + std::to_string(id) + ": there is none of this id");
  ipc::throw_errno(what + " " + std::to_string(id));
}

shmid_ds stat_segment(int id) {
  shmid_ds stat{};
  if (::shmctl(id, IPC_STAT, &stat) == -1) fail("segment", id);
  return stat;
}

// An attach, until it goes.
class Attached {
 public:
  Attached(int id, int flags) : data_(static_cast<char*>(::shmat(id, nullptr, flags))) {
    if (data_ == reinterpret_cast<char*>(-1)) fail("segment", id);
  }
  Attached(const Attached&) = delete;
  ~Attached() { ::shmdt(data_); }
  [[nodiscard]] char* at(std::uint64_t offset) const { return data_ + offset; }

 private:
  char* data_;
};

// ---- list ------------------------------------------------------------------------------------------------------------

// Between two calls an object may have gone (EINVAL, EIDRM): it is left out.
void list_segments() {
  ipc::say("shared memory segments\n        ID         KEY OWNER      MODE        BYTES  ATTACHED  STATUS");
  shm_info info{};
  const int last = ipc::check(::shmctl(0, SHM_INFO, reinterpret_cast<shmid_ds*>(&info)), "SHM_INFO");
  for (int index = 0; index <= last; ++index) {
    shmid_ds stat{};
    const int id = ::shmctl(index, SHM_STAT_ANY, &stat);
    if (id == -1) continue;
    std::string line = format("%10d  0x%08x %-10s %04o %12zu %9lu  %s", id, key_of(stat.shm_perm),
                              user(stat.shm_perm.uid).c_str(), mode_of(stat.shm_perm), stat.shm_segsz,
                              static_cast<unsigned long>(stat.shm_nattch), status_of(stat.shm_perm).c_str());
    ipc::say(line.substr(0, line.find_last_not_of(' ') + 1));
  }
}

void list_sets() {
  ipc::say("semaphore sets\n        ID         KEY OWNER      MODE   SEMAPHORES");
  seminfo info{};
  Semun to{};
  to.info = &info;
  const int last = ipc::check(::semctl(0, 0, SEM_INFO, to), "SEM_INFO");
  for (int index = 0; index <= last; ++index) {
    semid_ds stat{};
    to.buf = &stat;
    const int id = ::semctl(index, 0, SEM_STAT_ANY, to);
    if (id == -1) continue;
    ipc::say(format("%10d  0x%08x %-10s %04o %12lu", id, key_of(stat.sem_perm), user(stat.sem_perm.uid).c_str(),
                    mode_of(stat.sem_perm), static_cast<unsigned long>(stat.sem_nsems)));
  }
}

// ---- stat ------------------------------------------------------------------------------------------------------------

void show(const char* what, const std::string& value) { ipc::say(format("%-10s %s", what, value.c_str())); }

void show_permissions(int id, const ipc_perm& perm) {
  show("id", std::to_string(id));
  show("key", format("0x%08x", key_of(perm)));
  show("mode", format("%04o", mode_of(perm)));
  show("owner", format("%s, group %u", user(perm.uid).c_str(), perm.gid));
  show("creator", format("%s, group %u", user(perm.cuid).c_str(), perm.cgid));
}

// What dsmd tells of itself. Of all that is here the only thing that System V has no call for.
std::string report() {
  dsm::sysv::Question question;
  question.call = dsm::sysv::Call::report;
  dsm::sysv::Answer answer;
  errno = dsm::dshm::ask_quietly(question, answer);
  if (errno != 0) ipc::throw_errno("dsmd");
  return answer.text.substr(0, answer.text.find_last_not_of('\n') + 1);
}

void show_segment(int id) {
  const shmid_ds stat = stat_segment(id);
  show_permissions(id, stat.shm_perm);
  show("bytes", std::to_string(stat.shm_segsz));
  show("attached", std::to_string(stat.shm_nattch));
  show("made by", "pid " + std::to_string(stat.shm_cpid));
  show("last used", stat.shm_lpid == 0 ? "by nobody" : "by pid " + std::to_string(stat.shm_lpid));
  show("attach", moment(stat.shm_atime));
  show("detach", moment(stat.shm_dtime));
  show("change", moment(stat.shm_ctime));
  const std::string status = status_of(stat.shm_perm);
  if (!status.empty()) show("status", status);
}

void show_set(int id) {
  semid_ds stat{};
  Semun to{};
  to.buf = &stat;
  if (::semctl(id, 0, IPC_STAT, to) == -1) fail("semaphore set", id);
  show_permissions(id, stat.sem_perm);
  show("operation", moment(stat.sem_otime));
  show("change", moment(stat.sem_ctime));
  std::vector<unsigned short> values(stat.sem_nsems);
  to.array = values.data();
  if (::semctl(id, 0, GETALL, to) == -1) fail("semaphore set", id);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const int number = static_cast<int>(i);
    show(format("semaphore %d", number).c_str(),
         format("%d  last pid %d, %d wait for more, %d for 0", values[i], ::semctl(id, number, GETPID),
                ::semctl(id, number, GETNCNT), ::semctl(id, number, GETZCNT)));
  }
}

// ---- read, write -----------------------------------------------------------------------------------------------------

// What is shared goes through this, so that no system call meets a page that is elsewhere.
constexpr std::size_t chunk = std::size_t{64} << 10U;

void expect_inside(int id, std::uint64_t offset, std::uint64_t length, std::uint64_t size) {
  if (offset <= size && length <= size - offset) return;
  throw std::runtime_error(format("segment %d has %llu bytes: there are no %llu from offset %llu on", id,
                                  static_cast<unsigned long long>(size), static_cast<unsigned long long>(length),
                                  static_cast<unsigned long long>(offset)));
}

void read_segment(int id, std::uint64_t offset, std::optional<std::uint64_t> length) {
  const std::uint64_t size = stat_segment(id).shm_segsz;
  expect_inside(id, offset, length.value_or(0), size);
  const std::uint64_t end = offset + length.value_or(size - offset);
  const Attached memory(id, SHM_RDONLY);
  while (offset < end) {
    const auto part = static_cast<std::size_t>(std::min<std::uint64_t>(chunk, end - offset));
    const std::string bytes(memory.at(offset), part);
    errno = 0;
    if (!std::cout.write(bytes.data(), static_cast<std::streamsize>(part))) ipc::throw_errno("standard output");
    offset += part;
  }
  if (!std::cout.flush()) ipc::throw_errno("standard output");
}

// All of what comes on standard input, up to one byte more than `most`.
std::string read_input(std::uint64_t most) {
  std::string all;
  std::vector<char> bytes(chunk);
  while (all.size() <= most) {
    const ssize_t got = ::read(STDIN_FILENO, bytes.data(), bytes.size());
    if (got == -1 && errno == EINTR) continue;
    if (got == 0) break;
    all.append(bytes.data(), static_cast<std::size_t>(ipc::check(got, "standard input")));
  }
  return all;
}

// Nothing is written of what does not fit as a whole.
void write_segment(int id, std::uint64_t offset) {
  const std::uint64_t size = stat_segment(id).shm_segsz;
  expect_inside(id, offset, 0, size);
  const std::string all = read_input(size - offset);
  if (all.size() > size - offset) {
    throw std::runtime_error(
        format("segment %d has room for %llu bytes from offset %llu on; more came, and nothing was written", id,
               static_cast<unsigned long long>(size - offset), static_cast<unsigned long long>(offset)));
  }
  const Attached memory(id, 0);
  all.copy(memory.at(offset), all.size());
}

// ---- the command line ------------------------------------------------------------------------------------------------

struct Command {
  std::string name;
  bool of_sets = false;  // -s
  Words words{};
};

std::uint64_t number(const std::string& word, std::uint64_t most, const char* what) {
  std::int64_t value = -1;
  try {
    value = ipc::whole_number(word);
  } catch (const std::runtime_error& error) {
    throw UsageError(std::string(what) + ": " + error.what());
  }
  if (value < 0 || static_cast<std::uint64_t>(value) > most)
    throw UsageError(std::string(what) + " " + word + ": a number from 0 up is needed");
  return static_cast<std::uint64_t>(value);
}
int id_of(const std::string& word) { return static_cast<int>(number(word, std::numeric_limits<int>::max(), "ID")); }
std::uint64_t bytes_of(const std::string& word, const char* what) {
  return number(word, std::numeric_limits<std::int64_t>::max(), what);
}

// All that can be removed is, whatever fails before.
int remove_all(const Command& command) {
  int failed = 0;
  std::vector<int> ids;
  for (const std::string& word : command.words) ids.push_back(id_of(word));
  for (const int id : ids) {
    try {
      if (command.of_sets ? ::semctl(id, 0, IPC_RMID) == -1 : ::shmctl(id, IPC_RMID, nullptr) == -1)
        fail(command.of_sets ? "semaphore set" : "segment", id);
    } catch (const std::exception& error) {
      ipc::detail::complain("dshmctl", error.what());
      failed = 1;
    }
  }
  return failed;
}

void expect_words(const Command& command, std::size_t least, std::size_t most, const char* form) {
  if (command.words.size() < least || command.words.size() > most)
    throw UsageError(std::string("it is: dshmctl ") + form);
  if (command.of_sets && command.name != "stat" && command.name != "rm") throw UsageError("-s is for stat and rm");
}

int run(const Command& command) {
  const Words& words = command.words;
  if (command.name == "list") {
    expect_words(command, 0, 0, "list");
    list_segments();
    list_sets();
  } else if (command.name == "stat") {
    expect_words(command, command.of_sets ? 1 : 0, 1, "stat, or stat [-s] ID");
    if (words.empty()) ipc::say(report());
    if (!words.empty()) command.of_sets ? show_set(id_of(words[0])) : show_segment(id_of(words[0]));
  } else if (command.name == "rm") {
    expect_words(command, 1, std::numeric_limits<std::size_t>::max(), "rm [-s] ID...");
    return remove_all(command);
  } else if (command.name == "read") {
    expect_words(command, 1, 3, "read ID [OFFSET LENGTH]");
    if (words.size() == 2) throw UsageError("it is: dshmctl read ID [OFFSET LENGTH]");
    const bool part = words.size() == 3;
    read_segment(id_of(words[0]), part ? bytes_of(words[1], "OFFSET") : 0,
                 part ? std::optional(bytes_of(words[2], "LENGTH")) : std::nullopt);
  } else if (command.name == "write") {
    expect_words(command, 2, 2, "write ID OFFSET");
    write_segment(id_of(words[0]), bytes_of(words[1], "OFFSET"));
  } else {
    throw UsageError("'" + ipc::printable(command.name) + "' is no command");
  }
  return 0;
}

// What stands behind the command is the command's: there -s means sets, and not a server.
Command take_command(int& argc, char** argv) {
  int at = 1;
  while (at < argc && argv[at][0] == '-') {
    const std::string word = argv[at];
    at += word == "-s" || word == "--server" ? 2 : 1;
  }
  Command command;
  if (at >= argc) return command;
  command.name = argv[at];
  for (int i = at + 1; i < argc; ++i) {
    if (std::string(argv[i]) == "-s" && i == at + 1) {
      command.of_sets = true;
    } else {
      command.words.emplace_back(argv[i]);
    }
  }
  argc = at;
  return command;
}

}  // namespace

int main(int argc, char** argv) {
  ::unsetenv("DSHM_KEYS");  // it is about dsmd's objects, whatever programs use
  std::string server;
  ipc::Program about;
  about.usage =
      "dshmctl [-s HOST:PORT] COMMAND\nLooks at the System V objects of a dsmd, removes them, reads and writes "
      "segments.\n\n"
      "  list                     all segments and semaphore sets\n"
      "  stat                     what dsmd tells of itself: hosts, losses\n"
      "  stat [-s] ID             one segment (-s: semaphore set)\n"
      "  rm [-s] ID...            remove segments (-s: semaphore sets)\n"
      "  read ID [OFFSET LENGTH]  bytes of a segment, to standard output\n"
      "  write ID OFFSET          standard input, into a segment\n\n"
      "-s HOST:PORT stands before COMMAND; behind it, -s is for semaphore sets. DSHM_KEYS does not count here.";
  about.options.add_options()("server,s", ipc::po::value(&server)->value_name("HOST:PORT"),
                              "whose objects (default: $DSHM_SERVER, else localhost:8080)");
  const bool asks_help = argc == 2 && (std::string(argv[1]) == "--help" || std::string(argv[1]) == "-h");
  const Command command = take_command(argc, argv);
  return ipc::run_program(argc, argv, about, [&](const auto&) {
    if (command.name.empty() && !asks_help) throw UsageError("a command is missing");
    if (!server.empty()) {
      ::setenv("DSHM_SERVER", server.c_str(), 1);
    } else {
      ::setenv("DSHM_SERVER", "localhost:8080", 0);
    }
    return run(command);
  });
}
