// dsm/launch/ssh.hpp - agents over ssh: the command line, and what ssh's complaints mean.
//
// It logs in without asking anything (BatchMode). Thread-safety: yes. Not async-signal-safe.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "dsm/launch/remote.hpp"

namespace dsm::launch {

class Ssh : public Remote {
 public:
  // `command`: the user's, with options, which count more than those that are put behind them.
  explicit Ssh(std::vector<std::string> command) : command_(std::move(command)) {}

  [[nodiscard]] std::string name() const override { return "ssh"; }
  [[nodiscard]] std::vector<std::string> command(const Machine& machine, const std::string& line) const override;
  [[nodiscard]] std::string origin() const override { return "install openssh-client, or name another by --ssh"; }
  [[nodiscard]] std::string explain(const Machine& machine, std::string_view said,
                                    const std::string& how) const override;
  // An sshd that is asked by many at one time drops some before they have said a word (sshd_config(5), MaxStartups).
  [[nodiscard]] bool worth_another_try(std::string_view said) const override;
  [[nodiscard]] std::string connection_ended(int code, std::string_view said) const override;
  [[nodiscard]] std::string silence_advice() const override {
    return "what its login shell runs (~/.bashrc) must end, read no input and leave the output alone";
  }
  [[nodiscard]] std::string first_folder() const override { return "the home folder"; }

 private:
  std::vector<std::string> command_;
};

}  // namespace dsm::launch
