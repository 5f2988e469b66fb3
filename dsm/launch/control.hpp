// dsm/launch/control.hpp - what dsmexec and its agent on a host say to each other, and how it travels.
//
// Two descriptors (an agent's standard input and output: a socketpair when it was forked, what ssh or srun gives when
// it was not), on which frames of net::FrameHeader go: `control` frames with a JSON body, and `bytes` frames that carry
// output, input and samples raw. Everything that must not be seen in argv or the environment, the job's key first, goes
// this way. The peer is a program of this very version: what cannot be understood ends the connection.
//
// Thread-safety: none. Not async-signal-safe.
#pragma once
#include <poll.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "dsm/net/frame.hpp"
#include "dsm/net/handshake.hpp"
#include "ipc/fd.hpp"

namespace dsm::launch {

// ---- dsmexec -> agent ----

// The first message: what to start. Texts may hold any bytes.
struct Start {
  std::vector<int> ranks;              // that live on this host
  std::vector<std::string> hosts;      // of these ranks, as the user wrote them
  std::string program;                 // path to execute
  std::string program_hash;            // if that is not what is found there, the agent asks for it; empty: it does not
  std::uint64_t program_size = 0;      // bytes that it then gets
  std::vector<std::string> arguments;  // argv, [0] included
  std::string working_directory;       // empty: the agent's
  bool lenient = false;                // if there is no such folder, the agent's will do
  std::vector<std::string> environment;  // "NAME=value", for all ranks, beside what the agent inherits
  net::JobKey key{};
  std::vector<int> readers;           // of these ranks: they get the `input` bytes
  std::vector<std::string> debugger;  // words in front of the program; looked up on the PATH there
  std::vector<int> debugged;          // of these ranks: they run under it
  bool traceable = false;             // their stacks may be asked for
  bool prompts = false;               // show unfinished lines after a while
};
struct PassSignal {
  int signo = 0;
};  // to the process group of every rank
struct Interrupt {
  int rank = 0;
};                  // SIGINT to its process group, for a debugger: the job goes on
struct KillAll {};  // end the ranks and all that they started
struct InputEnd {};
struct Watch {
  int rank = 0;
  int segment = 0;
};  // attach this telemetry segment
struct Ask {
  std::uint64_t id = 0;
};                     // for a telemetry sample
struct TakeStacks {};  // of the ranks that run: where are they?
struct Beat {};        // either way: "I am alive", to and from agents on other machines

// ---- agent -> dsmexec ----

struct Hello {
  std::uint32_t version = 0;
  int cores = 0;
  std::string caller;  // the address from which dsmexec's machine reached this one; empty: not known
};
struct NeedProgram {};  // of Start: it is not here
struct NoFolder {};     // the working directory is not here; the agent's own is taken
struct Started {
  int rank = 0;
  std::int64_t pid = 0;
};
struct NotStarted {
  int rank = 0;
  std::string step;
  int error = 0;
};  // no other rank will be started
struct Exited {
  int rank = 0;
  int status = 0;
  bool stopped = false;
  bool out_of_memory = false;
};  // status: as wait(2) has it; the rest: see job.hpp
struct StacksTaken {
  bool without_gdb = false;
};  // they have been told, or cannot be
struct InputTaken {
  std::uint64_t bytes = 0;
};                      // so much of the input is in the pipes of all readers
struct InputClosed {};  // no reader wants any more
struct Done {
  int left = 0;
};  // nothing runs any more, but for so many processes

using AgentMessage =
    std::variant<Start, PassSignal, Interrupt, KillAll, InputEnd, Watch, Ask, TakeStacks, Beat, Hello, NeedProgram,
                 NoFolder, Started, NotStarted, Exited, StacksTaken, InputTaken, InputClosed, Done>;

inline constexpr std::uint32_t agent_version = 4;
inline constexpr std::chrono::milliseconds beat_period{1000};  // of agents on other machines
// After which an agent on another machine counts as lost; and dsmexec, for an agent that came by srun, until it has said
// what is to be started. (Later it may stand still, in a debugger or in the background, and its ranks go on.)
inline constexpr std::chrono::milliseconds silence{4000};
inline constexpr std::size_t max_frame = 64u << 20;     // bytes of a body: a sample of a large region
inline constexpr std::size_t input_window = 64u << 10;  // bytes of input that may be on their way at one time

[[nodiscard]] std::string to_json(const AgentMessage& message);
// Empty, and one clause in `why`, for anything else.
[[nodiscard]] std::optional<AgentMessage> parse_message(std::string_view json, std::string& why);

// What a `bytes` frame holds (header.op).
enum class Bytes : std::uint8_t {
  lines = 1,    // agent ->: whole lines, each with its newline; a = rank, b = 1 stdout, 2 stderr
  part = 2,     // agent ->: a part of a very long line; a, b as above
  shown = 3,    // agent ->: an unfinished line that is to be shown now; a, b as above
  input = 4,    // -> agent
  stack = 7,    // agent ->: a line that tells where a rank stands, without its newline; a = rank
  program = 6,  // -> agent: the next piece of the program's file
  sample = 5,   // agent ->: an encoded telemetry::Snapshot; a = the id of what it answers, 0 for the last one
};

// One end. Never blocks; what cannot be sent now waits in memory, and whoever fills it asks queued() before.
class Link {
 public:
  enum class State : std::uint8_t { open, ended, broken };
  struct Frame {
    net::FrameHeader header;
    std::string_view body;  // lives until the sink returns
  };
  using Sink = std::function<void(const Frame&)>;

  // Both are made non-blocking; they may be the same socket (then `out` is a duplicate). `received`: what has already
  // been read from `in`. REQUIRES: SIGPIPE is ignored.
  Link(ipc::Fd in, ipc::Fd out, std::string received = {});

  void send(const AgentMessage& message);
  void send(Bytes what, std::uint64_t a, std::uint64_t b, std::string_view body);
  // Sends what it can. False if the peer does not take any more; everything is then dropped.
  bool flush();
  [[nodiscard]] std::size_t queued() const { return out_buffer_.size() - sent_; }  // bytes

  // Reads what is there, at most about `budget` bytes, and hands over each whole frame. `broken`: not a frame; why()
  // says more.
  State receive(const Sink& sink, std::size_t budget = 1 << 20);
  [[nodiscard]] const std::string& why() const { return why_; }

  void add_to(std::vector<pollfd>& set, bool want_input) const;

 private:
  void put(net::FrameKind kind, Bytes op, std::uint64_t a, std::uint64_t b, std::string_view body);
  bool cut(const Sink& sink);

  ipc::Fd in_, out_;
  std::string out_buffer_, in_buffer_, why_;
  std::size_t sent_ = 0;
  bool deaf_ = false;  // the peer does not read any more
};

}  // namespace dsm::launch
