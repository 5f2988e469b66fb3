// ipc/error.hpp - how a failed system call becomes an exception or an exit. Given to every lab.
#pragma once
#include <cerrno>
#include <string>
#include <system_error>

namespace ipc {

// Throws std::system_error with the present errno; `what` names the call and its object: "open /tmp/x".
[[noreturn]] inline void throw_errno(const std::string& what) {
  throw std::system_error(errno, std::generic_category(), what);
}

// Returns `result`, or throws as above if it is -1. REQUIRES: `result` comes straight from a system call.
template <class Int>
Int check(Int result, const char* what) {
  if (result == static_cast<Int>(-1)) throw_errno(what);
  return result;
}

}  // namespace ipc
