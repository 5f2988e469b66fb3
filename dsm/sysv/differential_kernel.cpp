// The kernel's side: processes that make the calls they are told to make.
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <fstream>

#include "dsm/sysv/differential.hpp"
#include "ipc/error.hpp"

namespace dsm::sysv::differential {
namespace {

union Semun {
  int val;
  semid_ds* buf;
  unsigned short* array;
  seminfo* info;
};

// The attaches of the process on whose seat we are, in the order in which they were made.
std::vector<void*> attached;

void put(Reply& reply, const ipc_perm& perm) {
  reply.fields[field::key] = perm.__key;
  reply.fields[field::uid] = perm.uid;
  reply.fields[field::gid] = perm.gid;
  reply.fields[field::cuid] = perm.cuid;
  reply.fields[field::cgid] = perm.cgid;
  reply.fields[field::mode] = perm.mode;
  reply.fields[field::seq] = perm.__seq;
}

void put(Reply& reply, const shmid_ds& data) {
  put(reply, data.shm_perm);
  reply.fields[field::size] = static_cast<std::int64_t>(data.shm_segsz);
  reply.fields[field::nattch] = static_cast<std::int64_t>(data.shm_nattch);
  reply.fields[field::cpid] = data.shm_cpid;
  reply.fields[field::lpid] = data.shm_lpid;
  reply.fields[field::atime] = data.shm_atime;
  reply.fields[field::dtime] = data.shm_dtime;
  reply.fields[field::ctime] = data.shm_ctime;
}

void put(Reply& reply, const semid_ds& data) {
  put(reply, data.sem_perm);
  reply.fields[field::size] = static_cast<std::int64_t>(data.sem_nsems);
  reply.fields[field::otime] = data.sem_otime;
  reply.fields[field::ctime] = data.sem_ctime;
}

Reply done(std::int64_t result) {
  if (result < 0) return {.error = errno};
  return {.value = result};
}

Reply stat_segment(int id, int command) {
  shmid_ds data{};
  Reply reply = done(::shmctl(id, command, &data));
  if (reply.error == 0) put(reply, data);
  return reply;
}

Reply stat_set(int id, int command) {
  semid_ds data{};
  Reply reply = done(::semctl(id, 0, command, Semun{.buf = &data}));
  if (reply.error == 0) put(reply, data);
  return reply;
}

Reply segment_info(int command) {
  shminfo limits{};
  shm_info totals{};
  void* const buffer = command == IPC_INFO ? static_cast<void*>(&limits) : &totals;
  Reply reply = done(::shmctl(0, command, static_cast<shmid_ds*>(buffer)));
  if (command == IPC_INFO) {
    reply.fields[field::size] = static_cast<std::int64_t>(limits.shmmax);
    reply.fields[field::nattch] = static_cast<std::int64_t>(limits.shmmni);
    reply.fields[field::key] = static_cast<std::int64_t>(limits.shmall);
  } else {
    reply.fields[field::nattch] = totals.used_ids;
    reply.fields[field::key] = static_cast<std::int64_t>(totals.shm_tot);
  }
  return reply;
}

Reply set_info(int command) {
  seminfo info{};
  Reply reply = done(::semctl(0, 0, command, Semun{.info = &info}));
  if (command == IPC_INFO) {
    reply.fields[field::size] = info.semmsl;
    reply.fields[field::nattch] = info.semmni;
    reply.fields[field::key] = info.semmns;
    reply.fields[field::mode] = info.semopm;
  } else {
    reply.fields[field::nattch] = info.semusz;
    reply.fields[field::key] = info.semaem;
  }
  return reply;
}

Reply attach(const Action& action) {
  void* const address = ::shmat(action.id, nullptr, action.flags);
  if (address == reinterpret_cast<void*>(-1)) return {.error = errno};
  attached.push_back(address);
  return {};
}

Reply detach(const Action& action) {
  const auto which = attached.begin() + action.number;
  void* const address = *which;
  attached.erase(which);
  return done(action.kind == Kind::shm_detach ? ::shmdt(address) : ::munmap(address, action.size));
}

Reply operate(const Action& action) {
  std::array<sembuf, max_ops> ops{};
  const auto count = static_cast<std::size_t>(action.count);
  for (std::size_t i = 0; i < count; ++i) ops[i] = {action.ops[i].number, action.ops[i].change, action.ops[i].flags};
  const timespec none{};
  if (action.kind == Kind::sem_operate_timed) return done(::semtimedop(action.id, ops.data(), count, &none));
  return done(::semop(action.id, ops.data(), count));
}

Reply set_perm(const Action& action) {
  shmid_ds segment{};
  segment.shm_perm.uid = action.uid;
  segment.shm_perm.gid = action.gid;
  segment.shm_perm.mode = static_cast<decltype(segment.shm_perm.mode)>(action.mode);
  if (action.kind == Kind::shm_set) return done(::shmctl(action.id, IPC_SET, &segment));
  semid_ds set{};
  set.sem_perm = segment.shm_perm;
  return done(::semctl(action.id, 0, IPC_SET, Semun{.buf = &set}));
}

Reply values(const Action& action) {
  Reply reply;
  std::array<std::uint16_t, max_values> room = action.values;
  reply = done(::semctl(action.id, 0, action.kind == Kind::sem_get_all ? GETALL : SETALL, Semun{.array = room.data()}));
  if (reply.error == 0 && action.kind == Kind::sem_get_all) reply.values = room;
  return reply;
}

Reply call(const Action& action) {
  switch (action.kind) {
    case Kind::shm_get:
      return done(::shmget(action.key, action.size, action.flags));
    case Kind::shm_attach:
      return attach(action);
    case Kind::shm_detach:
    case Kind::shm_munmap:
      return detach(action);
    case Kind::shm_remove:
      return done(::shmctl(action.id, IPC_RMID, nullptr));
    case Kind::shm_stat:
      return stat_segment(action.id, IPC_STAT);
    case Kind::shm_stat_index:
      return stat_segment(action.id, SHM_STAT);
    case Kind::shm_stat_any:
      return stat_segment(action.id, SHM_STAT_ANY);
    case Kind::shm_lock:
      return done(::shmctl(action.id, SHM_LOCK, nullptr));
    case Kind::shm_unlock:
      return done(::shmctl(action.id, SHM_UNLOCK, nullptr));
    case Kind::shm_limits:
      return segment_info(IPC_INFO);
    case Kind::shm_info:
      return segment_info(SHM_INFO);
    case Kind::shm_set:
    case Kind::sem_set:
      return set_perm(action);
    case Kind::sem_get:
      return done(::semget(action.key, action.count, action.flags));
    case Kind::sem_operate:
    case Kind::sem_operate_timed:
      return operate(action);
    case Kind::sem_get_value:
      return done(::semctl(action.id, action.number, GETVAL));
    case Kind::sem_get_pid:
      return done(::semctl(action.id, action.number, GETPID));
    case Kind::sem_get_ncnt:
      return done(::semctl(action.id, action.number, GETNCNT));
    case Kind::sem_get_zcnt:
      return done(::semctl(action.id, action.number, GETZCNT));
    case Kind::sem_get_all:
    case Kind::sem_set_all:
      return values(action);
    case Kind::sem_set_value:
      return done(::semctl(action.id, action.number, SETVAL, Semun{.val = action.value}));
    case Kind::sem_remove:
      return done(::semctl(action.id, 0, IPC_RMID));
    case Kind::sem_stat:
      return stat_set(action.id, IPC_STAT);
    case Kind::sem_stat_index:
      return stat_set(action.id, SEM_STAT);
    case Kind::sem_stat_any:
      return stat_set(action.id, SEM_STAT_ANY);
    case Kind::sem_limits:
      return set_info(IPC_INFO);
    case Kind::sem_info:
      return set_info(SEM_INFO);
    case Kind::fork:
      break;  // serve() does it
  }
  return {.error = ENOSYS};
}

// A process that its parent does not outlive, also not one that waits in semop. Changing ids makes the kernel forget it.
void end_with(pid_t parent) {
  ipc::check(::prctl(PR_SET_PDEATHSIG, SIGKILL), "prctl PR_SET_PDEATHSIG");
  if (::getppid() != parent) ::_exit(0);
}

void become(const User& user, pid_t parent) {
  if (users().size() == 1) return;
  ipc::check(::seteuid(0), "seteuid 0");
  ipc::check(::setgroups(user.groups.size(), user.groups.data()), "setgroups");
  ipc::check(::setegid(user.gid), "setegid");
  ipc::check(::seteuid(user.uid), "seteuid");
  end_with(parent);
}

void say_limits() {
  const auto write = [](const char* name, const std::string& limits) {
    std::ofstream file(std::string("/proc/sys/kernel/") + name);
    file << limits << std::flush;
    if (!file) ipc::throw_errno(std::string("write /proc/sys/kernel/") + name);
  };
  write("shmmax", std::to_string(segment_limits.max_size));
  write("shmall", std::to_string(segment_limits.max_pages));
  write("shmmni", std::to_string(segment_limits.max_count));
  write("sem", std::to_string(set_limits.per_set) + " " + std::to_string(set_limits.all) + " " +
                   std::to_string(set_limits.per_call) + " " + std::to_string(set_limits.sets));
}

}  // namespace

const std::vector<User>& users() {
  static const std::vector<User> all = [] {
    if (::geteuid() == 0)
      return std::vector<User>{{0, 0, {}}, {65534, 65534, {}}, {1001, 65534, {}}, {1002, 1002, {7, 1001, 65534}}};
    std::vector<gid_t> groups(static_cast<std::size_t>(ipc::check(::getgroups(0, nullptr), "getgroups")));
    ipc::check(::getgroups(static_cast<int>(groups.size()), groups.data()), "getgroups");
    return std::vector<User>{{::geteuid(), ::getegid(), groups}};
  }();
  return all;
}

Kernel::Kernel() {
  const int here = ipc::check(::open("/proc/self/ns/ipc", O_RDONLY | O_CLOEXEC), "open /proc/self/ns/ipc");
  if (::geteuid() == 0 && ::unshare(CLONE_NEWIPC) == 0) {
    old_namespace_ = here;
    say_limits();
  } else {
    ::close(here);
  }
  for (auto& pair : sockets_)
    ipc::check(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair.data()), "socketpair");
}

Kernel::~Kernel() {
  for (int seat = 0; seat < seats; ++seat) {
    if (pids_[static_cast<std::size_t>(seat)] > 0) kill(seat);
  }
  for (const auto& [model, id] : segments_) ::shmctl(id, IPC_RMID, nullptr);
  for (const auto& [model, id] : sets_) ::semctl(id, 0, IPC_RMID);
  for (const auto& pair : sockets_) ::close(pair[0]), ::close(pair[1]);
  if (old_namespace_ < 0) return;
  // What is left in the namespace goes with it.
  if (::setns(old_namespace_, CLONE_NEWIPC) != 0) std::abort();
  ::close(old_namespace_);
}

pid_t Kernel::start(int seat) {
  const pid_t pid = ipc::check(::fork(), "fork");
  if (pid == 0) serve(seat);
  pids_[static_cast<std::size_t>(seat)] = pid;
  return pid;
}

// The process on the seat. A fork's child is a child of ours, too: it becomes the one on another seat.
void Kernel::serve(int seat) const noexcept {
  const pid_t parent = ::getppid();
  end_with(parent);
  struct sigaction action {};
  action.sa_handler = [](int) {};
  ipc::check(::sigaction(SIGUSR1, &action, nullptr), "sigaction SIGUSR1");
  for (const auto& pair : sockets_) ::close(pair[0]);

  for (;;) {
    const int fd = sockets_[static_cast<std::size_t>(seat)][1];
    Action asked;
    const ssize_t got = ::recv(fd, &asked, sizeof asked, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got != sizeof asked) ::_exit(0);
    become(users()[static_cast<std::size_t>(asked.user)], parent);
    Reply reply;
    if (asked.kind != Kind::fork) {
      reply = call(asked);
    } else {
      const long child = ::syscall(SYS_clone, CLONE_PARENT | SIGCHLD, nullptr, nullptr, nullptr, nullptr);
      if (child == 0) {
        seat = asked.number;
        end_with(parent);
        continue;
      }
      reply = done(child);
    }
    if (::send(fd, &reply, sizeof reply, MSG_NOSIGNAL) != sizeof reply) ::_exit(1);
  }
}

void Kernel::ask(int seat, const Action& action) {
  Action translated = action;
  if (!makes_object(action.kind)) translated.id = id_of(action.kind, action.id);
  if (::send(sockets_[static_cast<std::size_t>(seat)][0], &translated, sizeof translated, MSG_NOSIGNAL) !=
      sizeof translated)
    ipc::throw_errno("send to a process of the test");
}

std::optional<Reply> Kernel::reply(int seat, int seconds) {
  const int fd = sockets_[static_cast<std::size_t>(seat)][0];
  pollfd one{fd, POLLIN, 0};
  int ready = 0;
  do ready = ::poll(&one, 1, seconds * 1000);
  while (ready < 0 && errno == EINTR);
  Reply reply;
  if (ready != 1 || ::recv(fd, &reply, sizeof reply, 0) != sizeof reply) return std::nullopt;
  return reply;
}

void Kernel::interrupt(int seat) { ipc::check(::kill(pids_[static_cast<std::size_t>(seat)], SIGUSR1), "kill SIGUSR1"); }

// The socket stays, for the next one on the seat.
void Kernel::kill(int seat) {
  pid_t& pid = pids_[static_cast<std::size_t>(seat)];
  ipc::check(::kill(pid, SIGKILL), "kill SIGKILL");
  pid_t got = 0;
  do got = ::waitpid(pid, nullptr, 0);
  while (got < 0 && errno == EINTR);
  ipc::check(got, "waitpid");
  pid = 0;
}

void Kernel::named(Kind kind, std::int32_t model_id, std::int32_t kernel_id) {
  (is_about_sets(kind) ? sets_ : segments_)[model_id] = kernel_id;
}

std::int32_t Kernel::id_of(Kind kind, std::int32_t model_id) const {
  const auto& ids = is_about_sets(kind) ? sets_ : segments_;
  const auto found = ids.find(model_id);
  return found == ids.end() ? model_id : found->second;
}

Reply Kernel::look(const Action& action) const {
  Action translated = action;
  translated.id = id_of(action.kind, action.id);
  return call(translated);
}

}  // namespace dsm::sysv::differential
