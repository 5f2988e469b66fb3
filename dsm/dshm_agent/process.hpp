// dsm/dshm_agent/process.hpp - what the agent knows of one process of its host: what it has attached where, and how it
// is spoken to. Plain data, and the arithmetic of its mappings.
//
// Thread-safety: none. Not async-signal-safe.
#pragma once
#include <sys/types.h>

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "dsm/dshm_agent/local.hpp"
#include "dsm/dshm_agent/userfault.hpp"
#include "dsm/sysv/wire.hpp"
#include "ipc/fd.hpp"

namespace dsm::dshm_agent {

using ConnectionId = std::uint64_t;  // never used twice; 0: none

// One attach. Part of it may have gone (munmap, a mapping over it).
class Attach {
 public:
  explicit Attach(std::int32_t id) : id_(id) {}

  [[nodiscard]] std::int32_t id() const { return id_; }
  // Granted, but the process has not said yet where it has mapped it.
  [[nodiscard]] bool is_mapped() const { return !parts_.empty(); }
  [[nodiscard]] std::uint64_t address() const { return address_; }  // where it begins, or began
  [[nodiscard]] std::uint64_t size() const { return size_; }
  // REQUIRES: size > 0, and the addresses do not wrap around.
  void map(std::uint64_t address, std::uint64_t size);
  // False: nothing of it was there. Afterwards it may be mapped no more.
  bool unmap(std::uint64_t address, std::uint64_t size);
  // Faults in what is still there are told by it. 0, or an errno value.
  [[nodiscard]] int watch(Userfault& userfault) const;
  [[nodiscard]] bool contains(std::uint64_t address) const;
  // Of the page that begins `offset` bytes into the segment: where the process sees it, if it does.
  [[nodiscard]] std::optional<std::uint64_t> at(std::uint64_t offset) const;

 private:
  std::int32_t id_;
  std::uint64_t address_ = 0, size_ = 0;
  std::map<std::uint64_t, std::uint64_t> parts_;  // by begin: end; what is still there
};

struct Process {
  sysv::ProcessNumber number = 0;
  sysv::Caller caller{};  // as last vouched for
  ipc::Fd pidfd;          // none: a child that has not said hello yet
  ConnectionId service = 0;
  std::optional<Userfault> userfault;
  std::vector<Attach> attaches;
  std::deque<Order> unsent;                                              // orders for which the socket had no room
  bool reads_none = false;                                               // and it is watched for room
  bool broken = false;                                                   // it lets more wait than it can have threads
  std::map<std::uint64_t, std::pair<std::int32_t, std::uint32_t>> owed;  // orders to be acknowledged: segment, page

  [[nodiscard]] bool has(std::int32_t segment) const;  // mapped
  // It has done what no libdshm does, or its pages cannot be kept from it any more.
  [[nodiscard]] bool is_to_go() const { return broken || (userfault && userfault->trouble() != 0); }
  [[nodiscard]] Attach* attach_at(std::uint64_t address);
};

}  // namespace dsm::dshm_agent
