#include "dsm/dshm_agent/hosted.hpp"

#include <algorithm>
#include <utility>

namespace dsm::dshm_agent {
namespace {

core::Config config_of(const Hosted::Setup& setup) {
  core::Config config;
  config.self = setup.slot;
  config.nodes = core::max_ranks;
  config.pages = setup.pages;
  config.protocol = core::Protocol::msi;
  config.placement = core::Placement::daemon;
  config.requests = 0;  // nobody asks us
  config.hold = setup.hold;
  return config;
}

}  // namespace

Hosted::Hosted(const Setup& setup, Hands& hands)
    : hands_(hands), core_(config_of(setup)), allowed_(setup.pages), seats_(core_.config().waiters) {
  for (std::size_t i = seats_.size(); i > 0; --i) free_.push_back(static_cast<core::Waiter>(i - 1));
}

Access Hosted::allowed(ProcessNumber process, Page page) const {
  const auto guest = guests_.find(process);
  return guest == guests_.end() ? Access::none : guest->second.may[page];
}

std::vector<Page> Hosted::written() const {
  std::vector<Page> out;
  for (Page page = 0; page < pages(); ++page) {
    if (allowed_[page] == Access::write) out.push_back(page);
  }
  return out;
}

std::vector<Toucher> Hosted::touchers() const {
  std::vector<Toucher> out;
  for (const auto& seat : seats_) {
    if (seat) out.push_back(seat->toucher);
  }
  for (const Waiting& waiting : queue_) out.push_back(waiting.toucher);
  return out;
}

// ---- processes ------------------------------------------------------------------------------------------------------

void Hosted::join(ProcessNumber process, bool has_uffd) {
  guests_.try_emplace(process, Guest{has_uffd, core::Zeros<Access>(pages())});
}

void Hosted::leave(ProcessNumber process, Micros now) {
  if (guests_.erase(process) == 0) return;
  std::erase_if(queue_, [process](const Waiting& one) { return one.toucher.process == process; });
  std::vector<Page> complete;
  for (auto& [page, parked] : parked_) {
    if (parked.owing.erase(process) != 0 && parked.owing.empty()) complete.push_back(page);
  }
  for (const Page page : complete) go_on(page);
  admit(now);
}

bool Hosted::fault(const Toucher& toucher, Page page, Access want, core::Site site, Micros now) {
  // The host has it already. (Not while it is being lowered: then the core has given it up, and shall ask for it anew.)
  if (allowed_[page] >= want && !parked_.contains(page)) {
    give(toucher, page);
    return true;
  }
  if (const auto guest = guests_.find(toucher.process); guest != guests_.end()) {
    if (guest->second.waiting == waits_max) return false;
    ++guest->second.waiting;
  }
  queue_.push_back({toucher, page, want, site});
  admit(now);
  return true;
}

// The core knows so many who wait, and no more.
void Hosted::admit(Micros now) {
  while (!queue_.empty() && !free_.empty()) {
    const core::Waiter waiter = free_.back();
    free_.pop_back();
    const Waiting next = queue_.front();
    queue_.pop_front();
    seats_[waiter] = next;
    step(core::Fault{.page = next.page, .want = next.want, .waiter = waiter, .site = next.site, .now = now}, {});
  }
}

// ---- the core -------------------------------------------------------------------------------------------------------

bool Hosted::received(const core::Message& message, std::span<const std::uint8_t> bytes, Micros now) {
  step(core::Received{core::daemon_node, 0, message, now}, bytes);
  admit(now);
  return !failed_;
}

void Hosted::tick(Micros now) {
  if (!deadline_ || now < *deadline_) return;
  deadline_.reset();
  step(core::Tick{now}, {});
  admit(now);
}

void Hosted::step(const core::Event& event, std::span<const std::uint8_t> bytes) {
  actions_.clear();
  core_.step(event, actions_);
  for (const core::Action& action : actions_) {
    if (const auto* timer = std::get_if<core::Timer>(&action)) {
      deadline_ = timer->at;
      continue;
    }
    if (std::holds_alternative<core::Abort>(action)) {
      failed_ = true;
      continue;
    }
    Step next{action, {}};
    if (std::holds_alternative<core::Install>(action)) next.bytes.assign(bytes.begin(), bytes.end());
    const auto parked = parked_.find(page_of(action));
    if (parked == parked_.end()) {
      perform(next);
    } else {
      parked->second.rest.push_back(std::move(next));
    }
  }
}

Page Hosted::page_of(const core::Action& action) const {
  if (const auto* send = std::get_if<core::Send>(&action)) return send->msg.page;
  if (const auto* install = std::get_if<core::Install>(&action)) return install->page;
  if (const auto* change = std::get_if<core::Protect>(&action)) return change->page;
  if (const auto* woken = std::get_if<core::Wake>(&action)) return seats_[woken->who]->page;
  return 0;  // Performed: nobody here asks for an operation
}

void Hosted::perform(const Step& step) {
  if (const auto* send_action = std::get_if<core::Send>(&step.action)) {
    send(send_action->msg);
  } else if (const auto* install = std::get_if<core::Install>(&step.action)) {
    hands_.write(install->page, step.bytes);
  } else if (const auto* change = std::get_if<core::Protect>(&step.action)) {
    protect(change->page, change->allow);
  } else if (const auto* woken = std::get_if<core::Wake>(&step.action)) {
    let_go(woken->who);
  }
}

void Hosted::send(const core::Message& message) {
  PageBytes bytes;
  if (message.carries_page) {
    const auto taken = taken_.find(message.page);
    if (taken == taken_.end()) {
      bytes = hands_.read(message.page);
    } else {
      bytes = std::move(taken->second);
      taken_.erase(taken);
    }
  }
  hands_.send(message, std::move(bytes));
}

void Hosted::let_go(core::Waiter waiter) {
  const Waiting waiting = *std::exchange(seats_[waiter], std::nullopt);
  free_.push_back(waiter);
  const auto guest = guests_.find(waiting.toucher.process);
  if (guest != guests_.end() && guest->second.waiting > 0) --guest->second.waiting;  // 0: it has left, and come again
  give(waiting.toucher, waiting.page);
}

// What the host may do, not only what was asked for: others of the process will not have to ask then.
void Hosted::give(const Toucher& toucher, Page page) {
  const auto at = guests_.find(toucher.process);
  if (at == guests_.end()) return;  // it has ended meanwhile
  Guest& guest = at->second;
  if (allowed_[page] != Access::none) guest.may[page] = allowed_[page];
  if (!guest.has_uffd) return hands_.order(toucher.process, page, allowed_[page], false);
  if (allowed_[page] != Access::none) hands_.map(toucher, page, allowed_[page]);
  hands_.wake(toucher);
}

// ---- lowering -------------------------------------------------------------------------------------------------------

void Hosted::protect(Page page, Access allow) {
  if (allow >= allowed_[page]) {
    allowed_[page] = allow;
  } else {
    lower(page, allow);
  }
}

void Hosted::lower(Page page, Access allow) {
  Parked parked;
  parked.target = allow;
  for (auto& [process, guest] : guests_) {
    if (guest.may[page] <= allow) continue;
    if (!guest.has_uffd) {
      parked.owing.insert(process);
      hands_.order(process, page, allow, true);
    } else if (guest.may[page] == Access::write) {
      hands_.write_protect(process, page);
    }
  }
  if (parked.owing.empty()) return finish(page, allow);
  parked_.emplace(page, std::move(parked));
}

// Nobody writes any more: now the frame is read, and only then punched out, which takes it from everybody.
void Hosted::finish(Page page, Access allow) {
  if (allow == Access::none) {
    if (allowed_[page] == Access::write) taken_[page] = hands_.read(page);
    hands_.punch(page);
  }
  allowed_[page] = allow;
  for (auto& [process, guest] : guests_) guest.may[page] = std::min(guest.may[page], allow);
}

void Hosted::lowered(ProcessNumber process, Page page, Micros now) {
  const auto parked = parked_.find(page);
  if (parked == parked_.end() || parked->second.owing.erase(process) == 0) return;
  if (parked->second.owing.empty()) go_on(page);
  admit(now);
}

void Hosted::go_on(Page page) {
  const auto at = parked_.find(page);
  const Access target = at->second.target;
  std::deque<Step> rest = std::move(at->second.rest);
  parked_.erase(at);
  finish(page, target);
  while (!rest.empty()) {
    const Step next = std::move(rest.front());
    rest.pop_front();
    perform(next);
    if (const auto again = parked_.find(page); again != parked_.end()) {
      again->second.rest = std::move(rest);
      return;
    }
  }
}

}  // namespace dsm::dshm_agent
