#include "dsm/dshm_agent/hosted_world.hpp"

#include <algorithm>
#include <cstring>

namespace dsm::dshm_agent::testing {
namespace {

std::uint64_t word(const PageBytes& bytes) {
  std::uint64_t out = 0;
  std::memcpy(&out, bytes.data(), sizeof out);
  return out;
}

core::Config home_config(Page pages) {
  core::Config config;
  config.self = core::daemon_node;
  config.nodes = core::max_ranks;
  config.pages = pages;
  config.placement = core::Placement::daemon;
  config.hold = 0;
  return config;
}

}  // namespace

// ---- a host ---------------------------------------------------------------------------------------------------------

Host::Host(World& world, core::Node slot, Page pages, Micros hold)
    : hosted({.slot = slot, .pages = pages, .hold = hold}, *this), world_(world) {}

void Host::start(ProcessNumber number, bool uffd, std::size_t threads, int instructions) {
  Process& process = processes[number];
  process.uffd = uffd;
  process.rights.resize(hosted.pages());
  for (std::size_t i = 0; i < threads; ++i) process.threads.push_back({.left = instructions});
  hosted.join(number, uffd);
}

void Host::kill(ProcessNumber number) {
  processes.erase(number);
  hosted.leave(number, world_.now);
}

bool Host::run(ProcessNumber number, std::size_t index) {
  Process& process = processes.at(number);
  Thread& thread = process.threads[index];
  if (process.rights[thread.page] >= (thread.writes ? Access::write : Access::read)) {
    PageBytes& frame = frames_[thread.page];
    world_.require(!frame.empty(), "a page may be touched, and has no frame");
    if (thread.writes && !frame.empty()) {
      const std::uint64_t next = word(frame) + 1;
      std::memcpy(frame.data(), &next, sizeof next);
    }
    --thread.left;
    const bool added = thread.writes;
    thread.page = static_cast<Page>(world_.random() % hosted.pages());
    thread.writes = world_.random() % 3 != 0;
    return added;
  }
  thread.waits = true;
  const Access want = thread.writes ? Access::write : Access::read;
  const std::uint64_t address = process.uffd ? (std::uint64_t{thread.page} + 1) * sysv::page_bytes : 0;
  hosted.fault({number, address}, thread.page, want, number * 100 + index, world_.now);
  return false;
}

void Host::obey(ProcessNumber number) {
  Process& process = processes.at(number);
  const Order order = process.orders.front();
  process.orders.pop_front();
  process.rights[order.page] = order.access;
  if (order.acknowledge) process.obeyed.push_back(order.page);
  let_go(process, order.page);
}

void Host::acknowledge(ProcessNumber number) {
  Process& process = processes.at(number);
  const Page page = process.obeyed.front();
  process.obeyed.pop_front();
  hosted.lowered(number, page, world_.now);
}

void Host::let_go(Process& process, Page page) {
  for (Thread& thread : process.threads) {
    if (thread.page == page) thread.waits = false;
  }
}

Access Host::most(Page page) const {
  Access most = Access::none;
  for (const auto& [number, process] : processes) most = std::max(most, process.rights[page]);
  return most;
}

bool Host::is_done() const {
  for (const auto& [number, process] : processes) {
    for (const Thread& thread : process.threads) {
      if (thread.left > 0) return false;
    }
  }
  return true;
}

void Host::send(const core::Message& message, PageBytes bytes) {
  world_.require(bytes.size() == (message.carries_page ? sysv::page_bytes : 0), "bytes do not fit the message");
  using Kind = core::Message::Kind;
  if (message.kind == Kind::recalled || message.kind == Kind::invalidated) {
    world_.require(most(message.page) <= message.access, "given up, and still in use");
  }
  to_home.push_back({message, std::move(bytes)});
}

PageBytes Host::read(Page page) {
  world_.require(frames_.contains(page), "a frame is read that is not there");
  world_.require(most(page) < Access::write, "a frame is read that may be written");
  return frames_.contains(page) ? frames_[page] : PageBytes(sysv::page_bytes);
}

void Host::write(Page page, std::span<const std::uint8_t> bytes) {
  world_.require(most(page) == Access::none, "a page is installed that may be touched");
  frames_[page].assign(bytes.begin(), bytes.end());
}

void Host::punch(Page page) {
  frames_.erase(page);
  for (auto& [number, process] : processes) {
    world_.require(process.uffd || process.rights[page] == Access::none,
                   "punched out under a process that was not told");
    world_.require(process.rights[page] < Access::write, "punched out, and not write-protected before");
    process.rights[page] = Access::none;
  }
}

void Host::write_protect(ProcessNumber number, Page page) {
  Process& process = processes.at(number);
  world_.require(process.uffd, "write-protected from outside without a userfaultfd");
  process.rights[page] = std::min(process.rights[page], Access::read);
}

void Host::map(const Toucher& toucher, Page page, Access access) {
  const auto process = processes.find(toucher.process);
  world_.require(toucher.address == (std::uint64_t{page} + 1) * sysv::page_bytes, "mapped elsewhere");
  if (process != processes.end()) process->second.rights[page] = access;
}

void Host::wake(const Toucher& toucher) {
  const auto process = processes.find(toucher.process);
  if (process != processes.end()) let_go(process->second, static_cast<Page>(toucher.address / sysv::page_bytes - 1));
}

void Host::order(ProcessNumber number, Page page, Access access, bool acknowledge) {
  world_.require(!processes.at(number).uffd, "an order to a process with a userfaultfd");
  processes.at(number).orders.push_back({page, access, acknowledge});
}

// ---- the world ------------------------------------------------------------------------------------------------------

World::World(std::uint64_t seed, std::size_t host_count, Page pages, Micros hold)
    : random(seed), pages_(pages), home_(home_config(pages)), store_(pages, PageBytes(sysv::page_bytes)) {
  for (std::size_t i = 0; i < host_count; ++i) {
    hosts.push_back(std::make_unique<Host>(*this, static_cast<core::Node>(i), pages, hold));
  }
}

void World::require(bool holds, const std::string& what) {
  if (!holds && failure.empty()) failure = what;
}

void World::deliver_to_home(Host& host, core::Node slot) {
  const Letter letter = std::move(host.to_home.front());
  host.to_home.pop_front();
  core::Actions actions;
  home_.step(core::Received{slot, 0, letter.message, now}, actions);
  for (const core::Action& action : actions) {
    if (const auto* install = std::get_if<core::Install>(&action)) {
      store_[install->page] = letter.bytes;
    } else if (const auto* send = std::get_if<core::Send>(&action)) {
      hosts[send->to]->from_home.push_back({send->msg, send->msg.carries_page ? store_[send->msg.page] : PageBytes{}});
    }
    require(!std::holds_alternative<core::Abort>(action), "the home was told what no host may say");
  }
}

void World::deliver_from_home(Host& host) {
  const Letter letter = std::move(host.from_home.front());
  host.from_home.pop_front();
  require(host.hosted.received(letter.message, letter.bytes, now), "the host was told what no home may say");
}

void World::collect(Host& host, std::vector<std::function<void()>>& out) {
  if (!host.from_home.empty()) out.push_back([&] { deliver_from_home(host); });
  if (host.hosted.deadline()) {
    out.push_back([&] {
      now = std::max(now, *host.hosted.deadline());
      host.hosted.tick(now);
    });
  }
  for (auto& [number, process] : host.processes) {
    const ProcessNumber n = number;
    if (process.stopped) continue;
    if (!process.orders.empty()) out.push_back([&host, n] { host.obey(n); });
    if (!process.obeyed.empty()) out.push_back([&host, n] { host.acknowledge(n); });
    for (std::size_t t = 0; t < process.threads.size(); ++t) {
      if (process.threads[t].waits || process.threads[t].left == 0) continue;
      out.push_back([this, &host, n, t] { added += host.run(n, t) ? 1 : 0; });
    }
  }
}

std::vector<std::function<void()>> World::choices() {
  std::vector<std::function<void()>> out;
  for (std::size_t i = 0; i < hosts.size(); ++i) {
    Host& host = *hosts[i];
    if (!host.to_home.empty()) out.push_back([this, &host, i] { deliver_to_home(host, static_cast<core::Node>(i)); });
    collect(host, out);
  }
  return out;
}

void World::step() {
  now += random() % 3;
  const auto all = choices();
  if (!all.empty()) all[random() % all.size()]();
  check();
}

bool World::finish(std::size_t steps_max) {
  for (auto& host : hosts) {
    for (auto& [number, process] : host->processes) process.stopped = false;
  }
  for (std::size_t i = 0; i < steps_max && failure.empty(); ++i) {
    if (choices().empty()) {
      return std::all_of(hosts.begin(), hosts.end(), [](const auto& host) { return host->is_done(); });
    }
    step();
  }
  return false;
}

void World::check() {
  for (Page page = 0; page < pages_; ++page) {
    std::size_t writers = 0, users = 0;
    for (const auto& host : hosts) {
      const Access most = host->most(page);
      writers += most == Access::write ? 1 : 0;
      users += most != Access::none ? 1 : 0;
      require(most <= host->hosted.allowed(page), "a process may do more than its host");
    }
    require(writers == 0 || users == 1, "a writer, and another host that may touch the page");
  }
}

// Each page's newest content: the writer's, or the home's.
std::uint64_t World::total() {
  std::uint64_t sum = 0;
  for (Page page = 0; page < pages_; ++page) {
    const PageBytes* newest = &store_[page];
    for (const auto& host : hosts) {
      if (host->hosted.allowed(page) == Access::write) newest = &host->frames_.at(page);
    }
    sum += word(*newest);
  }
  return sum;
}

}  // namespace dsm::dshm_agent::testing
