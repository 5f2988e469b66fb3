// labs/05-fifo/src/fifo_path.hpp - where the two programs meet.
#pragma once
#include <limits.h>

#include <cctype>
#include <string>

#include "ipc/program.hpp"

// /tmp/NAME, whatever TMPDIR says: two programs can only meet at a place that both know. `name` is one component of a
// path, so that nobody is sent out of /tmp. Throws ipc::UsageError.
inline std::string fifo_path(const std::string& name) {
  const auto refuse = [](const std::string& why) { throw ipc::UsageError("NAME " + why); };
  if (name.empty()) refuse("is empty");
  if (name.size() > NAME_MAX) {
    refuse("has " + std::to_string(name.size()) + " bytes, at most " + std::to_string(NAME_MAX) + " are possible");
  }
  if (name == "." || name == "..") refuse(name + ": is a folder");
  if (name.find('/') != std::string::npos) refuse(ipc::printable(name) + ": a name in /tmp has no '/'");
  for (const char c : name) {
    if (std::iscntrl(static_cast<unsigned char>(c)) != 0) refuse(ipc::printable(name) + ": has a control character");
  }
  return "/tmp/" + name;
}
