// Who is here: processes come, fork, exec, fault, and end.
#include <poll.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <fstream>
#include <set>
#include <string>
#include <system_error>

#include "dsm/dshm_agent/agent.hpp"
#include "dsm/pager/pager.hpp"
#include "ipc/error.hpp"

namespace dsm::dshm_agent {

using sysv::Call;
using sysv::Question;

namespace {

ipc::Fd open_pidfd(pid_t pid) { return ipc::Fd(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))); }

bool has_exited(const ipc::Fd& pidfd) {
  pollfd one{pidfd.get(), POLLIN, 0};
  return ::poll(&one, 1, 0) == 1;
}

bool has_hung_up(const ipc::Fd& socket) {
  pollfd one{socket.get(), 0, 0};
  return ::poll(&one, 1, 0) == 1 && (one.revents & POLLHUP) != 0;
}

}  // namespace

// ---- coming ---------------------------------------------------------------------------------------------------------

bool Agent::hello(Connection& connection, const Question& question, Letter& letter) {
  if (question.call != Call::local_hello) return false;
  if (question.size != sysv::wire_version) {
    refuse(connection, question, EPROTO,
           "this agent is of another version; end the programs that use it, and start again");
    return false;
  }
  if (letter.from.pid <= 0) {
    refuse(connection, question, EPERM, "the agent is in a pid namespace that does not see this process");
    return false;
  }
  if ((question.flags & hello_service) != 0) return hello_service_new(connection, question, letter);
  const Process* const process = process_of(letter.from.pid);
  if (process == nullptr) {
    refuse(connection, question, ESRCH, "this process has not said hello on a service connection");
    return false;
  }
  connection.role = Connection::Role::call;
  connection.process = process->number;
  tell(connection, {.request = question.request, .value = static_cast<std::int64_t>(process->number)});
  return true;
}

Process* Agent::process_of(pid_t pid) {
  for (auto& [number, process] : processes_) {
    if (process.pidfd && process.caller.pid.pid == pid && !has_exited(process.pidfd)) return &process;
  }
  return nullptr;
}

// Those whose end the kernel knows, in the order in which they have ended: epoll's list of what is ready is a queue. So
// who has waited for a child, and ended then, is not taken for the first of the two (shm_lpid, sempid and undo would
// tell).
void Agent::end_exited() {
  std::array<epoll_event, 64> ended{};
  int count = 0;
  while ((count = ::epoll_wait(exits_.get(), ended.data(), static_cast<int>(ended.size()), 0)) > 0) {
    for (int i = 0; i < count; ++i) exited(ended[static_cast<std::size_t>(i)].data.u64);
  }
}

// A pid that is known already has become another program: it keeps its number, and its undo values, and loses its
// attaches. One that was known, and has ended, is somebody else's by now.
bool Agent::hello_service_new(Connection& connection, const Question& question, Letter& letter) {
  if (over_) {
    refuse(connection, question, EIDRM, "dsmd has gone; end the programs that use its segments, and start again");
    return false;
  }
  end_exited();
  if (Process* const old = process_of(letter.from.pid)) {
    executed(*old);
    const ConnectionId before = std::exchange(old->service, 0);
    connection.process = old->number;
    if (before != 0) drop(before);
  } else {
    Process fresh;
    fresh.number = next_process_++;
    connection.process = fresh.number;
    processes_.emplace(fresh.number, std::move(fresh));
  }
  connection.role = Connection::Role::service;
  return begin(connection, question, letter);
}

// A process's first words on its service connection: a fresh one's, or those of a child that inherits.
bool Agent::begin(Connection& connection, const Question& question, Letter& letter) {
  Process& process = processes_.at(connection.process);
  process.service = connection.id;
  process.reads_none = false;
  process.caller = {.pid = {upstream_.host(), letter.from.pid},
                    .uid = letter.from.uid,
                    .gid = letter.from.gid,
                    .groups = groups_of(letter.from.pid)};
  if (!process.pidfd) {
    ipc::Fd pidfd = open_pidfd(letter.from.pid);
    // The pid could be another's by now only if the sender had ended; then its end of the connection has, too.
    if (!pidfd || has_hung_up(connection.fd)) return false;
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = process.number;
    ipc::check(::epoll_ctl(exits_.get(), EPOLL_CTL_ADD, pidfd.get(), &event), "epoll_ctl");
    process.pidfd = std::move(pidfd);  // not before its end will be heard of: until then drop() ends the process
  }
  if ((question.flags & hello_uffd) != 0) {
    if (!Userfault::is_one(letter.descriptor.get())) {
      refuse(connection, question, EINVAL, "what has come is no userfaultfd");
      return false;
    }
    try {
      process.userfault.emplace(std::move(letter.descriptor));
      watch(process.userfault->fd(), Source::faults, process.number);
    } catch (const std::system_error& error) {
      refuse(connection, question, EINVAL, error.what());
      return false;
    }
  }
  const int error = map_all(process);
  sysv::Answer answer{.request = question.request, .error = error};
  answer.value = static_cast<std::int64_t>(process.number);
  tell(connection, answer, lease_.fd());
  return error == 0;
}

int Agent::map_all(Process& process) {
  for (Attach& attach : process.attaches) {
    const int error = attach.is_mapped() ? map_one(process, attach) : 0;
    if (error != 0) return error;
  }
  return 0;
}

int Agent::map_one(Process& process, Attach& attach) {
  const auto segment = segments_.find(attach.id());
  if (segment == segments_.end()) return EIDRM;
  if (process.userfault) {
    const int error = attach.watch(*process.userfault);
    if (error != 0) return error;
  }
  segment->second->hosted().join(process.number, process.userfault.has_value());
  return 0;
}

bool Agent::on_service(Connection& connection, const Question& question, Letter& letter) {
  const auto at = processes_.find(connection.process);
  if (at == processes_.end()) return false;
  Process& process = at->second;
  if (!process.pidfd) {
    if (question.call != Call::local_hello || question.size != sysv::wire_version || letter.from.pid <= 0) return false;
    return begin(connection, question, letter);
  }
  if (letter.from.pid != process.caller.pid.pid) return true;  // a child of fork(2) that does not know that it is one
  if (question.call == Call::local_lowered) {
    const auto owed = process.owed.extract(question.size);
    const auto segment = owed.empty() ? segments_.end() : segments_.find(owed.mapped().first);
    if (segment == segments_.end() || over_) return true;
    segment->second->hosted().lowered(process.number, owed.mapped().second, static_cast<Micros>(boot_ns() / 1000));
    return true;
  }
  if (question.call != Call::local_fault || process.userfault) return false;
  const auto segment = segments_.find(question.id);
  if (over_ || segment == segments_.end() || !process.has(question.id)) return true;
  const auto page = static_cast<Page>(question.number);
  if (page >= segment->second->hosted().pages()) return false;
  const bool taken = segment->second->hosted().fault(
      {.process = process.number}, page, (question.flags & 1) != 0 ? Access::write : Access::read,
      pager::site_of(process.number, 0), static_cast<Micros>(boot_ns() / 1000));
  process.broken |= !taken;
  return true;
}

// ---- going ----------------------------------------------------------------------------------------------------------

// As if they had died. The end of their service connections tells libdshm, which then puts something empty over what is
// attached. What is said about one may make another one's trouble known.
void Agent::send_away() {
  const auto next = [this] {
    return std::find_if(processes_.begin(), processes_.end(), [](const auto& one) { return one.second.is_to_go(); });
  };
  for (auto at = next(); at != processes_.end(); at = next()) exited(at->first);
}

void Agent::exited(ProcessNumber number) {
  const auto at = processes_.find(number);
  if (at == processes_.end()) return;
  Process& process = at->second;
  detach_all(process);
  Question exit;
  exit.call = Call::exit;
  exit.process = number;
  exit.caller = process.caller;
  to_dsmd(exit);
  leave_closed();
  if (process.userfault) unwatch(process.userfault->fd());
  processes_.erase(at);
  std::vector<ConnectionId> its;  // a child of fork may still have them open
  for (const auto& [id, connection] : connections_) {
    if (connection.process == number) its.push_back(id);
  }
  for (const ConnectionId id : its) drop(id);
}

void Agent::executed(Process& process) {
  detach_all(process);
  if (process.userfault) unwatch(process.userfault->fd());
  process.userfault.reset();
  Question exec;
  exec.call = Call::exec;
  exec.process = process.number;
  exec.caller = process.caller;
  to_dsmd(exec);
  leave_closed();
}

void Agent::detach_all(Process& process) {
  std::set<std::int32_t> segments;
  for (const Attach& attach : process.attaches) segments.insert(attach.id());
  process.attaches.clear();
  process.owed.clear();
  for (const std::int32_t segment : segments) detached(process, segment);
}

// An attach of the segment has ended there.
void Agent::detached(Process& process, std::int32_t segment) {
  const auto at = segments_.find(segment);
  if (at != segments_.end() && !process.has(segment) && !over_) {
    at->second->hosted().leave(process.number, static_cast<Micros>(boot_ns() / 1000));
  }
  // What it acknowledges from now on is about an attach that is no more.
  if (!process.has(segment)) std::erase_if(process.owed, [&](const auto& one) { return one.second.first == segment; });
  close_if_unused(segment);
}

void Agent::close_if_unused(std::int32_t segment) {
  const auto at = segments_.find(segment);
  if (at == segments_.end()) return;
  for (const auto& [number, process] : processes_) {
    for (const Attach& attach : process.attaches) {
      if (attach.id() == segment) return;
    }
  }
  for (const auto& [request, pending] : pending_) {
    if (pending.call == Call::attach && pending.segment == segment) return;  // dsmd may have granted it already
    if (pending.call == Call::local_fork) return;                            // a child may inherit it
  }
  if (!over_) at->second->say_last();
  closed_.push_back(at->second->tenure());
  segments_.erase(at);
}

// Comes right behind the detach: whoever attaches it next gets a tenure of his own.
void Agent::leave_closed() {
  for (const std::uint32_t tenure : std::exchange(closed_, {})) {
    Question leave;
    leave.call = Call::leave;
    leave.tenure = tenure;
    to_dsmd(leave);
  }
}

// ---- those whose service connection has ended while they live: exec, or they have closed it ----

void Agent::probe() {
  for (auto& [number, process] : processes_) {
    if (process.service == 0 && !process.attaches.empty() && !is_still_there(process)) executed(process);
  }
}

// Whether its memory is still what it was: after exec none of the attaches is.
bool Agent::is_still_there(const Process& process) {
  for (const Attach& attach : process.attaches) {
    if (process.userfault && attach.is_mapped()) return process.userfault->alive(attach.address());
  }
  std::set<std::string> inodes;
  for (const Attach& attach : process.attaches) {
    struct stat status {};
    const auto segment = segments_.find(attach.id());
    if (segment == segments_.end() || ::fstat(segment->second->memory(), &status) != 0) continue;
    inodes.insert(std::to_string(status.st_ino));
  }
  std::ifstream maps("/proc/" + std::to_string(process.caller.pid.pid) + "/maps");
  std::string range, access, offset, device, inode, name;
  while (maps >> range >> access >> offset >> device >> inode && std::getline(maps, name)) {
    if (inodes.contains(inode) && name.find("/memfd:dshm-") != std::string::npos) return true;
  }
  return false;
}

// ---- faults and orders ----------------------------------------------------------------------------------------------

void Agent::read_faults(ProcessNumber number) {
  const auto at = processes_.find(number);
  if (at == processes_.end() || !at->second.userfault) return;
  Process& process = at->second;
  std::array<uffd_msg, 32> messages{};
  const std::size_t count = process.userfault->read(messages);
  for (std::size_t i = 0; i < count; ++i) {
    const uffd_msg& one = messages[i];
    const Access want = (one.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE) != 0 ? Access::write : Access::read;
    fault(process, one.arg.pagefault.address & ~std::uint64_t{sysv::page_bytes - 1}, want, one.arg.pagefault.feat.ptid);
  }
}

// Where nothing of ours is (any more), or when all is over, the kernel has its own answer when the thread tries again.
void Agent::fault(Process& process, std::uint64_t address, Access want, std::uint64_t thread) {
  const Attach* const attach = process.attach_at(address);
  const auto segment = attach == nullptr ? segments_.end() : segments_.find(attach->id());
  if (expire_at_ns_) return sleepers_.emplace_back(process.number, address), void();
  if (over_ || segment == segments_.end()) return process.userfault->wake(address);
  const auto page = static_cast<Page>((address - attach->address()) / sysv::page_bytes);
  const bool taken = segment->second->hosted().fault({process.number, address}, page, want,
                                                     pager::site_of(process.number << 32U ^ thread, 0),
                                                     static_cast<Micros>(boot_ns() / 1000));
  process.broken |= !taken;
}

void Agent::order(Process& process, Order order) {
  order.number = next_order_++;
  if (order.acknowledge != 0) process.owed.emplace(order.number, std::pair{order.id, order.page});
  process.unsent.push_back(order);
  send_orders(process);
}

// To a process that reads none (it is stopped) they wait here. Each page has at most one order that lowers it, and one
// for each thread that waits for it: who has more only says that threads wait.
void Agent::send_orders(Process& process) {
  const auto at = connections_.find(process.service);
  if (at == connections_.end()) return process.unsent.clear();
  const int fd = at->second.fd.get();
  bool full = false;
  while (!process.unsent.empty() && !full) {
    const auto* bytes = reinterpret_cast<const std::uint8_t*>(&process.unsent.front());
    full = send(fd, {bytes, sizeof(Order)}) == Post::later;
    if (!full) process.unsent.pop_front();  // sent; or the connection has ended, and that will be heard
  }
  process.broken |= process.unsent.size() > process.owed.size() + waits_max;
  if (full == std::exchange(process.reads_none, full)) return;
  watch(fd, Source::connection, at->first, full ? EPOLLIN | EPOLLOUT : EPOLLIN, EPOLL_CTL_MOD);
}

}  // namespace dsm::dshm_agent
