#include "dsm/dshm/connections.hpp"

#include <errno.h>
#include <string.h>
#include <sys/un.h>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <mutex>
#include <vector>

#include "dsm/dshm/message.hpp"
#include "dsm/dshm/process.hpp"

namespace dsm::dshm {
namespace {

using sysv::Answer;
using sysv::Call;
using sysv::Question;

// Never destroyed: other threads may be in calls while the process ends.
struct Pool {
  node::FutexLock lock;
  std::vector<Descriptor> idle, busy;  // lock
};
Pool& pool() {
  static Pool& only = *new Pool;
  return only;
}
std::atomic<std::uint32_t> last_request{0};

class PoolLock {
 public:
  PoolLock() : guard_(pool().lock) {}

 private:
  kernel::Quiet quiet_{kernel::Quiet::Kind::all};
  std::scoped_lock<node::FutexLock> guard_;
};

// From `idle`, those that the program has closed left out.
Descriptor take_idle() {
  const PoolLock guard;
  while (!pool().idle.empty()) {
    Descriptor last = pool().idle.back();
    pool().idle.pop_back();
    if (last.open()) {
      pool().busy.push_back(last);
      return last;
    }
    last.close();  // forgets the number
  }
  return {};
}

// Into `busy`, so that the end of all finds it. False if that was here before.
bool enter(Descriptor socket) {
  const PoolLock guard;
  if (process().state.load() == State::over) return false;
  pool().busy.push_back(socket);
  return true;
}

void leave(Descriptor socket, bool well) {
  const PoolLock guard;
  std::erase_if(pool().busy, [&](const Descriptor& one) { return one.get() == socket.get(); });
  if (well && process().state.load() != State::over) {
    pool().idle.push_back(socket);
  } else {
    socket.close();
  }
}

}  // namespace

int connect_agent() {
  const std::string name = dshm_agent::agent_name(process().user, *process().server);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (name.size() + 1 > sizeof address.sun_path) {
    errno = ENAMETOOLONG;
    return -1;
  }
  name.copy(address.sun_path + 1, name.size());
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size());
  const int fd = static_cast<int>(::syscall(SYS_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  if (fd < 0) return -1;
  ucred peer{};
  socklen_t size = sizeof peer;
  int error = ::syscall(SYS_connect, fd, &address, length) == 0 ? 0 : errno;
  if (error == 0 && ::syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) error = errno;
  if (error == 0 && peer.uid != process().user) error = EPERM;
  if (error == 0) return fd;
  kernel::close(fd);
  errno = error;
  return -1;
}

std::optional<Answer> answer_in(std::span<const std::uint8_t> message) {
  std::string why;
  std::optional<sysv::Frame> frame = sysv::decode(message, why);
  if (!frame) return {};
  Answer* const answer = std::get_if<Answer>(&*frame);
  if (answer == nullptr) return {};
  return std::move(*answer);
}

bool Connection::take() {
  asker_ = process().pid.load();
  socket_ = take_idle();
  if (socket_.get() >= 0) return well_ = true;
  const Descriptor made = Descriptor::adopt(connect_agent());
  if (made.get() < 0) return false;
  socket_ = made;
  if (!enter(made)) return false;
  Question hello{.call = Call::local_hello};
  hello.flags = dshm_agent::hello_call;
  hello.size = sysv::wire_version;
  Answer answer;
  int passed = -1;
  if (send(hello) != 0 || receive(answer, passed) != 0) return false;
  if (passed != -1) kernel::close(passed);
  return well_ = answer.error == 0;
}

Connection::~Connection() {
  if (socket_.get() >= 0) leave(socket_, well_);
}

int Connection::send(Question& question, std::span<const int> give) {
  question.request = last_request.fetch_add(1) + 1;
  const int error = dshm::send(socket_.get(), sysv::encode(question), give);
  well_ = error == 0;
  return error;
}

int Connection::receive(Answer& answer, int& passed) {
  std::optional<Answer> got = answer_in(dshm::receive(socket_.get(), passed));
  well_ = got.has_value();
  if (!got) {
    if (passed != -1) kernel::close(passed);
    passed = -1;
    return EIDRM;
  }
  answer = std::move(*got);
  return 0;
}

int Connection::wait(const kernel::Mask& mask) noexcept {
  pollfd wanted{socket_.get(), POLLIN, 0};
  return kernel::poll(&wanted, 1, nullptr, &mask) == -1 ? errno : 0;
}

bool Connection::left_to_parent() noexcept {
  if (asker_ == ::getpid()) return false;
  socket_ = {};  // closed by forget_connections(), or to be closed; the number may be another's by now
  return true;
}

int ask(Question& question, Answer& answer, int* passed, std::span<const int> give) {
  Connection connection;
  if (!connection.take()) return EIDRM;
  int came = -1;
  if (connection.send(question, give) != 0 || connection.receive(answer, came) != 0) return EIDRM;
  if (passed != nullptr) {
    *passed = came;
  } else if (came != -1) {
    kernel::close(came);
  }
  return answer.error;
}

int ask(Question& question) {
  Answer answer;
  return ask(question, answer);
}

void shut_connections() noexcept {
  const PoolLock guard;
  for (const std::vector<Descriptor>* list : {&pool().idle, &pool().busy}) {
    for (const Descriptor& one : *list) {
      if (one.open()) ::syscall(SYS_shutdown, one.get(), SHUT_RDWR);
    }
  }
}

void make_connection() {
  Connection one;
  (void)one.take();  // if it fails, the first call tries again
}

void lock_connections() noexcept { pool().lock.lock(); }
void unlock_connections() noexcept { pool().lock.unlock(); }

void forget_connections() noexcept {
  for (std::vector<Descriptor>* list : {&pool().idle, &pool().busy}) {
    for (Descriptor& one : *list) one.close();
    list->clear();
  }
}

}  // namespace dsm::dshm
