// dsm/dshm_agent/agent.hpp - the agent at work: the epoll loop in which processes, their faults, and dsmd meet.
//
// One for each (user, server) on a host. local.hpp says what processes say; wire.hpp what dsmd says; hosted.hpp who may
// touch what. All that a process can do wrong costs it its connection, and nobody else anything.
//
// A request of a process goes to dsmd under a number of our own, and its answer finds the way back by that. Any number
// may be under way (semop waits); frames to dsmd go in one order, and dsmd answers in that order all but `operate`. So
// what an answer says is in force, with all that was asked before it, and nothing of what was asked after.
//
// The last local detach of a segment: pages held for writing go home (PageFrame::last), then the detach (or exec, or
// exit) itself, and at once `leave`; until that comes, whoever wants such a page waits. So when the caller of shmdt
// goes on, other hosts see what it has written.
//
// One thread, and the Closer's; nothing here waits but epoll_wait. Not async-signal-safe.
#pragma once
#include <sys/epoll.h>

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "dsm/dshm_agent/closer.hpp"
#include "dsm/dshm_agent/lease.hpp"
#include "dsm/dshm_agent/letters.hpp"
#include "dsm/dshm_agent/process.hpp"
#include "dsm/dshm_agent/segment.hpp"
#include "dsm/dshm_agent/upstream.hpp"
#include "ipc/fd.hpp"
#include "ipc/signals.hpp"

namespace dsm::dshm_agent {

class Agent {
 public:
  // `listener`: the abstract socket's. Takes TERM and INT into its own hands. Throws std::system_error.
  Agent(ipc::Fd listener, Upstream upstream);
  Agent(const Agent&) = delete;
  // Until the last process has left, or a signal comes.
  void run();

 private:
  enum class Source : std::uint8_t { listener, signals, timer, upstream, connection, exits, faults, closed };
  struct Connection {
    enum class Role : std::uint8_t { fresh, call, service };
    ConnectionId id = 0;
    ipc::Fd fd;
    Role role{};
    ProcessNumber process = 0;
    std::uint32_t request = 0;  // ours, of the question that is under way; 0: none
  };
  struct Pending {                // by our number of the request
    ConnectionId connection = 0;  // 0: it has ended
    std::uint32_t request = 0;    // its own number
    sysv::Call call{};
    ProcessNumber process = 0, child = 0;
    std::int32_t segment = 0;  // attach
    bool cancelled = false;    // dsmd has been told
  };

  // ---- agent.cpp: the loop, and what is ready in it ----
  void watch(int fd, Source source, std::uint64_t number, std::uint32_t events = EPOLLIN,
             int operation = EPOLL_CTL_ADD);
  void turn();
  void dispatch(const epoll_event& event);
  void unwatch(int fd);
  void arm_timer();
  void on_time();
  void accept_all();
  void listen_again();
  void stop_listening();
  [[nodiscard]] bool admits(int fd);
  void add_connection(ipc::Fd fd);
  void hear(ConnectionId id);
  [[nodiscard]] bool understands(Connection& connection, Letter& letter);
  void drop(ConnectionId id);
  void hear_dsmd();
  [[nodiscard]] bool take(sysv::Frame& frame);
  void to_dsmd(const sysv::Frame& frame);
  void flush_dsmd();
  void dsmd_has_gone();
  void tell_all_it_is_over();
  void expire_all();
  void retire();
  [[nodiscard]] bool has_nobody();

  // ---- agent_calls.cpp: what processes ask ----
  [[nodiscard]] bool take(Connection& connection, Letter& letter);  // false: nobody may say that
  void ask(Connection& connection, sysv::Question question, Letter& letter);
  void forward(Connection& connection, sysv::Question question, ProcessNumber child = 0);
  void tell(Connection& connection, sysv::Answer answer, int descriptor = -1);
  void refuse(Connection& connection, const sysv::Question& question, int error, const std::string& why = {});
  void on_mapped(Connection& connection, const sysv::Question& question);
  void on_unmapped(Connection& connection, const sysv::Question& question);
  void on_detach(Connection& connection, const sysv::Question& question);
  void on_fork(Connection& connection, const sysv::Question& question, Letter& letter);
  void on_cancel(const Connection& connection);
  void answered(sysv::Answer answer);
  void attached(const Pending& pending, sysv::Answer& answer);
  void give_back(const Pending& attach);
  void forked(const Pending& pending, sysv::Answer& answer);
  [[nodiscard]] Segment* segment_for(const Pending& pending, const sysv::Answer& answer);
  [[nodiscard]] std::uint32_t new_request();

  // ---- agent_processes.cpp: who is here ----
  [[nodiscard]] bool hello(Connection& connection, const sysv::Question& question, Letter& letter);
  [[nodiscard]] bool hello_service_new(Connection& connection, const sysv::Question& question, Letter& letter);
  [[nodiscard]] bool begin(Connection& connection, const sysv::Question& question, Letter& letter);
  [[nodiscard]] Process* process_of(pid_t pid);
  void end_exited();
  [[nodiscard]] bool on_service(Connection& connection, const sysv::Question& question, Letter& letter);
  [[nodiscard]] int map_all(Process& process);
  [[nodiscard]] int map_one(Process& process, Attach& attach);
  void send_away();
  void exited(ProcessNumber number);
  void executed(Process& process);
  void detach_all(Process& process);
  void detached(Process& process, std::int32_t segment);
  void close_if_unused(std::int32_t segment);
  void leave_closed();
  void probe();
  [[nodiscard]] bool is_still_there(const Process& process);
  void read_faults(ProcessNumber number);
  void fault(Process& process, std::uint64_t address, Access want, std::uint64_t thread);
  void order(Process& process, Order order);
  void send_orders(Process& process);

  ipc::SignalFd signals_;
  Closer closer_;
  ipc::Fd listener_;
  Upstream upstream_;
  ipc::Fd epoll_;
  ipc::Fd exits_;  // an epoll, too: of the processes' pidfds
  ipc::Fd timer_;
  LeasePage lease_;
  Processes processes_;
  std::map<std::int32_t, std::unique_ptr<Segment>> segments_;  // by id; those that are attached here
  std::vector<std::uint32_t> closed_;  // tenures of segments that are gone from here, to be left in a moment
  std::map<ConnectionId, Connection> connections_;
  std::set<ConnectionId> fresh_;  // those that have not said yet who they are
  std::map<std::uint32_t, Pending> pending_;
  ConnectionId next_connection_ = 1;
  ProcessNumber next_process_ = 1;
  std::uint32_t next_request_ = 1;
  std::uint64_t next_order_ = 1;
  std::int64_t next_beat_ns_, next_probe_ns_;
  std::int64_t alone_until_ns_;                                    // when it ends if nobody has come
  std::optional<std::int64_t> expire_at_ns_;                       // over_, and the segments are not empty yet
  std::vector<std::pair<ProcessNumber, std::uint64_t>> sleepers_;  // threads that have faulted since
  std::int64_t armed_ns_ = 0;                                      // what the timer is set to; 0: it has gone off
  bool watching_output_ = false;
  bool listening_ = true;  // false: there were no descriptors left
  bool over_ = false;      // dsmd has gone
  bool ending_ = false;
};

}  // namespace dsm::dshm_agent
