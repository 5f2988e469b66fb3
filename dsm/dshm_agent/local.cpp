#include "dsm/dshm_agent/local.hpp"

#include <cstdint>

#include "dsm/sysv/wire.hpp"

namespace dsm::dshm_agent {
namespace {

constexpr std::size_t name_bytes_max = 107;  // unix(7), without the leading zero byte

// FNV-1a: the same in every process, whatever its library.
std::string digest(const std::string& text) {
  std::uint64_t hash = 0xcbf29ce484222325U;
  for (const char c : text) hash = (hash ^ static_cast<std::uint8_t>(c)) * 0x100000001b3U;
  std::string out;
  for (int shift = 60; shift >= 0; shift -= 4) out += "0123456789abcdef"[hash >> static_cast<unsigned>(shift) & 15U];
  return out;
}

}  // namespace

// A server whose name does not fit is named by as much of it as does, and a digest of all.
std::string agent_name(uid_t uid, const std::string& server) {
  const std::string who = "dshm-" + std::to_string(sysv::wire_version) + "-" + std::to_string(uid) + "-";
  if (who.size() + server.size() <= name_bytes_max) return who + server;
  const std::string rest = "-" + digest(server);
  return who + server.substr(0, name_bytes_max - who.size() - rest.size()) + rest;
}

}  // namespace dsm::dshm_agent
