// dsm/dshm/keys.hpp - which keys are dsmd's, and which the kernel's: the environment's DSHM_KEYS.
//
//   all, none, or ranges with commas between them: 1-999,0x4000,70000-80000 (both ends belong to a range)
//
// IPC_PRIVATE (0) is dsmd's, unless it is `none`. Without DSHM_KEYS: all but 114, under which OpenSSL's libcrypto
// keeps a mark of its own. Thread-safety: a plain value. Not async-signal-safe.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace dsm::dshm {

class KeyFilter {
 public:
  KeyFilter();  // as without DSHM_KEYS
  // Nothing if it is no such text; `why` is then one clause.
  [[nodiscard]] static std::optional<KeyFilter> parse(std::string_view text, std::string& why);

  [[nodiscard]] bool ours(std::int32_t key) const;
  [[nodiscard]] bool none() const { return none_; }

 private:
  struct Range {
    std::uint32_t low, high;
  };
  [[nodiscard]] static std::optional<Range> parse_range(std::string_view text, std::string& why);

  std::vector<Range> ranges_;
  bool none_ = false;
};

}  // namespace dsm::dshm
