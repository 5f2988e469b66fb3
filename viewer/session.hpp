// viewer/session.hpp - which job is watched: found, asked ten times a second, lost, followed by a newer one.
//
// Driven by the shell's loop and by tests: turn() never blocks, and time comes in. Thread-safety: none.
#pragma once
#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "dsm/telemetry/viewer_client.hpp"
#include "viewer/model.hpp"
#include "viewer/view.hpp"

namespace viewer {

class Session {
 public:
  using Time = std::chrono::steady_clock::time_point;
  static constexpr std::chrono::milliseconds ask_every{100};

  // `wanted`: as dsm::telemetry::find_job takes it; empty: the newest job, and after its end the next that starts.
  // `jobs`: the running ones, newest first.
  using Jobs = std::function<std::vector<dsm::telemetry::JobName>()>;
  explicit Session(std::string wanted, Jobs jobs = dsm::telemetry::list_jobs)
      : wanted_(std::move(wanted)), jobs_(std::move(jobs)) {}

  // Does what is due: looks for a job, asks, takes answers into the model, and puts the view's `notice` and `gone` right.
  // While view.paused nothing is asked or read.
  void turn(Time now, Model& model, View& view);
  // A descriptor that becomes readable when turn() has something to do; -1: none.
  [[nodiscard]] int fd(const View& view) const { return client_ && !view.paused ? client_->fd() : -1; }

 private:
  void look(Time now, Model& model, View& view);
  void talk(Time now, Model& model, View& view);
  [[nodiscard]] std::string notice(Time now, const Model& model, const View& view) const;

  std::string wanted_;
  Jobs jobs_;
  std::optional<dsm::telemetry::JobName> job_;  // the one watched now or last
  std::optional<dsm::telemetry::ViewerClient> client_;
  std::string before_;  // the job watched before this one
  bool over_ = false;   // the job has ended
  Time next_look_{}, next_ask_{}, asked_at_{}, attached_at_{};
};

}  // namespace viewer
