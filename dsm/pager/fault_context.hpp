// dsm/pager/fault_context.hpp - what the processor knows about a page fault: where, and by what kind of access.
//
// Read from the context that the kernel hands to a SIGSEGV handler; the only code of the pager that differs from one
// architecture to the next. Used by sigsegv.cpp. async-signal-safe: yes.
#pragma once
#include <signal.h>
#include <ucontext.h>

#include <cstddef>
#include <cstdint>

#if defined(__aarch64__)
#include <asm/sigcontext.h>
#endif

namespace dsm::pager {

struct FaultContext {
  enum class By : std::uint8_t { reading, writing, executing, unknown };
  By by = By::unknown;
  std::uintptr_t pc = 0;  // address of the instruction; 0 where this architecture is not known
};

#if defined(__x86_64__)

// Page-fault error code: Intel SDM volume 3, "Interrupt 14"; the kernel stores it in the context's REG_ERR.
inline FaultContext read_context(const void* context) noexcept {
  constexpr greg_t write_bit = 1 << 1;
  constexpr greg_t fetch_bit = 1 << 4;
  const greg_t* registers = static_cast<const ucontext_t*>(context)->uc_mcontext.gregs;
  const greg_t code = registers[REG_ERR];
  const auto by = (code & fetch_bit) != 0   ? FaultContext::By::executing
                  : (code & write_bit) != 0 ? FaultContext::By::writing
                                            : FaultContext::By::reading;
  return {by, static_cast<std::uintptr_t>(registers[REG_RIP])};
}

#elif defined(__aarch64__)

// Exception syndrome: Arm ARM, ESR_ELx. The kernel appends it as one of the tagged records behind the registers.
inline FaultContext read_context(const void* context) noexcept {
  const mcontext_t& machine = static_cast<const ucontext_t*>(context)->uc_mcontext;
  FaultContext fault{FaultContext::By::unknown, static_cast<std::uintptr_t>(machine.pc)};
  const auto* record = reinterpret_cast<const unsigned char*>(&machine.__reserved);
  const auto* end = record + sizeof machine.__reserved;
  while (record + sizeof(esr_context) <= end) {
    const auto* head = reinterpret_cast<const _aarch64_ctx*>(record);
    if (head->magic == 0 || head->size < sizeof *head) break;
    if (head->magic == ESR_MAGIC) {
      constexpr std::uint64_t instruction_abort = 0x20;
      constexpr std::uint64_t write_bit = 1 << 6;
      const std::uint64_t esr = reinterpret_cast<const esr_context*>(record)->esr;
      fault.by = ((esr >> 26) & 0x3f) == instruction_abort ? FaultContext::By::executing
                 : (esr & write_bit) != 0                  ? FaultContext::By::writing
                                                           : FaultContext::By::reading;
      break;
    }
    record += head->size;
  }
  return fault;
}

#else

inline FaultContext read_context(const void*) noexcept { return {}; }

#endif

}  // namespace dsm::pager
