// dsmd, two agents and their processes, which speak the local protocol by themselves: pages, and how everything ends.
#include <gtest/gtest.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <vector>

#include "dsm/dshm_agent/lease.hpp"
#include "dsm/dshm_agent/testing_bench.hpp"
#include "ipc/error.hpp"
#include "ipc/socket.hpp"
#include "ipc/spawn.hpp"

namespace dsm::dshm_agent::testing {
namespace {

constexpr std::int32_t key = 0x5ca1ab1e;
constexpr std::size_t words = sysv::page_bytes / sizeof(std::uint64_t);  // of a page

void add(volatile std::uint64_t* word) { __atomic_fetch_add(const_cast<std::uint64_t*>(word), 1, __ATOMIC_SEQ_CST); }

std::uint64_t load(volatile std::uint64_t* word) {
  return __atomic_load_n(const_cast<std::uint64_t*>(word), __ATOMIC_SEQ_CST);
}

const char* name(Pager pager) { return pager == Pager::uffd ? "uffd" : "orders"; }

// From one process to another, a byte.
class Pipe {
 public:
  void write() {
    if (ipc::write_full(pipe_.write.get(), "", 1) < 0) ipc::throw_errno("write");
  }
  void read() {
    char byte = 0;
    if (ipc::read_full(pipe_.read.get(), &byte, 1) != 1) throw std::runtime_error("nobody is there");
  }

 private:
  ipc::Pipe pipe_ = ipc::make_pipe();
};

class Counting : public Hosts, public ::testing::WithParamInterface<std::pair<Pager, Pager>> {};

// Each of four processes adds to one word, on two hosts; what they find in the end is what they have added, all of
// them.
TEST_P(Counting, IsExact) {
  constexpr std::int64_t each = 300'000;  // much more than fits into one turn
  const auto [one, two] = GetParam();
  std::vector<std::unique_ptr<Child>> children;
  for (int i = 0; i < 4; ++i) {
    const std::string server = (i % 2 == 0 ? here : there)->server();
    const Pager pager = i < 2 ? one : two;
    children.push_back(std::make_unique<Child>([=](Child& me) {
      Client client(server, pager);
      volatile std::uint64_t* const memory = client.attach(client.get(key, 3 * sysv::page_bytes, IPC_CREAT | 0600));
      me.tell(0);
      me.await();
      for (std::int64_t n = 0; n < each; ++n) add(memory + words + static_cast<std::size_t>(n % 2));
      me.tell(each);
      me.await();
      me.tell(static_cast<std::int64_t>(load(memory + words) + load(memory + words + 1)));
      me.await();
      client.detach(memory);
    }));
  }
  for (auto& child : children) ASSERT_EQ(child->hear(), 0);
  for (auto& child : children) child->go();
  for (auto& child : children) ASSERT_EQ(child->hear(), each);
  for (auto& child : children) child->go();
  for (auto& child : children) EXPECT_EQ(child->hear(), 4 * each);
  for (auto& child : children) child->go();
  for (auto& child : children) EXPECT_EQ(child->wait(), 0);
  expect_all_ended();
}

INSTANTIATE_TEST_SUITE_P(Hosts, Counting,
                         ::testing::Values(std::pair{Pager::uffd, Pager::uffd}, std::pair{Pager::orders, Pager::orders},
                                           std::pair{Pager::uffd, Pager::orders}),
                         [](const auto& one) {
                           return std::string(name(one.param.first)) + "_" + name(one.param.second);
                         });

class Agents : public Hosts {
 protected:
  // A process here that has made the segment, and attached it once.
  std::unique_ptr<Child> start(const AgentProgram& agent, Pager pager,
                               std::function<void(Child&, Client&, std::int32_t, volatile std::uint64_t*)> body) {
    const std::string server = agent.server();
    return std::make_unique<Child>([=](Child& me) {
      Client client(server, pager);
      const std::int32_t id = client.get(key, 4 * sysv::page_bytes, IPC_CREAT | 0600);
      body(me, client, id, client.attach(id));
    });
  }
};

// The last detach of a host sends home what was written there.
TEST_F(Agents, LeaveWhatTheyHaveWritten) {
  auto writer = start(*here, Pager::uffd, [](Child&, Client& client, std::int32_t, volatile std::uint64_t* memory) {
    for (std::size_t page = 0; page < 4; ++page) memory[page * words] = 100 + page;
    client.detach(memory);
  });
  EXPECT_EQ(writer->wait(), 0);
  EXPECT_EQ(here->wait(), 0);  // that was its last process
  auto reader = start(*there, Pager::orders, [](Child& me, Client&, std::int32_t, volatile std::uint64_t* memory) {
    for (std::size_t page = 0; page < 4; ++page) me.tell(static_cast<std::int64_t>(memory[page * words]));
  });
  for (int page = 0; page < 4; ++page) EXPECT_EQ(reader->hear(), 100 + page);
  EXPECT_EQ(reader->wait(), 0);
  EXPECT_EQ(there->wait(), 0);
}

// Also when the writer is killed: the agent lives, and so does what was in the frames.
TEST_F(Agents, KeepWhatAKilledProcessHasWritten) {
  for (const Pager pager : {Pager::uffd, Pager::orders}) {
    auto writer = start(*here, pager, [](Child& me, Client&, std::int32_t, volatile std::uint64_t* memory) {
      add(memory);
      me.tell(0);
      me.await();
    });
    ASSERT_EQ(writer->hear(), 0);
    auto other = start(*there, pager, [](Child& me, Client& client, std::int32_t id, volatile std::uint64_t* memory) {
      me.tell(static_cast<std::int64_t>(client.attaches(id)));
      me.await();
      me.tell(static_cast<std::int64_t>(load(memory)));
      me.await();
      while (client.attaches(id) != 1) ::sched_yield();
    });
    EXPECT_EQ(other->hear(), 2);
    writer->kill(SIGKILL);
    EXPECT_EQ(writer->wait(), 128 + SIGKILL);
    other->go();
    EXPECT_EQ(other->hear(), 1);
    other->go();
    EXPECT_EQ(other->wait(), 0);
    expect_all_ended();
    here = std::make_unique<AgentProgram>(here->server(), dsmd.key_file());
    there = std::make_unique<AgentProgram>(there->server(), dsmd.key_file());
    auto remover = start(*here, pager,
                         [](Child&, Client& client, std::int32_t id, volatile std::uint64_t*) { client.remove(id); });
    EXPECT_EQ(remover->wait(), 0);
    EXPECT_EQ(here->wait(), 0);
    here = std::make_unique<AgentProgram>(here->server(), dsmd.key_file());
  }
}

// A system call meets the page that is elsewhere, and waits for it, as an instruction would.
TEST_F(Agents, ServeSystemCallsByUserfaultfd) {
  auto writer = start(*here, Pager::uffd, [](Child& me, Client&, std::int32_t, volatile std::uint64_t* memory) {
    memory[0] = 4711;
    me.tell(0);
    me.await();
    me.tell(static_cast<std::int64_t>(memory[1]));
  });
  ASSERT_EQ(writer->hear(), 0);
  auto caller = start(*there, Pager::uffd, [](Child&, Client&, std::int32_t, volatile std::uint64_t* memory) {
    int ends[2];
    if (::pipe(ends) != 0) throw std::runtime_error("pipe");
    auto* const at = const_cast<std::uint64_t*>(memory);
    if (::write(ends[1], at, 8) != 8 || ::read(ends[0], at + 1, 8) != 8) throw std::runtime_error("EFAULT?");
  });
  EXPECT_EQ(caller->wait(), 0);
  writer->go();
  EXPECT_EQ(writer->hear(), 4711);
  EXPECT_EQ(writer->wait(), 0);
  expect_all_ended();
}

// fork doubles the attaches; the child sees the memory; the parent's and the child's end.
TEST_F(Agents, CountTheAttachesOfAForkedChild) {
  for (const Pager pager : {Pager::uffd, Pager::orders}) {
    const std::string server = here->server();
    auto family = start(*here, pager, [=](Child& me, Client& client, std::int32_t id, volatile std::uint64_t* memory) {
      const volatile std::uint64_t* const second = client.attach(id);
      memory[0] = 1;
      const Client::Forked forked = client.fork_child();
      if (forked.pid == 0) {
        Client own(server, pager, forked.service);
        own.adopt(client);
        add(memory);
        ::_exit(second[0] == 2 && own.attaches(id) == 4 ? 0 : 1);
      }
      int status = 0;
      ::waitpid(forked.pid, &status, 0);
      me.tell(status);
      while (client.attaches(id) != 2) ::sched_yield();  // the agent learns of it when it has ended
      me.tell(static_cast<std::int64_t>(load(memory)));
      me.await();
      // One that never says hello.
      const Client::Forked silent = client.fork_child();
      if (silent.pid == 0) ::_exit(0);
      ::waitpid(silent.pid, &status, 0);
      while (client.attaches(id) != 2) ::sched_yield();
      client.remove(id);
    });
    EXPECT_EQ(family->hear(), 0);
    EXPECT_EQ(family->hear(), 2);
    family->go();
    EXPECT_EQ(family->wait(), 0);
    EXPECT_EQ(here->wait(), 0);
    here = std::make_unique<AgentProgram>(server, dsmd.key_file());
  }
}

// A child ends, its parent has waited for it, and ends: the agent, which hears of both at once, says it in this order.
TEST_F(Agents, TellInWhichOrderProcessesHaveEnded) {
  const std::string server = here->server();
  auto family = start(*here, Pager::orders, [=](Child& me, Client& client, std::int32_t id, volatile std::uint64_t*) {
    Pipe ready, go;
    const Client::Forked parent = client.fork_child();
    if (parent.pid == 0) {
      Client own(server, Pager::orders, parent.service);
      const Client::Forked child = own.fork_child();
      if (child.pid == 0) {
        const Client its(server, Pager::orders, child.service);
        ready.write();
        go.read();
        ::_exit(0);
      }
      ::waitpid(child.pid, nullptr, 0);
      ::_exit(0);
    }
    ready.read();
    me.tell(0);
    me.await();  // until the agent is stopped
    go.write();
    ::waitpid(parent.pid, nullptr, 0);
    me.tell(0);
    const sysv::SegmentStat stat = client.stat(id);
    me.tell(stat.lpid.pid == parent.pid && stat.nattch == 1 ? 0 : 1);
  });
  ASSERT_EQ(family->hear(), 0);
  here->kill(SIGSTOP);
  int status = 0;
  ASSERT_EQ(::waitpid(here->pid(), &status, WUNTRACED), here->pid());
  family->go();
  EXPECT_EQ(family->hear(), 0);
  here->kill(SIGCONT);
  EXPECT_EQ(family->hear(), 0) << "the child has ended last";
  EXPECT_EQ(family->wait(), 0);
  EXPECT_EQ(here->wait(), 0);
}

// It has not been waited for when the agent hears it: so there is a pidfd of it, but nobody at the connection's end.
TEST_F(Agents, EndThoughAProcessDiedDuringItsHello) {
  here->stop();
  Child early([server = here->server()](Child& me) {
    const ipc::Fd service = ipc::connect_abstract(agent_name(::geteuid(), server), SOCK_SEQPACKET);
    sysv::Question hello;
    hello.call = sysv::Call::local_hello;
    hello.flags = hello_service;
    hello.size = sysv::wire_version;
    send_frame(service.get(), hello);
    me.tell(0);
    me.await();
  });
  EXPECT_EQ(early.hear(), 0);
  early.kill(SIGKILL);
  siginfo_t end{};
  ASSERT_EQ(::waitid(P_PID, static_cast<id_t>(early.pid()), &end, WEXITED | WNOWAIT), 0);
  here->kill(SIGCONT);
  EXPECT_EQ(here->wait(), 0);
  EXPECT_EQ(early.wait(), 128 + SIGKILL);
}

// Part of an attach that is unmapped leaves the rest; all of it is a detach.
TEST_F(Agents, SeeWhatIsUnmapped) {
  for (const Pager pager : {Pager::uffd, Pager::orders}) {
    auto one = start(*here, pager, [](Child& me, Client& client, std::int32_t id, volatile std::uint64_t* memory) {
      volatile std::uint64_t* const again = client.attach(id);
      for (std::size_t page = 0; page < 4; ++page) memory[page * words] = page;
      client.unmap(memory, 1, 2);
      me.tell(static_cast<std::int64_t>(client.attaches(id)));
      me.await();
      memory[3 * words] = again[2 * words] + 40;
      me.tell(static_cast<std::int64_t>(again[3 * words]));
      client.unmap(memory, 0, 1);
      client.unmap(memory, 3, 1);
      me.tell(static_cast<std::int64_t>(client.attaches(id)));
      me.await();
      client.remove(id);
    });
    EXPECT_EQ(one->hear(), 2);
    auto other = start(*there, Pager::uffd, [](Child& me, Client&, std::int32_t, volatile std::uint64_t* memory) {
      for (std::size_t page = 0; page < 4; ++page) add(memory + page * words);  // takes all of it away
      me.tell(0);
    });
    EXPECT_EQ(other->hear(), 0);
    EXPECT_EQ(other->wait(), 0);
    one->go();
    EXPECT_EQ(one->hear(), 43);
    EXPECT_EQ(one->hear(), 1);
    one->go();
    EXPECT_EQ(one->wait(), 0);
    expect_all_ended();
    here = std::make_unique<AgentProgram>(here->server(), dsmd.key_file());
    there = std::make_unique<AgentProgram>(there->server(), dsmd.key_file());
  }
}

// exec ends the attaches, and not the process.
TEST_F(Agents, SeeAnExec) {
  auto watcher = start(*there, Pager::uffd, [](Child& me, Client& client, std::int32_t id, volatile std::uint64_t*) {
    me.tell(0);
    me.await();
    me.tell(static_cast<std::int64_t>(client.attaches(id)));
    me.await();
    while (client.attaches(id) != 1) ::sched_yield();
  });
  ASSERT_EQ(watcher->hear(), 0);
  for (const Pager pager : {Pager::uffd, Pager::orders}) {
    auto one = start(*here, pager, [](Child& me, Client&, std::int32_t, volatile std::uint64_t* memory) {
      add(memory);
      me.tell(0);
      me.await();
      ::execl("/bin/sleep", "sleep", "600", nullptr);
    });
    ASSERT_EQ(one->hear(), 0);
    if (pager == Pager::uffd) {
      watcher->go();
      EXPECT_EQ(watcher->hear(), 2);
    }
    one->go();
    if (pager == Pager::orders) {
      watcher->go();
      EXPECT_EQ(watcher->wait(), 0);
    } else {
      while (launch::testing::command_line(one->pid()).find("sleep") == std::string::npos) ::sched_yield();
    }
    one->kill(SIGKILL);
    EXPECT_EQ(one->wait(), 128 + SIGKILL);
    EXPECT_EQ(here->wait(), 0);
    if (pager == Pager::uffd) here = std::make_unique<AgentProgram>(here->server(), dsmd.key_file());
  }
  EXPECT_EQ(there->wait(), 0);
}

}  // namespace
}  // namespace dsm::dshm_agent::testing
