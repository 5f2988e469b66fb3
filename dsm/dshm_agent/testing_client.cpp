#include "dsm/dshm_agent/testing_client.hpp"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include <array>
#include <climits>
#include <cstring>
#include <stdexcept>

#include "ipc/error.hpp"
#include "ipc/socket.hpp"

namespace dsm::dshm_agent::testing {
namespace {

using sysv::Call;
using sysv::Question;

constexpr int patience_ms = 60'000;
Client* standing = nullptr;  // whose SIGSEGV handler it is

void futex(std::atomic<std::uint32_t>& word, int operation, std::uint32_t value) {
  ::syscall(SYS_futex, &word, operation, value, nullptr, nullptr, 0);
}

void require_no_error(const sysv::Answer& answer, const char* what) {
  if (answer.error != 0) throw std::system_error(answer.error, std::generic_category(), what);
}

// The agent says what it needs of it, unless that has been said here.
ipc::Fd open_userfaultfd(std::uint64_t events) {
  ipc::Fd fd(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK)));
  if (!fd) ipc::throw_errno("userfaultfd");
  constexpr std::uint64_t wp_shmem = 1U << 12U, wp_unpopulated = 1U << 13U;  // newer than some headers
  uffdio_api api{};
  api.api = UFFD_API;
  api.features = events | UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_PAGEFAULT_FLAG_WP |
                 UFFD_FEATURE_THREAD_ID | wp_shmem | wp_unpopulated;
  if (events != 0) ipc::check(::ioctl(fd.get(), UFFDIO_API, &api), "UFFDIO_API");
  return fd;
}

}  // namespace

// ---- messages -------------------------------------------------------------------------------------------------------

void send_frame(int fd, const sysv::Frame& frame, int descriptor) {
  std::vector<std::uint8_t> bytes = sysv::encode(frame);
  const ucred me{::getpid(), ::geteuid(), ::getegid()};
  iovec part{bytes.data(), bytes.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(ucred)) + CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = descriptor < 0 ? CMSG_SPACE(sizeof(ucred)) : control.size();
  cmsghdr* one = CMSG_FIRSTHDR(&message);
  one->cmsg_level = SOL_SOCKET;
  one->cmsg_type = SCM_CREDENTIALS;
  one->cmsg_len = CMSG_LEN(sizeof me);
  std::memcpy(CMSG_DATA(one), &me, sizeof me);
  if (descriptor >= 0) {
    one = CMSG_NXTHDR(&message, one);
    one->cmsg_level = SOL_SOCKET;
    one->cmsg_type = SCM_RIGHTS;
    one->cmsg_len = CMSG_LEN(sizeof descriptor);
    std::memcpy(CMSG_DATA(one), &descriptor, sizeof descriptor);
  }
  ipc::check(::sendmsg(fd, &message, MSG_NOSIGNAL), "sendmsg to the agent");
}

Came receive_answer(int fd) {
  pollfd ready{fd, POLLIN, 0};
  if (::poll(&ready, 1, patience_ms) != 1) throw std::runtime_error("no answer from the agent");
  std::vector<std::uint8_t> bytes(sysv::max_frame);
  iovec part{bytes.data(), bytes.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  const ssize_t got = ipc::check(::recvmsg(fd, &message, MSG_CMSG_CLOEXEC), "recvmsg from the agent");
  if (got == 0) throw std::runtime_error("the agent has closed the connection");
  Came out;
  if (cmsghdr* one = CMSG_FIRSTHDR(&message); one != nullptr && one->cmsg_type == SCM_RIGHTS) {
    int descriptor = -1;
    std::memcpy(&descriptor, CMSG_DATA(one), sizeof descriptor);
    out.descriptor.reset(descriptor);
  }
  std::string why;
  auto frame = sysv::decode({bytes.data(), static_cast<std::size_t>(got)}, why);
  if (!frame || !std::holds_alternative<sysv::Answer>(*frame)) throw std::runtime_error("no answer: " + why);
  out.answer = std::get<sysv::Answer>(*frame);
  return out;
}

Caller::Caller(const std::string& server)
    : fd_(ipc::connect_abstract(agent_name(::geteuid(), server), SOCK_SEQPACKET)) {
  Question hello;
  hello.call = Call::local_hello;
  hello.flags = hello_call;
  hello.size = sysv::wire_version;
  require_no_error(ask(hello).answer, "local_hello of a call connection");
}

void Caller::send(Question question, int descriptor) {
  question.request = ++last_;
  send_frame(fd_.get(), question, descriptor);
}

Came Caller::ask(Question question, int descriptor) {
  send(std::move(question), descriptor);
  Came came = receive_answer(fd_.get());
  if (came.answer.request != last_) throw std::runtime_error("an answer to something else");
  return came;
}

// ---- a process ------------------------------------------------------------------------------------------------------

Client::Client(const std::string& server, Pager pager, int service, std::uint64_t events)
    : pager_(pager),
      server_(server),
      service_(service >= 0 ? ipc::Fd(service)
                            : ipc::connect_abstract(agent_name(::geteuid(), server), SOCK_SEQPACKET)) {
  if (pager == Pager::uffd) userfault_ = open_userfaultfd(events);
  Question hello;
  hello.call = Call::local_hello;
  hello.flags = hello_service | (userfault_ ? hello_uffd : 0);
  hello.size = sysv::wire_version;
  send_frame(service_.get(), hello, userfault_.get());
  Came came = receive_answer(service_.get());
  require_no_error(came.answer, "local_hello");
  void* const lease = ::mmap(nullptr, 4096, PROT_READ, MAP_SHARED, came.descriptor.get(), 0);
  if (lease == MAP_FAILED) ipc::throw_errno("mmap of the lease");
  lease_ = static_cast<const Lease*>(lease);
  if (::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, came.descriptor.get(), 0) != MAP_FAILED) {
    throw std::runtime_error("the lease can be mapped for writing");
  }
  caller_ = std::make_unique<Caller>(server);
  if (pager == Pager::uffd) return;
  standing = this;
  struct sigaction action {};
  action.sa_sigaction = on_segv;
  action.sa_flags = SA_SIGINFO;
  ipc::check(::sigaction(SIGSEGV, &action, nullptr), "sigaction");
  pthread_t thread{};
  if (::pthread_create(&thread, nullptr, serve, this) != 0) throw std::runtime_error("pthread_create");
}

// A fault outside of all attaches is one.
void Client::on_segv(int, siginfo_t* info, void* context) {
  Client& me = *standing;
  auto* const at = static_cast<char*>(info->si_addr);
  for (const Mapped& one : me.mapped_) {
    if (at < one.address || at >= one.address + one.size) continue;
    const std::uint32_t before = me.obeyed_.load();
    Question fault;
    fault.call = Call::local_fault;
    fault.id = one.id;
    fault.number = static_cast<std::int32_t>(static_cast<std::size_t>(at - one.address) / sysv::page_bytes);
    fault.flags = (static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_ERR] & 2) != 0 ? 1 : 0;
    send_frame(me.service_.get(), fault);
    while (me.obeyed_.load() == before) futex(me.obeyed_, FUTEX_WAIT, before);
    return;
  }
  ::signal(SIGSEGV, SIG_DFL);
}

void* Client::serve(void* self) {
  Client& me = *static_cast<Client*>(self);
  Order order;
  while (::recv(me.service_.get(), &order, sizeof order, 0) == sizeof order) me.obey(order);
  return nullptr;
}

void Client::obey(const Order& order) {
  if (order.kind == Order::Kind::over) {
    over_ = true;
  } else {
    constexpr std::array protections{PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE};
    for (const Mapped& one : mapped_) {
      if (one.id != order.id) continue;
      ::mprotect(one.address + order.page * sysv::page_bytes, order.count * sysv::page_bytes,
                 protections.at(order.access));
    }
  }
  if (order.acknowledge != 0) {
    Question lowered;
    lowered.call = Call::local_lowered;
    lowered.size = order.number;
    send_frame(service_.get(), lowered);
  }
  obeyed_.fetch_add(1);
  futex(obeyed_, FUTEX_WAKE, INT_MAX);
}

int Client::protection() const { return pager_ == Pager::uffd ? PROT_READ | PROT_WRITE : PROT_NONE; }

std::int32_t Client::get(std::int32_t key, std::uint64_t size, std::int32_t flags) {
  Question get;
  get.call = Call::get;
  get.kind = sysv::Object::segment;
  get.key = key;
  get.size = size;
  get.flags = flags;
  const Came came = caller_->ask(get);
  require_no_error(came.answer, "shmget");
  return static_cast<std::int32_t>(came.answer.value);
}

Came Client::ask_attach(std::int32_t id) {
  Question question;
  question.call = Call::attach;
  question.id = id;
  Came came = caller_->ask(question);
  require_no_error(came.answer, "shmat");
  return came;
}

void Client::say_mapped(std::int32_t id, const void* address, std::size_t size) {
  Question mapped;
  mapped.call = Call::local_mapped;
  mapped.id = id;
  mapped.address = reinterpret_cast<std::uintptr_t>(address);
  mapped.size = size;
  require_no_error(caller_->ask(mapped).answer, "local_mapped");
}

volatile std::uint64_t* Client::attach(std::int32_t id) {
  const Came came = ask_attach(id);
  const std::size_t size = (static_cast<std::size_t>(came.answer.value) + 4095) / 4096 * 4096;
  void* const at = ::mmap(nullptr, size, protection(), MAP_SHARED | MAP_NORESERVE, came.descriptor.get(), 0);
  if (at == MAP_FAILED) ipc::throw_errno("mmap of the segment");
  mapped_.push_back({id, static_cast<char*>(at), size});
  say_mapped(id, at, size);
  return static_cast<volatile std::uint64_t*>(at);
}

void Client::detach(const volatile std::uint64_t* address) {
  const auto at = reinterpret_cast<std::uintptr_t>(address);
  for (auto one = mapped_.begin(); one != mapped_.end(); ++one) {
    if (reinterpret_cast<std::uintptr_t>(one->address) != at) continue;
    Question question;
    question.call = Call::detach;
    question.id = one->id;
    question.address = at;
    ::munmap(one->address, one->size);
    mapped_.erase(one);
    return require_no_error(caller_->ask(question).answer, "shmdt");
  }
}

void Client::unmap(const volatile std::uint64_t* address, std::size_t first_page, std::size_t pages) {
  const auto at = reinterpret_cast<std::uintptr_t>(address) + first_page * 4096;
  Question question;
  question.call = Call::local_unmapped;
  for (const Mapped& one : mapped_) {
    if (reinterpret_cast<std::uintptr_t>(one.address) == reinterpret_cast<std::uintptr_t>(address))
      question.id = one.id;
  }
  question.address = at;
  question.size = pages * 4096;
  ipc::check(::munmap(reinterpret_cast<void*>(at), question.size), "munmap");
  require_no_error(caller_->ask(question).answer, "local_unmapped");
}

sysv::SegmentStat Client::stat(std::int32_t id) {
  Question stat;
  stat.call = Call::stat;
  stat.kind = sysv::Object::segment;
  stat.id = id;
  const Came came = caller_->ask(stat);
  require_no_error(came.answer, "IPC_STAT");
  return came.answer.segment.value();
}

void Client::remove(std::int32_t id) {
  Question question;
  question.call = Call::remove;
  question.kind = sysv::Object::segment;
  question.id = id;
  require_no_error(caller_->ask(question).answer, "IPC_RMID");
}

Client::Forked Client::fork_child() {
  std::array<int, 2> ends{};
  ipc::check(::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()), "socketpair");
  ipc::Fd own(ends[0]), theirs(ends[1]);
  Question question;
  question.call = Call::local_fork;
  require_no_error(caller_->ask(question, theirs.get()).answer, "local_fork");
  const pid_t pid = ipc::check(::fork(), "fork");
  return {pid, pid == 0 ? own.release() : -1};
}

void Client::await_end_of_service() const {
  pollfd ready{service_.get(), POLLIN, 0};
  char byte = 0;
  if (::poll(&ready, 1, patience_ms) != 1 || ::recv(service_.get(), &byte, 1, 0) > 0) {
    throw std::runtime_error("the service connection has not ended");
  }
}

void Client::adopt(const Client& parent) {
  mapped_ = parent.mapped_;
  for (const Mapped& one : mapped_) ::mprotect(one.address, one.size, protection());
}

}  // namespace dsm::dshm_agent::testing
