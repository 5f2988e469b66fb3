// Processes that do what no libdshm does, by raw words and by their copies of descriptors. It costs them their
// connections, and nobody else anything: the agent, and the other processes that it serves, go on.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/userfaultfd.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <thread>
#include <utility>

#include "dsm/dshm_agent/hosted.hpp"
#include "dsm/dshm_agent/testing_bench.hpp"
#include "ipc/error.hpp"
#include "ipc/mapping.hpp"
#include "ipc/socket.hpp"

namespace dsm::dshm_agent::testing {
namespace {

using sysv::Call;
using sysv::Question;

constexpr std::int32_t key = 0x5ca1ab20;
constexpr std::size_t size = 2 * sysv::page_bytes;

void require(bool well, const char* what) {
  if (!well) throw std::runtime_error(what);
}

volatile std::uint64_t* map_shared(int fd) {
  void* const at = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) ipc::throw_errno("mmap");
  return static_cast<volatile std::uint64_t*>(at);
}

// The thread may sleep there until the process ends.
void touch_in_a_thread(volatile std::uint64_t* memory) {
  std::thread([memory] { memory[0] = 1; }).detach();
}

class RudeProcesses : public Hosts {
 protected:
  // A process of this host, with the same segment, goes on while and after `rude` does its deeds; `meanwhile`, if any,
  // is the test's part in them.
  void expect_harmless(const std::function<void(Child&)>& rude, const std::function<void(Child&)>& meanwhile = {}) {
    Child honest([&](Child& me) {
      Client client(here->server(), Pager::uffd);
      volatile std::uint64_t* const memory = client.attach(client.get(key, size, IPC_CREAT | 0600));
      me.tell(0);
      me.await();
      memory[0] = 4711;
      me.tell(0);
      me.await();
    });
    ASSERT_EQ(honest.hear(), 0);
    Child other(rude);
    if (meanwhile) meanwhile(other);
    EXPECT_EQ(other.wait(), 0);
    honest.go();
    ASSERT_EQ(honest.hear(), 0);
    EXPECT_EQ(read_there(), 4711);
    honest.go();
    EXPECT_EQ(honest.wait(), 0);
    expect_all_ended();
  }
  // The agent finds both at once: what was done before it was stopped, and what is done now.
  void let_go_while_stopped(Child& rude) {
    ASSERT_EQ(rude.hear(), 0);
    here->stop();
    rude.go();
    EXPECT_EQ(rude.hear(), 0);
    here->kill(SIGCONT);
  }
  std::int64_t read_there() {
    if (std::exchange(left_there_, true)) {
      EXPECT_EQ(there->wait(), 0);
      there = std::make_unique<AgentProgram>(there->server(), dsmd.key_file());
    }
    Child reader([&](Child& me) {
      Client client(there->server(), Pager::uffd);
      me.tell(static_cast<std::int64_t>(client.attach(client.get(key, size, 0600))[0]));
      me.await();
    });
    const std::int64_t read = reader.hear();
    reader.go();
    EXPECT_EQ(reader.wait(), 0);
    return read;
  }

 private:
  bool left_there_ = false;  // its last process has, and the agent goes with it
};

TEST_F(RudeProcesses, ShortenASegmentAndTheAgentLives) {
  expect_harmless(
      [&](Child& me) {
        Client client(here->server(), Pager::uffd);
        const std::int32_t id = client.get(key, size, 0600);
        const Came came = client.ask_attach(id);
        const int memfd = came.descriptor.get();
        require(::fcntl(memfd, F_ADD_SEALS, F_SEAL_SHRINK) == -1 && errno == EPERM, "it could be sealed");
        volatile std::uint64_t* const memory = map_shared(memfd);
        client.say_mapped(id, const_cast<std::uint64_t*>(memory), size);
        memory[0] = 1;
        require(::ftruncate(memfd, 0) == 0, "ftruncate");
        me.tell(0);
        me.await();
        memory[0] = memory[512] + 1;  // no SIGBUS: the agent has seen it, and put it right
      },
      [&](Child& rude) {
        ASSERT_EQ(rude.hear(), 0);
        EXPECT_EQ(read_there(), 0);
        rude.go();
      });
}

TEST_F(RudeProcesses, NameMemoryThatIsNotTheSegments) {
  expect_harmless([&](Child&) {
    Client client(here->server(), Pager::uffd);
    const std::int32_t id = client.get(key, size, 0600);
    const Came came = client.ask_attach(id);
    const ipc::Fd other = ipc::make_memfd("other", size);
    volatile std::uint64_t* const memory = map_shared(other.get());
    client.say_mapped(id, const_cast<std::uint64_t*>(memory), size);
    touch_in_a_thread(memory);
    client.await_end_of_service();
  });
}

// It makes the userfaultfd a blocking one, and takes away the message of which the agent has been told.
TEST_F(RudeProcesses, CannotMakeTheAgentWaitForAFault) {
  expect_harmless(
      [&](Child& me) {
        Client client(here->server(), Pager::uffd);
        volatile std::uint64_t* const memory = client.attach(client.get(key, size, 0600));
        me.tell(0);
        me.await();  // the agent has been stopped
        touch_in_a_thread(memory);
        pollfd ready{client.userfault(), POLLIN, 0};
        uffd_msg message{};
        require(::poll(&ready, 1, 60'000) == 1, "no fault");
        require(::read(client.userfault(), &message, sizeof message) == sizeof message, "no message");
        require(::fcntl(client.userfault(), F_SETFL, 0) == 0, "F_SETFL");
        me.tell(0);
        client.await_end_of_service();
      },
      [&](Child& rude) { let_go_while_stopped(rude); });
}

TEST_F(RudeProcesses, AskForEventsThatNobodyAnswers) {
  expect_harmless([&](Child&) {
    Client client(here->server(), Pager::uffd, -1, UFFD_FEATURE_EVENT_UNMAP);
    volatile std::uint64_t* const memory = client.attach(client.get(key, size, 0600));
    std::thread([memory] { ::munmap(const_cast<std::uint64_t*>(memory), size); }).detach();
    client.await_end_of_service();
  });
}

// Faults again and again, and reads none of the orders that answer them.
TEST_F(RudeProcesses, DoNotReadTheirOrders) {
  expect_harmless([&](Child&) {
    const ipc::Fd service = ipc::connect_abstract(agent_name(::geteuid(), here->server()), SOCK_SEQPACKET);
    Question hello;
    hello.call = Call::local_hello;
    hello.flags = hello_service;
    hello.size = sysv::wire_version;
    send_frame(service.get(), hello);
    require(receive_answer(service.get()).answer.error == 0, "local_hello");
    Caller caller(here->server());
    Question get;
    get.call = Call::get;
    get.key = key;
    Question attach;
    attach.call = Call::attach;
    attach.id = static_cast<std::int32_t>(caller.ask(get).answer.value);
    const Came came = caller.ask(attach);
    Question mapped;
    mapped.call = Call::local_mapped;
    mapped.id = attach.id;
    mapped.address = reinterpret_cast<std::uintptr_t>(map_shared(came.descriptor.get()));
    mapped.size = size;
    require(caller.ask(mapped).answer.error == 0, "local_mapped");
    Question fault;
    fault.call = Call::local_fault;
    fault.id = attach.id;
    try {
      for (std::size_t i = 0; i < 2 * waits_max; ++i) send_frame(service.get(), fault);
    } catch (const std::system_error&) {
      return;  // it has been closed
    }
    throw std::runtime_error("the agent keeps all orders");
  });
}

// A TCP socket that lingers for a minute, for nobody reads what it has sent. Who closes it last waits.
struct Lingerer {
  ipc::Fd fd, other;
};
Lingerer make_lingerer() {
  const ipc::Fd listener(ipc::check(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
  ipc::Fd out(ipc::check(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = ::htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof address;
  auto* const any = reinterpret_cast<sockaddr*>(&address);
  ipc::check(::bind(listener.get(), any, length), "bind");
  ipc::check(::listen(listener.get(), 1), "listen");
  ipc::check(::getsockname(listener.get(), any, &length), "getsockname");
  ipc::check(::connect(out.get(), any, length), "connect");
  ipc::Fd other(ipc::check(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC), "accept"));
  const std::vector<char> much(1 << 16);
  while (::send(out.get(), much.data(), much.size(), MSG_DONTWAIT) > 0) {
  }
  const linger minute{1, 60};
  ipc::check(::setsockopt(out.get(), SOL_SOCKET, SO_LINGER, &minute, sizeof minute), "SO_LINGER");
  return {std::move(out), std::move(other)};
}

// One in place of a userfaultfd; and one in a message that is never read, behind one that ends the connection.
TEST_F(RudeProcesses, SendDescriptorsWhoseCloseWaits) {
  expect_harmless(
      [&](Child& me) {
        const auto connect = [&] {
          return ipc::connect_abstract(agent_name(::geteuid(), here->server()), SOCK_SEQPACKET);
        };
        Lingerer one = make_lingerer(), two = make_lingerer();
        me.tell(0);
        me.await();  // the agent has been stopped
        const ipc::Fd read = connect(), unread = connect();
        Question hello;
        hello.call = Call::local_hello;
        hello.flags = hello_service | hello_uffd;
        hello.size = sysv::wire_version;
        send_frame(read.get(), hello, one.fd.get());
        send_frame(unread.get(), Question{.call = Call::beat});
        send_frame(unread.get(), hello, two.fd.get());
        one.fd.reset();
        two.fd.reset();
        me.tell(0);
        require(receive_answer(read.get()).answer.error == EINVAL, "it was taken for a userfaultfd");
        for (const int fd : {read.get(), unread.get()}) {
          pollfd end{fd, POLLIN, 0};
          require(::poll(&end, 1, 60'000) == 1 && (end.revents & POLLHUP) != 0, "the connection has not ended");
        }
      },
      [&](Child& rude) { let_go_while_stopped(rude); });
}

// Connections whose processes never say who they are: the oldest go when there are too many.
TEST_F(RudeProcesses, NeverSayWhoTheyAre) {
  constexpr std::size_t many = 600;
  expect_harmless([&](Child&) {
    rlimit limit{};
    require(::getrlimit(RLIMIT_NOFILE, &limit) == 0, "getrlimit");
    limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, 2 * many);
    require(::setrlimit(RLIMIT_NOFILE, &limit) == 0, "setrlimit");
    std::vector<ipc::Fd> all;
    while (all.size() < many) {
      all.push_back(ipc::connect_abstract(agent_name(::geteuid(), here->server()), SOCK_SEQPACKET));
    }
    pollfd oldest{all.front().get(), POLLIN, 0};
    require(::poll(&oldest, 1, 60'000) == 1, "the oldest connection is kept");
    pollfd youngest{all.back().get(), POLLIN, 0};
    require(::poll(&youngest, 1, 0) == 0, "the youngest one is not");
  });
}

// Where the agent has no descriptors left it waits until there are, and does not turn round and round.
TEST_F(RudeProcesses, LeaveTheAgentNoDescriptor) {
  expect_harmless([&](Child&) {
    const auto connect = [&] { return ipc::connect_abstract(agent_name(::geteuid(), here->server()), SOCK_SEQPACKET); };
    Question hello;
    hello.call = Call::local_hello;
    hello.flags = hello_call;
    hello.size = sysv::wire_version;
    // What the agent does below it has done once before: a sanitizer that looks at a type for the first time needs a pipe.
    for (int i = 0; i < 2; ++i) {
      const ipc::Fd early = connect();
      send_frame(early.get(), hello);
      require(receive_answer(early.get()).answer.error == ESRCH, "it is not heard");
    }
    rlim_t highest = 0;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/" + std::to_string(here->pid()) + "/fd")) {
      highest = std::max<rlim_t>(highest, std::stoul(entry.path().filename()));
    }
    rlimit limit{};
    require(::prlimit(here->pid(), RLIMIT_NOFILE, nullptr, &limit) == 0, "prlimit");
    limit.rlim_cur = highest + 3;
    require(::prlimit(here->pid(), RLIMIT_NOFILE, &limit, nullptr) == 0, "prlimit");
    std::vector<ipc::Fd> all;
    while (all.size() < 20) all.push_back(connect());
    const ipc::Fd last = connect();
    send_frame(last.get(), hello);
    clockid_t clock{};
    require(::clock_getcpuclockid(here->pid(), &clock) == 0, "clock_getcpuclockid");
    timespec before{}, after{};
    ::clock_gettime(clock, &before);
    pollfd answer{last.get(), POLLIN, 0};
    require(::poll(&answer, 1, 400) == 0, "there were descriptors");
    ::clock_gettime(clock, &after);
    const auto ns = (after.tv_sec - before.tv_sec) * 1'000'000'000 + after.tv_nsec - before.tv_nsec;
    require(ns < 100'000'000, "the agent turns round and round");
    all.clear();
    require(receive_answer(last.get()).answer.error == ESRCH, "it is not heard when there are descriptors again");
  });
}

}  // namespace
}  // namespace dsm::dshm_agent::testing
