#include "dsm/daemon/window.hpp"

#include <exception>

namespace dsm::daemon {
namespace {

constexpr std::chrono::milliseconds last_look_patience{20};  // other sessions wait meanwhile

}  // namespace

Window::Window(const std::string& session, const std::vector<Shown>& members)
    : port_(session), began_(std::chrono::steady_clock::now()) {
  frame_.job = port_.job();
  frame_.program = session;
  for (const Shown& member : members) {
    telemetry::RankSample sample;
    sample.rank = static_cast<std::uint32_t>(frame_.ranks.size());
    sample.host = member.address;
    sample.pid = member.pid;
    frame_.ranks.push_back(std::move(sample));
  }
}

Window::~Window() {
  try {
    port_.finish(look(), last_look_patience);
  } catch (const std::exception&) {  // no memory, say: then those who watch see the connection end
  }
}

std::string Window::watch(int rank, int segment) { return sampler_.attach(segment, static_cast<std::uint32_t>(rank)); }

telemetry::Snapshot Window::look() const {
  telemetry::Snapshot all = frame_;
  telemetry::merge(all, sampler_.sample());
  all.elapsed_us = static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - began_).count());
  return all;
}

void Window::serve() {
  port_.serve();
  if (port_.pending()) port_.answer(look());
}

}  // namespace dsm::daemon
