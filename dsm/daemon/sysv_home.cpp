#include "dsm/daemon/sysv_home.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>

#include "dsm/dshm_agent/local.hpp"

namespace dsm::daemon {
namespace {

using sysv::Answer;
using sysv::Call;
using sysv::Question;

constexpr std::chrono::nanoseconds silence{dshm_agent::silence_ns};
constexpr sysv::HostNumber hosts_max = 511;  // sysv::shown_to has room for so many
constexpr std::size_t name_max = 255;
constexpr std::size_t losses_shown = 64;

bool is_name(const std::string& text) {
  return !text.empty() && text.size() <= name_max && std::all_of(text.begin(), text.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return byte >= 0x20 && byte != 0x7f;
  });
}

std::string counted(std::uint64_t count, const char* one, const char* many) {
  return fmt::format("{} {}", count, count == 1 ? one : many);
}

}  // namespace

SysvHome::SysvHome(Config config)
    : config_(std::move(config)),
      segments_(config_.limits.segments, config_.seconds, [this](std::int32_t id) { destroyed_.push_back(id); }),
      sets_(config_.limits.sets, config_.seconds) {}

SysvHome::~SysvHome() = default;

// To people the last word of its name is name enough: what is before it makes it unique.
std::string SysvHome::short_name(const Agent& agent) { return agent.name.substr(agent.name.rfind(' ') + 1); }

std::string SysvHome::title(const Agent& agent) {
  return fmt::format("host {} ({})", short_name(agent), agent.address);
}

const SysvPages* SysvHome::pages(std::int32_t id) const {
  const auto found = stores_.find(id);
  return found == stores_.end() ? nullptr : found->second.pages.get();
}

void SysvHome::heard(GuestId guest, const std::string& address, std::span<const std::uint8_t> bytes, Time now) {
  std::string why;
  const std::optional<sysv::Frame> frame = sysv::decode(bytes, why);
  const auto* const question = frame ? std::get_if<Question>(&*frame) : nullptr;
  const auto found = agents_.find(guest);
  if (found == agents_.end()) {
    if (question != nullptr && question->call == Call::hello) return hello(guest, address, *question, now);
    config_.log(address + ": said no hello for System V IPC" + (why.empty() ? "" : ": " + why));
    commands_.push_back({.to = guest, .frame = {}, .end = true});
    return;
  }
  Agent& agent = found->second;
  agent.heard = now;
  if (question != nullptr) {
    ask(agent, *question, now);
  } else if (const auto* page = frame ? std::get_if<sysv::PageFrame>(&*frame) : nullptr) {
    hear_page(agent, *page, now);
  } else {
    misbehaved(agent, "it sent what no agent sends" + (why.empty() ? "" : ": " + why), now);
  }
  settle();
}

// ---- coming -----------------------------------------------------------------------------------------------------------

void SysvHome::refuse(GuestId guest, const Question& hello, int error, const std::string& why) {
  config_.log("System V IPC: refused: " + why);
  tell(guest, Answer{.request = hello.request, .error = error, .text = why});
  commands_.back().end = true;
}

void SysvHome::hello(GuestId guest, const std::string& address, const Question& question, Time now) {
  if (question.size != sysv::wire_version) {
    return refuse(guest, question, EPROTONOSUPPORT,
                  fmt::format("the agent speaks version {} of the protocol, and this dsmd {}; build both from the same "
                              "sources",
                              question.size, sysv::wire_version));
  }
  if (!is_name(question.text)) {
    return refuse(guest, question, EINVAL,
                  fmt::format("a host's name has 1 to {} characters, all of which can be printed", name_max));
  }
  const sysv::HostNumber host = agents_.size() < config_.limits.agents ? number_for(question.text) : 0;
  if (host == 0) {
    return refuse(guest, question, EUSERS,
                  fmt::format("this dsmd serves {} hosts and {} agents at most, and has them already", hosts_max,
                              config_.limits.agents));
  }
  const auto used = [&](const auto& each) { return each.second.number == next_agent_; };
  while (next_agent_ == 0 || std::any_of(agents_.begin(), agents_.end(), used)) ++next_agent_;
  Agent& agent = agents_[guest];
  agent.guest = guest;
  agent.host = host;
  agent.number = next_agent_++;
  agent.name = question.text;
  agent.address = address;
  agent.heard = now;
  ++hosts_[question.text].agents;
  config_.log(title(agent) + " has come");
  answer(guest, host, {.request = question.request, .value = host});
}

// A host that comes again has its number again, unless all numbers have been needed meanwhile.
sysv::HostNumber SysvHome::number_for(const std::string& name) {
  if (const auto found = hosts_.find(name); found != hosts_.end()) return found->second.number;
  if (hosts_.size() < hosts_max) {
    const auto number = static_cast<sysv::HostNumber>(hosts_.size() + 1);
    hosts_[name].number = number;
    return number;
  }
  auto oldest = hosts_.end();
  for (auto at = hosts_.begin(); at != hosts_.end(); ++at) {
    if (at->second.agents == 0 && (oldest == hosts_.end() || at->second.left < oldest->second.left)) oldest = at;
  }
  if (oldest == hosts_.end()) return 0;
  const sysv::HostNumber number = oldest->second.number;
  hosts_.erase(oldest);
  hosts_[name].number = number;
  return number;
}

// ---- pages ------------------------------------------------------------------------------------------------------------

void SysvHome::hear_page(Agent& agent, const sysv::PageFrame& frame, Time now) {
  const auto tenure = agent.tenures.find(frame.tenure);
  if (tenure == agent.tenures.end()) return;  // an older one, or its segment is gone
  const auto [segment, slot] = tenure->second;
  if (stores_.at(segment).pages->hear(slot, frame)) return;
  misbehaved(agent, fmt::format("it said of page {} of segment {} what no agent may say", frame.message.page, segment),
             now);
}

void SysvHome::deliver(std::int32_t segment, core::Node to, const core::Message& message, const std::uint8_t* page) {
  const Holder holder = stores_.at(segment).holders[to];
  if (holder.guest == 0) return;  // lost, and its lease has not ended
  sysv::PageFrame frame{.tenure = holder.tenure, .message = message};
  if (page != nullptr) frame.bytes.assign(page, page + sysv::page_bytes);
  tell(holder.guest, frame);
}

// ---- going ------------------------------------------------------------------------------------------------------------

void SysvHome::gone(GuestId guest, const std::string& how, Time now) {
  const auto found = agents_.find(guest);
  if (found == agents_.end()) return;
  lose(found->second, how, now);
  settle();
}

void SysvHome::misbehaved(Agent& agent, const std::string& how, Time now) {
  commands_.push_back({.to = agent.guest, .frame = {}, .end = true});
  lose(agent, how, now);
}

void SysvHome::lose(Agent& agent, const std::string& how, Time now) {
  const std::string who = title(agent);
  std::string line = who + " has gone";
  const bool orderly = agent.attaches == 0 && agent.tenures.empty() && agent.waiting.empty();
  if (!orderly) {
    line += fmt::format(": {}; that ends {} of {}", how, counted(agent.attaches, "attach", "attaches"),
                        counted(agent.processes.size(), "process", "processes"));
  }
  const Time until = agent.heard + silence;
  if (!agent.tenures.empty() && now < until) {
    line += fmt::format("; its pages wait {:.1f} s for its lease to end",
                        std::chrono::duration<double>(until - now).count());
  }
  (orderly ? config_.log : config_.say)(line);
  for (auto& [number, process] : agent.processes) process.waiting.clear();
  for (const auto& [request, ticket] : std::exchange(agent.waiting, {})) {  // nobody waits for these answers
    sets_.cancel(ticket);
    timeouts_.erase({waiting_.at(ticket).until, ticket});
    waiting_.erase(ticket);
  }
  while (!agent.processes.empty()) {
    const auto first = agent.processes.begin();
    end_process(agent, first->first, first->second);
  }
  for (const auto& [number, tenure] : agent.tenures) {
    Segment& store = stores_.at(tenure.segment);
    store.pages->lose(tenure.slot);
    store.holders[tenure.slot] = {.lease = leases_.insert({until, {tenure.segment, tenure.slot, who}})};
  }
  Host& host = hosts_.at(agent.name);
  --host.agents;
  host.left = ++departures_;
  agents_.erase(agent.guest);
  end_leases(now);
}

void SysvHome::end_leases(Time now) {
  while (!leases_.empty() && leases_.begin()->first <= now) end_lease(leases_.extract(leases_.begin()).mapped());
}

void SysvHome::end_lease(const Lease& lease) {
  Segment& store = stores_.at(lease.segment);
  store.holders[lease.slot] = {};
  const std::uint64_t lost = store.pages->close(lease.slot);
  if (lost == 0) return;
  pages_lost_ += lost;
  losses_.push_back({config_.seconds(), lease.segment, lost, lease.who});
  if (losses_.size() > losses_shown) losses_.erase(losses_.begin());
  config_.say(fmt::format("segment {}: what {} had written to {} is lost; others read what was there before",
                          lease.segment, lease.who, counted(lost, "page", "pages")));
}

// A segment that was destroyed has no attaches; what agents still have of its pages is worth nothing.
void SysvHome::forget(std::int32_t segment) {
  const auto store = stores_.find(segment);
  if (store == stores_.end()) return;
  for (core::Node slot = 0; slot < core::max_ranks; ++slot) {
    const Holder& holder = store->second.holders[slot];
    if (holder.lease) leases_.erase(*holder.lease);
    if (holder.guest == 0) continue;
    store->second.pages->lose(slot);
    Agent& agent = agents_.at(holder.guest);
    agent.tenures.erase(holder.tenure);
    agent.tenure_of.erase(segment);
  }
  stores_.erase(store);
}

void SysvHome::settle() {
  for (const std::int32_t id : std::exchange(destroyed_, {})) forget(id);
  for (const sysv::SemaphoreSets::Answer& over : sets_.take_answers()) answer_waiting(over.ticket, over.error);
}

void SysvHome::tick(Time now) {
  std::vector<GuestId> silent;
  for (const auto& [guest, agent] : agents_) {
    if (agent.heard + silence <= now) silent.push_back(guest);
  }
  for (const GuestId guest : silent) {
    misbehaved(agents_.at(guest),
               fmt::format("it has said nothing for {} s", std::chrono::floor<std::chrono::seconds>(silence).count()),
               now);
  }
  end_leases(now);
  settle();  // what could go on by that has: it is not too late for it
  while (!timeouts_.empty() && timeouts_.begin()->first <= now) {
    const sysv::Ticket ticket = timeouts_.begin()->second;
    sets_.cancel(ticket);
    answer_waiting(ticket, EAGAIN);
  }
  settle();
}

Time SysvHome::next_deadline() const {
  Time next = timeouts_.empty() ? Time::max() : timeouts_.begin()->first;
  for (const auto& [guest, agent] : agents_) next = std::min(next, agent.heard + silence);
  if (!leases_.empty()) next = std::min(next, leases_.begin()->first);
  return next;
}

void SysvHome::tell(GuestId to, const sysv::Frame& frame) {
  commands_.push_back({.to = to, .frame = sysv::encode(frame)});
}

}  // namespace dsm::daemon
