// labs/06-sockets/src/record.hpp - where the programs of this lab meet, and how they talk: one text, one record.
//
// On SOCK_SEQPACKET the kernel keeps records apart, so that no length has to be sent along (ipc/socket.hpp has frames for
// sockets that are streams of bytes). Thread-safety: as for the descriptor.
#pragma once
#include <sys/uio.h>
#include <unistd.h>

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "ipc/program.hpp"
#include "ipc/socket.hpp"

// One for each user: two of them on one machine do not meet.
inline std::string default_socket_path() { return "/tmp/ipc-lab6-" + std::to_string(::getuid()) + ".sock"; }

// Adds --socket.
inline void add_socket_path(ipc::po::options_description& options, std::string& path) {
  path = default_socket_path();
  options.add_options()("socket", ipc::po::value(&path)->default_value(path)->value_name("PATH"), "where to meet");
}

// One record, at once or not at all. An empty one looks like the end to who receives it: do not send it.
inline ipc::Transfer send_record(int fd, std::string_view text) {
  const iovec part{const_cast<char*>(text.data()), text.size()};
  return ipc::send_some(fd, {&part, 1});
}

// The next record, if one is there now: the first `bytes` of `buffer`. What does not fit is lost: EMSGSIZE.
inline ipc::Transfer receive_record(int fd, std::span<char> buffer) {
  const iovec part{buffer.data(), buffer.size()};
  return ipc::receive_some(fd, {&part, 1});
}
