// dsm/launch/debugger.hpp - programs that a rank may run under (--debug): which there are, and how each is called.
//
// Pure values. Not async-signal-safe.
#pragma once
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace dsm::launch {

enum class Debugger : std::uint8_t { none, gdb, valgrind, strace };

// "gdb", "valgrind" or "strace". False for anything else.
[[nodiscard]] bool parse(std::string_view text, Debugger& out);
[[nodiscard]] std::string_view name(Debugger debugger);

// The words that stand before the program and its arguments. Under each of them a program's page faults reach its own
// handler, as they must. For `none`: no words.
[[nodiscard]] std::vector<std::string> command_of(Debugger debugger);

// How long each phase of a job may take in which somebody holds a rank: nobody is waited for longer.
inline constexpr std::chrono::seconds debug_patience = std::chrono::hours(24 * 7);

}  // namespace dsm::launch
