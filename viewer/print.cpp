#include "viewer/print.hpp"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <optional>
#include <thread>
#include <vector>

#include "dsm/telemetry/viewer_client.hpp"
#include "viewer/json.hpp"
#include "viewer/render.hpp"
#include "viewer/text.hpp"

namespace viewer {
namespace {

using dsm::telemetry::JobName;
using dsm::telemetry::ViewerClient;
using namespace std::chrono_literals;

constexpr auto patience = 5s;

int fail(const std::string& why) {
  fmt::print(stderr, "dsmtop: {}\n", why);
  return 1;
}

int write_out(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0) return 0;
  return fail("cannot write to standard output");
}

int list() {
  const auto now =
      std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::system_clock::now().time_since_epoch());
  std::string text = fmt::format("{:<24} {:<24} {:>10}\n", "JOB", "PROGRAM", "RUNNING");
  const std::size_t head = text.size();
  for (const JobName& job : dsm::telemetry::list_jobs()) {
    if (!ViewerClient::connect(job)) continue;  // gone since, or another user's under our name
    const std::int64_t since_us = std::max<std::int64_t>(now.count() - job.started_ms * 1000, 0);
    text += fmt::format("{:<24} {:<24} {:>10}\n", job.job(), job.program,
                        elapsed_text(static_cast<std::uint64_t>(since_us)));
  }
  if (text.size() == head) return fail("no job of yours is running on this host");
  return write_out(text);
}

// A terminal's size when there is one; 80x24, which everything fits, otherwise.
Size frame_size() {
  struct winsize now {};
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &now) != 0 || now.ws_row == 0 || now.ws_col == 0) return {80, 24};
  return {now.ws_col, std::max(now.ws_row - 1, 1)};
}

std::string frame(const Model& model, const Options& options, bool utf8) {
  View view;
  view.utf8 = utf8;
  const Grid grid = render(model, view, frame_size());
  const bool color = options.color == Options::Color::always ||
                     (options.color == Options::Color::automatic && ::isatty(STDOUT_FILENO) == 1);
  return color ? grid.ansi() : grid.text();
}

}  // namespace

int print(const Options& options, bool utf8) {
  if (options.what == Options::What::list) return list();
  const auto job = dsm::telemetry::find_job(dsm::telemetry::list_jobs(), options.job);
  if (!job && options.job.empty()) return fail("no job of yours is running on this host");
  if (!job) return fail(fmt::format("no job '{}' is running; --list shows those that are", options.job));
  auto client = ViewerClient::connect(*job);
  if (!client) return fail(fmt::format("the job {} has just ended", job->job()));

  Model model;
  auto next = std::chrono::steady_clock::now();
  for (int frames = options.what == Options::What::batch ? options.frames : 1; frames > 0; --frames) {
    auto snapshot = client->fetch(patience);
    if (!snapshot && model.empty()) return fail(fmt::format("no answer from the dsmexec of {}", job->job()));
    if (!snapshot) return 0;  // it ended between two frames
    if (options.what == Options::What::json) return write_out(to_json(*snapshot) + '\n');
    const bool last = snapshot->ended;
    model.update(std::move(*snapshot));
    if (const int status = write_out(frame(model, options, utf8)); status != 0 || last) return status;
    if (frames > 1) std::this_thread::sleep_until(next += 1s);
  }
  return 0;
}

}  // namespace viewer
