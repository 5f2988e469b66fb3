// How agents begin, and how everything ends: dsmd goes, or falls silent, the agent is stopped or told to end, processes
// are stopped, calls are given up.
#include <gtest/gtest.h>
#include <sys/ipc.h>
#include <sys/sem.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <memory>

#include "dsm/dshm_agent/lease.hpp"
#include "dsm/dshm_agent/testing_bench.hpp"
#include "dsm/tests/job_bench.hpp"

namespace dsm::dshm_agent::testing {
namespace {

using sysv::Call;
using sysv::Question;

constexpr std::int32_t key = 0x5ca1ab1f;
constexpr int died_of_bus = 77;

class Ends : public Hosts {};

// What a process sees when all is over: calls that fail, a lease that has ended, and an access that raises SIGBUS.
void expect_calls_fail(Client& client) {
  Question get;
  get.call = Call::get;
  get.key = key;
  const int error = client.caller().ask(get).answer.error;
  if (error != EIDRM) throw std::runtime_error("a call gave " + std::to_string(error));
  if (client.lease().until_ns.load() > boot_ns()) throw std::runtime_error("the lease goes on");
}

void expect_bus_error(volatile std::uint64_t* memory) {
  ::signal(SIGBUS, [](int) { ::_exit(died_of_bus); });
  // The agent leaves processes a moment to do it themselves.
  const std::int64_t until = boot_ns() + margin_ns / 2;
  for (; boot_ns() < until; ::usleep(1000)) memory[0] = memory[0] + 1;
  throw std::runtime_error("no SIGBUS");
}

class DsmdGoes : public Hosts, public ::testing::WithParamInterface<Pager> {};

TEST_P(DsmdGoes, AndAllIsOver) {
  Child child([&](Child& me) {
    Client client(here->server(), GetParam());
    volatile std::uint64_t* const memory = client.attach(client.get(key, 8192, IPC_CREAT | 0600));
    memory[0] = 1;
    Question set;
    set.call = Call::get;
    set.kind = sysv::Object::set;
    set.size = 1;
    set.flags = 0600;
    Question operate;
    operate.call = Call::operate;
    operate.id = static_cast<std::int32_t>(client.caller().ask(set).answer.value);
    operate.ops = {{.number = 0, .change = -1}};
    Caller waiting(here->server());
    waiting.send(operate);
    me.tell(0);
    const int error = receive_answer(waiting.fd()).answer.error;
    if (error != EIDRM) throw std::runtime_error("semop gave " + std::to_string(error));
    expect_calls_fail(client);
    expect_bus_error(memory);
  });
  ASSERT_EQ(child.hear(), 0);
  dsmd.itself().kill(SIGKILL);
  EXPECT_EQ(child.wait(), died_of_bus);
  expect_all_ended();
}

INSTANTIATE_TEST_SUITE_P(Ends, DsmdGoes, ::testing::Values(Pager::uffd, Pager::orders),
                         [](const auto& one) { return std::string(one.param == Pager::uffd ? "uffd" : "orders"); });

// dsmd hears nothing of an agent that is stopped; the agent's processes know before that it is so. When the agent
// knows, too, it serves nobody new: a program that begins then has an agent of its own, and dsmd's word.
TEST_F(Ends, AnAgentIsStopped) {
  Child child([&](Child& me) {
    Client client(here->server(), Pager::uffd);
    volatile std::uint64_t* const memory = client.attach(client.get(key, 8192, IPC_CREAT | 0600));
    memory[0] = 1;
    me.tell(0);
    me.await();
    expect_calls_fail(client);
    me.tell(0);
    me.await();
    expect_bus_error(memory);
  });
  ASSERT_EQ(child.hear(), 0);
  here->stop();
  Child other([&](Child& me) {
    Client client(there->server(), Pager::uffd);
    volatile std::uint64_t* const memory = client.attach(client.get(key, 8192, IPC_CREAT | 0600));
    me.tell(static_cast<std::int64_t>(memory[0]));
  });
  EXPECT_EQ(other.hear(), 0) << "the page has not gone back to what the home had";
  EXPECT_EQ(other.wait(), 0);
  here->kill(SIGCONT);
  child.go();
  ASSERT_EQ(child.hear(), 0);
  AgentProgram successor(here->server(), dsmd.key_file());
  EXPECT_EQ(successor.said(), "ready\n");
  Child late([&](Child& me) {
    Client client(successor.server(), Pager::uffd);
    me.tell(static_cast<std::int64_t>(client.attach(client.get(key, 8192, 0600))[0]));
  });
  EXPECT_EQ(late.hear(), 0);
  EXPECT_EQ(late.wait(), 0);
  EXPECT_EQ(successor.wait(), 0);
  child.go();
  EXPECT_EQ(child.wait(), died_of_bus);
  expect_all_ended();
}

// An agent that is told to end sends home what has been written.
TEST_F(Ends, AnAgentIsToldToEnd) {
  Child child([&](Child& me) {
    Client client(here->server(), Pager::uffd);
    volatile std::uint64_t* const memory = client.attach(client.get(key, 8192, IPC_CREAT | 0600));
    memory[0] = 4711;
    ::signal(SIGBUS, [](int) { ::_exit(died_of_bus); });
    me.tell(0);
    me.await();
    memory[0] = memory[0] + 1;
  });
  ASSERT_EQ(child.hear(), 0);
  here->kill(SIGTERM);
  EXPECT_EQ(here->wait(), 0);
  child.go();
  EXPECT_EQ(child.wait(), died_of_bus);
  Child other([&](Child& me) {
    Client client(there->server(), Pager::uffd);
    const std::int32_t id = client.get(key, 8192, 0600);
    me.tell(static_cast<std::int64_t>(client.attaches(id)));
    me.tell(static_cast<std::int64_t>(client.attach(id)[0]));
  });
  EXPECT_EQ(other.hear(), 0);
  EXPECT_EQ(other.hear(), 4711);
  EXPECT_EQ(other.wait(), 0);
  EXPECT_EQ(there->wait(), 0);
}

// A process without a userfaultfd that is stopped holds its page; when it ends, others get it.
TEST_F(Ends, AStoppedProcessHoldsItsPage) {
  for (const bool killed : {false, true}) {
    Child holder([&](Child& me) {
      Client client(here->server(), Pager::orders);
      volatile std::uint64_t* const memory = client.attach(client.get(key, 8192, IPC_CREAT | 0600));
      memory[0] = memory[0] + 1;
      me.tell(0);
      me.await();
    });
    ASSERT_EQ(holder.hear(), 0);
    Child other([&](Child& me) {
      Client client(there->server(), Pager::uffd);
      volatile std::uint64_t* const memory = client.attach(client.get(key, 8192, 0600));
      me.tell(0);
      me.await();
      memory[512] = 1;  // the other page is free
      me.tell(0);
      me.tell(static_cast<std::int64_t>(memory[0]));
    });
    ASSERT_EQ(other.hear(), 0);
    holder.stop();
    other.go();
    ASSERT_EQ(other.hear(), 0);
    EXPECT_FALSE(other.speaks_within_ms(300));
    holder.kill(killed ? SIGKILL : SIGCONT);
    EXPECT_EQ(other.hear(), killed ? 2 : 1);
    if (!killed) holder.go();
    EXPECT_EQ(holder.wait(), killed ? 128 + SIGKILL : 0);
    EXPECT_EQ(other.wait(), 0);
    expect_all_ended();
    here = std::make_unique<AgentProgram>(here->server(), dsmd.key_file());
    there = std::make_unique<AgentProgram>(there->server(), dsmd.key_file());
  }
  here->kill(SIGTERM);
  there->kill(SIGTERM);
  expect_all_ended();
}

// semop waits as long as it must; it is given up by `cancel`, and when its connection ends.
TEST_F(Ends, ACallIsGivenUp) {
  Child child([&](Child&) {
    Client client(here->server(), Pager::uffd);
    Question set;
    set.call = Call::get;
    set.kind = sysv::Object::set;
    set.size = 1;
    set.flags = 0600;
    const auto id = static_cast<std::int32_t>(client.caller().ask(set).answer.value);
    const auto waiting = [&] {
      Question count;
      count.call = Call::get_ncnt;
      count.id = id;
      return client.caller().ask(count).answer.value;
    };
    Question operate;
    operate.call = Call::operate;
    operate.id = id;
    operate.ops = {{.number = 0, .change = -1}};
    auto one = std::make_unique<Caller>(here->server()), two = std::make_unique<Caller>(here->server());
    one->send(operate);
    two->send(operate);
    while (waiting() != 2) ::sched_yield();
    Question cancel;
    cancel.call = Call::cancel;
    one->send(cancel);
    const int error = receive_answer(one->fd()).answer.error;
    if (error != EINTR) throw std::runtime_error("cancel gave " + std::to_string(error));
    two.reset();
    while (waiting() != 0) ::sched_yield();
    operate.timeout_ns = 1'000'000;
    if (one->ask(operate).answer.error != EAGAIN) throw std::runtime_error("no timeout");
  });
  EXPECT_EQ(child.wait(), 0);
  EXPECT_EQ(here->wait(), 0);
}

// What is no question costs its sender the connection, and nobody else anything.
TEST_F(Ends, NonsenseEndsAConnectionOnly) {
  Child child([&](Child&) {
    Client client(here->server(), Pager::orders);
    const auto expect_dropped = [&](const Question& question) {
      Caller caller(here->server());
      caller.send(question);
      try {
        const Came came = receive_answer(caller.fd());
        if (came.answer.error == 0) throw std::logic_error("it was taken");
      } catch (const std::runtime_error&) {
      }
    };
    for (const Call call : {Call::hello, Call::beat, Call::leave, Call::fork, Call::exec, Call::exit, Call::local_hello,
                            Call::local_fork, Call::local_mapped, Call::local_fault, Call::local_lowered}) {
      Question question;
      question.call = call;
      question.id = 99;
      expect_dropped(question);
    }
    client.remove(client.get(key, 8192, IPC_CREAT | 0600));  // the agent is well, and so is its word with dsmd
  });
  EXPECT_EQ(child.wait(), 0);
  EXPECT_EQ(here->wait(), 0);
}

TEST_F(Ends, TheNameIsTaken) {
  AgentProgram second(here->server(), dsmd.key_file());
  EXPECT_EQ(second.said(), "taken\n");
  EXPECT_EQ(second.wait(), 0);
}

TEST(Begin, ErrorsAreOneLine) {
  daemon::testing::Dsmd dsmd;
  const auto expect_refused = [](const std::string& server, const std::string& key_file,
                                 const std::vector<std::string>& parts) {
    AgentProgram agent(server, key_file);
    EXPECT_EQ(launch::testing::count(agent.said(), "\n"), 1U) << agent.said();
    EXPECT_TRUE(launch::testing::has_line(agent.said(), parts)) << agent.said();
    EXPECT_EQ(agent.wait(), 1);
  };
  expect_refused("127.0.0.1:1", dsmd.key_file(), {"dshm_agent: ", "cannot reach dsmd at 127.0.0.1:1", "DSHM_SERVER"});
  expect_refused("nonsense", dsmd.key_file(), {"dshm_agent: ", "'nonsense' is no server", "HOST:PORT"});
  expect_refused(dsmd.at(), dsmd.folder() + "/none", {"dshm_agent: ", "key"});
  const daemon::testing::Dsmd other;  // with a key of its own
  expect_refused(dsmd.at(), other.key_file(), {"dshm_agent: ", dsmd.at(), "key"});
}

}  // namespace
}  // namespace dsm::dshm_agent::testing
