#include "dsm/daemon/sysv_home_testing.hpp"

#include <algorithm>

namespace dsm::daemon::testing {

using core::Message;
using core::Page;
using sysv::page_bytes;

Scene::Agent& Scene::come(const std::string& name, const std::string& address) {
  const GuestId guest = next_guest++;
  Agent& agent = *agents.emplace(guest, std::make_unique<Agent>(*this, guest)).first->second;
  Question hello = Agent::question(Call::hello);
  hello.text = name;
  hello.size = sysv::wire_version;
  hello.request = ++agent.request_;
  home.heard(guest, address, sysv::encode(hello), now);
  pump();
  agent.host = static_cast<sysv::HostNumber>(agent.answers.at(hello.request).value);
  return agent;
}

void Scene::after_with_beats(std::chrono::nanoseconds time) {
  for (const auto end = now + time; now < end;) {
    const auto step = std::min<std::chrono::nanoseconds>(end - now, 500ms);
    now += step;
    for (auto& [guest, agent] : agents) {
      if (!agent->gone && !agent->ended) agent->beat();
    }
    home.tick(now);
    pump();
  }
}

void Scene::pump() {
  for (;;) {
    const std::vector<SysvHome::Command> commands = home.take_commands();
    if (commands.empty()) return;
    for (const SysvHome::Command& command : commands) {
      const auto found = agents.find(command.to);
      if (found == agents.end()) continue;
      Agent& agent = *found->second;
      // It may be ended twice: it went on to talk before it heard of its end.
      EXPECT_FALSE(agent.ended && !command.frame.empty()) << "an agent that was ended is told something";
      if (command.end) agent.ended = true;
      if (command.frame.empty() || agent.gone) continue;
      std::string why;
      const auto frame = sysv::decode(command.frame, why);
      if (frame) {
        agent.receive(*frame);
      } else {
        ADD_FAILURE() << "dsmd says what is no frame: " << why;
      }
    }
  }
}

void Scene::Agent::receive(const sysv::Frame& frame) {
  if (const auto* answer = std::get_if<Answer>(&frame)) {
    EXPECT_FALSE(answers.contains(answer->request)) << "answered twice";
    answers.emplace(answer->request, *answer);
    return;
  }
  const auto& page = std::get<sysv::PageFrame>(frame);
  ++page_frames;
  if (deaf) return unheard.push_back(page);
  for (auto& [id, one] : open) {
    if (one.tenure != page.tenure) continue;
    return step(id, core::Received{.from = core::daemon_node, .lane = 0, .msg = page.message}, page.bytes);
  }
}

int Scene::Agent::attach(sysv::ProcessNumber process, std::int32_t id, std::int32_t pid) {
  Question q = question(Call::attach, 0, pid);
  q.process = process, q.id = id;
  const Answer answer = call(q);
  if (answer.error != 0) return answer.error;
  Open& one = open[id];
  if (one.tenure == answer.tenure) return 0;
  const auto pages = static_cast<Page>((static_cast<std::size_t>(answer.value) + page_bytes - 1) / page_bytes);
  one = {.tenure = answer.tenure,
         .slot = answer.slot,
         .core = std::make_unique<core::Coherence>(core::Config{.self = answer.slot,
                                                                .nodes = core::max_ranks,
                                                                .pages = pages,
                                                                .placement = core::Placement::daemon,
                                                                .waiters = waiters,
                                                                .requests = 1,
                                                                .hold = 0}),
         .memory = std::vector<std::uint8_t>(std::size_t{pages} * page_bytes),
         .access = std::vector<Access>(pages)};
  return 0;
}

bool Scene::Agent::touch(std::int32_t id, Page page, Access want) {
  Open& one = open.at(id);
  if (one.access.at(page) >= want) return true;
  if (one.core->view(page).waiting == 0) {
    step(id, core::Fault{.page = page, .want = want, .waiter = static_cast<core::Waiter>(waiter_++ % waiters)}, {});
  }
  scene_.pump();
  return open.at(id).access.at(page) >= want;
}

void Scene::Agent::step(std::int32_t id, const core::Event& event, const std::vector<std::uint8_t>& bytes) {
  Open& one = open.at(id);
  const auto actions = std::make_unique<core::Actions>();
  one.core->step(event, *actions);
  for (const core::Action& action : *actions) {
    EXPECT_FALSE(std::holds_alternative<core::Abort>(action)) << "dsmd says what no home says";
    if (const auto* install = std::get_if<core::Install>(&action)) {
      std::copy(bytes.begin(), bytes.end(),
                one.memory.begin() + static_cast<std::ptrdiff_t>(install->page * page_bytes));
    } else if (const auto* protect = std::get_if<core::Protect>(&action)) {
      one.access.at(protect->page) = protect->allow;
    } else if (const auto* send = std::get_if<core::Send>(&action)) {
      EXPECT_EQ(send->to, core::daemon_node);
      say(id, send->msg);
    }
  }
}

void Scene::Agent::say(std::int32_t id, const Message& message) {
  const Open& one = open.at(id);
  sysv::PageFrame frame{.tenure = one.tenure, .message = message};
  if (message.carries_page) {
    const auto from = one.memory.begin() + static_cast<std::ptrdiff_t>(message.page * page_bytes);
    frame.bytes.assign(from, from + page_bytes);
  }
  scene_.home.heard(guest, "10.0.0.1", sysv::encode(frame), scene_.now);
}

int Scene::Agent::leave(std::int32_t id, bool send_pages) {
  const Open& one = open.at(id);
  for (Page page = 0; send_pages && page < one.access.size(); ++page) {
    if (one.access[page] != Access::write) continue;
    sysv::PageFrame frame{.tenure = one.tenure, .last = true, .message = {.page = page}};
    const auto from = one.memory.begin() + static_cast<std::ptrdiff_t>(page * page_bytes);
    frame.bytes.assign(from, from + page_bytes);
    scene_.hear(guest, frame);
  }
  Question q = question(Call::leave);
  q.tenure = one.tenure;
  open.erase(id);
  const Answer* const answer = answer_to(ask(q));
  return answer == nullptr ? -1 : answer->error;
}

}  // namespace dsm::daemon::testing
