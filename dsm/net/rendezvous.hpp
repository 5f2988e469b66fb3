// dsm/net/rendezvous.hpp - how ranks find each other: what a rank and the coordinator (in dsmexec) say.
//
// A rank connects to DSMEXEC_HOSTNAME:DSMEXEC_PORTNUM, proves the job's key, sends Join; when all ranks have, each gets
// Welcome (or Refusal) and builds the mesh. The connection stays: on it the rank reports its Phase, and the coordinator
// reads from its end what became of the rank. Bodies are JSON in `control` frames: {"type":"join", ...}.
//
// Who comes to dsmd has no rank yet: it proves dsmd's key, says Enter, and gets a Place. From there on it does as a rank
// of dsmexec's does, on the same connection; but its mesh has a key of its own (session_key()). Nobody can end the
// processes of a session: so, when one is lost, dsmd tells the others by a verdict, and they end themselves.
//
// Not on the fault path; may allocate and throw. report() and read_verdict() are async-signal-safe.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "dsm/net/channel.hpp"

namespace dsm::net {

// Where the 32 bytes of the job's key are to be read from: the number of an inherited descriptor (a pipe holding the
// key and nothing else). The variable holds the number, never the key. dsm_init reads it, closes it and unsets it.
inline constexpr const char* key_fd_variable = "DSMEXEC_KEY_FD";
// Set for a job with --encrypt: all connections that prove the key are then sealed (seal.hpp).
inline constexpr const char* encrypt_variable = "DSMEXEC_ENCRYPT";
inline constexpr std::size_t max_control_body = 1 << 20;

// What must be equal in all ranks, because pages are copied byte by byte.
struct Platform {
  std::string architecture;  // "x86_64"
  std::string byte_order;    // "little"
  std::uint32_t page_size = 0;
  std::uint32_t version = 0;  // of libdsm's protocol
  [[nodiscard]] static Platform here();
  friend bool operator==(const Platform&, const Platform&) = default;
};
// The first difference, as a clause for a Refusal: "its page size is 65536, this job's is 4096". Empty if they are equal.
// `whose`: instead of "this job's".
[[nodiscard]] std::string difference(const Platform& job, const Platform& its, const char* whose = "this job's");

// 1 to 64 letters, digits, '.', '_' and '-'.
[[nodiscard]] bool is_session_name(std::string_view name);
inline constexpr std::size_t max_session_name = 64;

// To dsmd, before Join: of which session this process wants to be a member.
struct Enter {
  std::string session;
  int members = 0;  // that the session has in the end, as this process was told
  std::int64_t pid = 0;
  int cores = 1;  // on which this process may run
  Platform platform;
};

// dsmd's answer, or Refusal.
struct Place {
  int rank = -1;
  SessionNonce nonce{};  // for session_key()
  int patience_s = 0;    // how long the session waits for its last member
};

struct Join {
  int rank = -1;
  std::int64_t pid = 0;
  std::uint16_t mesh_port = 0;
  Platform platform;
};

struct Peer {
  std::string address;
  std::uint16_t port = 0;
};

struct Welcome {
  std::vector<Peer> peers;  // by rank; the own entry included
  std::string protocol = "msi";
  std::string home = "cyclic";  // core::Placement
  std::string pager = "sigsegv";
  std::uint64_t size = 0;       // of the region, bytes
  std::uint32_t page_size = 0;  // bytes
  std::uint32_t lanes = 0;      // call lanes from each rank to each other
  std::uint32_t spin_us = 0;    // Patience of waiting threads: 0 unless there are cores to spare
};

struct Refusal {
  std::string why;
};  // one clause

// rank -> coordinator, after Welcome.
struct Report {
  enum class Phase : std::uint8_t {
    telemetry,  // value: the System V segment in which this rank publishes (telemetry/segment.hpp); goes to its agent
    running,    // dsm_init is about to return
    finalized,  // dsm_finalize is about to return
    lost_peer,  // value: the rank whose connection ended; this rank is stuck, but not the first failure
    bad_peer,   // value: the rank that broke the protocol
  };
  Phase phase{};
  std::int64_t value = 0;
};

using ControlMessage = std::variant<Join, Welcome, Refusal, Report, Enter, Place>;
[[nodiscard]] std::string to_json(const ControlMessage& message);
// Empty if the text is no such message or a value is out of range; `why` (if not null) then says what is wrong with it.
// Never throws for what is in the text. A rank number is checked against the job's by the coordinator, not here, so that
// it can refuse by name; a Welcome's protocol, home and pager likewise by the node, which knows them.
[[nodiscard]] std::optional<ControlMessage> from_json(std::string_view text, std::string* why = nullptr);

// Sends the message as one control frame, blocking. Not async-signal-safe.
Io send(Channel& channel, const ControlMessage& message);
// The message in a received frame; empty as above, also if the frame is of another kind.
[[nodiscard]] std::optional<ControlMessage> read_control(const FrameHeader& header, const std::uint8_t* body,
                                                         std::string* why = nullptr);

// Sends a Report without allocating: as an empty-bodied control frame with op = phase + 1 and a = value.
// async-signal-safe: yes. The coordinator reads it with read_report().
Io report(Channel& coordinator, Report report) noexcept;
[[nodiscard]] std::optional<Report> read_report(const FrameHeader& header) noexcept;

// dsmd -> member, after Welcome: the session is over, and why, in one line; cut to max_verdict bytes. No JSON: whoever
// reads it may do so while a thread of the program holds malloc's lock.
inline constexpr std::size_t max_verdict = 400;
Io send_verdict(Channel& member, std::string_view why);
// The line, as long as `body` lives; empty if the frame is none. async-signal-safe: yes.
[[nodiscard]] std::string_view read_verdict(const FrameHeader& header, const std::uint8_t* body) noexcept;

}  // namespace dsm::net
