#include "viewer/session.hpp"

#include <algorithm>
#include <tuple>
#include <vector>

namespace viewer {
namespace {

using dsm::telemetry::JobName;
using dsm::telemetry::ViewerClient;
using namespace std::chrono_literals;

bool newer(const JobName& a, const JobName& b) { return std::tie(a.started_ms, a.pid) > std::tie(b.started_ms, b.pid); }

}  // namespace

void Session::turn(Time now, Model& model, View& view) {
  if (!view.paused) {
    if (!client_) look(now, model, view);
    if (client_) talk(now, model, view);
  }
  view.notice = notice(now, model, view);
}

void Session::look(Time now, Model& model, View& view) {
  if (now < next_look_ || (over_ && !wanted_.empty())) return;
  next_look_ = now + 250ms;
  const std::vector<JobName> jobs = jobs_();
  std::optional<JobName> found;
  if (job_ && !over_) {
    // The connection broke, but did the job? It may only have found us slow.
    if (std::find(jobs.begin(), jobs.end(), *job_) != jobs.end()) found = job_;
    over_ = view.gone = !found;
  } else {
    found = dsm::telemetry::find_job(jobs, wanted_);
    if (job_ && found && !newer(*found, *job_)) found.reset();
  }
  if (!found) return;
  client_ = ViewerClient::connect(*found);
  if (!client_) return;
  if (job_ != found) {
    before_ = job_ && !model.empty() ? job_->job() : "";
    model.clear();
    view.cursor = 0;
    view.first_rank = 0;
  }
  job_ = found;
  over_ = view.gone = false;
  attached_at_ = next_ask_ = now;
}

void Session::talk(Time now, Model& model, View& view) {
  Snapshot snapshot;
  const ViewerClient::Got got = client_->receive(snapshot);
  if (got == ViewerClient::Got::snapshot) {
    over_ = snapshot.ended;
    model.update(std::move(snapshot));
  }
  if (got == ViewerClient::Got::closed || over_) {
    client_.reset();
    if (!over_) next_look_ = now;  // and look() decides whether the job is over
    if (!over_) look(now, model, view);
    return;
  }
  if (now >= next_ask_ && !client_->asked()) {
    client_->ask();
    asked_at_ = now;
    next_ask_ = now + ask_every;
  }
}

std::string Session::notice(Time now, const Model& model, const View& view) const {
  const std::string name = job_ ? job_->job() : "";
  if (view.paused) return model.empty() ? "Paused; Space goes on." : "";
  if (over_) {
    std::string text = view.gone ? "dsmexec has gone without a last word." : name + " has ended.";
    return text + (wanted_.empty() ? " The next job is shown when it starts. q quits." : " q quits.");
  }
  if (!client_ && model.empty()) {
    return (wanted_.empty() ? "No job of yours is running on this host." : "No job '" + wanted_ + "' is running.") +
           std::string(" Waiting for one to be started with dsmexec ...");
  }
  if (!client_ || (client_->asked() && now - asked_at_ > 2s)) {
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(now - asked_at_).count();
    return "No answer from the dsmexec of " + name + " for " + std::to_string(seconds) + " s.";
  }
  if (model.empty()) return "Asking " + name + " ...";
  if (!before_.empty() && now - attached_at_ < 5s) return before_ + " has ended; this is " + name + ", started later.";
  return "";
}

}  // namespace viewer
