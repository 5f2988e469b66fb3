#include "dsm/launch/debugger.hpp"

namespace dsm::launch {

bool parse(std::string_view text, Debugger& out) {
  for (const Debugger each : {Debugger::gdb, Debugger::valgrind, Debugger::strace}) {
    if (text != name(each)) continue;
    out = each;
    return true;
  }
  return false;
}

std::string_view name(Debugger debugger) {
  switch (debugger) {
    case Debugger::gdb:
      return "gdb";
    case Debugger::valgrind:
      return "valgrind";
    case Debugger::strace:
      return "strace";
    case Debugger::none:
      break;
  }
  return "";
}

std::vector<std::string> command_of(Debugger debugger) {
  switch (debugger) {
    case Debugger::gdb:
      // A page fault is no error here; let_die (pager/disposition.hpp) is where one ends that is.
      return {"gdb",   "-q",
              "-ex",   "handle SIGSEGV nostop noprint pass",
              "-ex",   "set breakpoint pending on",
              "-ex",   "break dsm::pager::let_die",
              "--args"};
    case Debugger::valgrind:
      // Registers must be right at every access, not only at the borders of its blocks: the faulting instruction is
      // started again after the handler. valgrind(1), --vex-iropt-register-updates.
      return {"valgrind", "-q", "--vex-iropt-register-updates=allregs-at-mem-access"};
    case Debugger::strace:
      return {"strace", "-f", "-q"};
    case Debugger::none:
      break;
  }
  return {};
}

}  // namespace dsm::launch
