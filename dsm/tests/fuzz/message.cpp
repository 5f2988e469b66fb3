#include <bit>

#include "dsm/launch/control.hpp"
#include "dsm/net/rendezvous.hpp"
#include "dsm/tests/fuzz/harness.hpp"
#include "dsm/tests/fuzz/stream.hpp"

namespace dsm::fuzz {
namespace {

using launch::AgentMessage;

void check_ranges(const AgentMessage& message) {
  const auto* const start = std::get_if<launch::Start>(&message);
  if (start == nullptr) return;
  check(!start->ranks.empty() && start->ranks.size() == start->hosts.size() && !start->arguments.empty(),
        "there is nothing to start, or not a host for each rank");
}

}  // namespace

void check_agent_message(std::string_view json) {
  std::string why;
  const auto taken = launch::parse_message(json, why);
  if (!taken) return check_line(why, "the refusal of an agent's message is not one line");
  check_ranges(*taken);
  const std::string written = launch::to_json(*taken);
  const auto again = launch::parse_message(written, why);
  check(again.has_value(), "an agent's message cannot be read by who wrote it");
  check(again->index() == taken->index() && launch::to_json(*again) == written,
        "an agent's message does not come back as it was written");
}

void message(Input input) {
  const std::string_view text(reinterpret_cast<const char*>(input.data()), input.size());
  check_agent_message(text);
  std::string why;
  const auto taken = net::from_json(text, &why);
  if (!taken) return check_line(why, "the refusal of a control message is not one line");
  check(!net::from_json("x" + std::string(text)), "a control message may have something in front of it");
  check_control_message(*taken);
}

}  // namespace dsm::fuzz
