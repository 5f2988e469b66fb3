#include "dsm/core/explorer_ladder.hpp"

#include <algorithm>

#include "dsm/core/explorer_text.hpp"

namespace dsm::core::explorer {

namespace {

constexpr std::size_t width = 34;  // of a column
constexpr std::size_t stem = 3;    // where in its column a node's line stands

std::size_t stem_of(unsigned node) { return node * width + stem; }

std::string stems(unsigned nodes) {
  std::string line(nodes * width, ' ');
  for (unsigned n = 0; n < nodes; ++n) line[stem_of(n)] = '|';
  return line;
}

std::string finish(std::string line) {
  line.erase(line.find_last_not_of(' ') + 1);
  return line + "\n";
}

std::string note(unsigned nodes, unsigned node, const std::string& words) {
  std::string line = stems(nodes);
  const std::size_t at = stem_of(node) + 2;
  if (line.size() < at + words.size()) line.resize(at + words.size(), ' ');
  return finish(line.replace(at, words.size(), words));
}

std::string arrow(unsigned nodes, unsigned from, unsigned to, const std::string& words) {
  std::string line = stems(nodes);
  const std::size_t left = stem_of(std::min(from, to)) + 1, right = stem_of(std::max(from, to));
  std::fill(line.begin() + static_cast<std::ptrdiff_t>(left), line.begin() + static_cast<std::ptrdiff_t>(right), '-');
  line[from < to ? right - 1 : left] = from < to ? '>' : '<';
  const std::string label = " " + words + " ";
  const std::size_t at = left + 1 + (right - left - 1 - std::min(right - left - 2, label.size())) / 2;
  return finish(line.replace(at, label.size(), label));
}

std::string event_line(const Setup& setup, const Rules& rules, const Choice& choice) {
  using Kind = Stimulus::Kind;
  const Stimulus& s = choice.what;
  const std::string page = "p" + std::to_string(s.page);
  const std::string later = s.late != 0 ? "(later) " : "";
  const auto say = [&](const std::string& words) { return note(setup.nodes, choice.node, later + words); };
  switch (s.kind) {
    case Kind::received: {
      const std::string lane = s.lane == 0 ? "" : " (" + std::to_string(s.lane) + ")";
      return arrow(setup.nodes, s.from, choice.node, later + text(rules.message(choice)) + lane);
    }
    case Kind::fault:
      return say((setup.threads == 1 ? "" : "thread " + std::to_string(s.thread) + ": ") + "fault " + text(s.want) +
                 " " + page + (s.lane == 0 ? " on 0" : ""));
    case Kind::prefetch:
      return say("prefetch " + page);
    case Kind::drop:
      return say("drop " + page);
    case Kind::write_back:
      return say("write back " + page);
    case Kind::tick:
      return say("tick");
    case Kind::left:
      return say("node " + std::to_string(s.from) + (choice.thread == 0 ? " has left" : " is lost"));
    case Kind::resumed:
      return say("runs on, to " + page);
    case Kind::perform:
      return say((setup.threads == 1 ? "" : "thread " + std::to_string(s.thread) + ": ") + "atomic on " + page +
                 (s.lane == 0 ? " on 0" : ""));
  }
  return {};
}

std::string thread_line(const Setup& setup, const Rules& rules, const World& before, const Choice& choice) {
  const bool again = choice.kind == Choice::Kind::retry;
  const Thread& thread = before.thread[choice.thread];
  const Access want = again ? thread.want : choice.what.want;
  const unsigned page = again ? thread.page : choice.what.page;
  const bool caught = before.allow[choice.node][page] < want;
  const std::string who = setup.threads == 1 ? "" : "thread " + std::to_string(choice.thread % setup.threads) + ": ";
  const std::string what = text(want) + (caught ? " p" : "s p") + std::to_string(page);
  const std::string line =
      note(setup.nodes, choice.node, who + (caught ? "SIGSEGV " : "") + what + (caught && again ? " again" : ""));
  return choice.what.kind == Stimulus::Kind::fault && caught && rules.traps_at_once()
             ? line + event_line(setup, rules, choice)
             : line;
}

std::string step(const Setup& setup, Rules& rules, World& world, const Choice& choice) {
  const World before = world;
  const std::string wrong = rules.apply(world, choice);
  std::string out;
  switch (choice.kind) {
    case Choice::Kind::act:
      out = note(setup.nodes, choice.node, text(rules.nodes().head(before.todo[choice.node])));
      break;
    case Choice::Kind::event:
      out = event_line(setup, rules, choice);
      break;
    case Choice::Kind::operation:
    case Choice::Kind::retry:
      out = thread_line(setup, rules, before, choice);
      break;
  }
  return wrong.empty() ? out : out + note(setup.nodes, choice.node, "^ " + wrong);
}

}  // namespace

std::string ladder(const Setup& setup, Rules& rules, const std::vector<Choice>& way) {
  std::string head(setup.nodes * width, ' ');
  for (unsigned n = 0; n < setup.nodes; ++n) {
    std::string title = "node " + std::to_string(n);
    if (is_daemon(setup, n)) title += ", the daemon";
    for (Page page = 0; page < setup.pages; ++page) {
      if (setup.placement == Placement::daemon) continue;  // all live there
      if (page % setup.nodes == n) title += (setup.placement == Placement::cyclic ? " (home of p" : " (manager of p") + std::to_string(page) + ")";
    }
    head.replace(n * width, title.size(), title);
  }
  std::string out = finish(head);
  World world = rules.initial();
  for (const Choice& choice : way) {
    out += step(setup, rules, world, choice);
    for (Choice next; rules.forced(world, next);) out += step(setup, rules, world, next);
  }
  return out;
}

}  // namespace dsm::core::explorer
