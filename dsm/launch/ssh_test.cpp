#include "dsm/launch/ssh.hpp"

#include <gtest/gtest.h>

namespace dsm::launch {
namespace {

std::string joined(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : " ") + word;
  return out;
}

TEST(Ssh, TheUsersOptionsComeFirstSoThatTheyCount) {
  Machine machine;
  machine.host = "far";
  machine.user = "me";
  machine.port = 2222;
  EXPECT_EQ(joined(Ssh({"ssh", "-F", "file"}).command(machine, "run")),
            "ssh -F file -T -x -a -o BatchMode=yes -o ConnectTimeout=5 -o EscapeChar=none -p 2222 -l me far run");
}

TEST(Ssh, WhatIsWrongIsSaidInOneLineThatSaysWhatToDo) {
  Machine machine;
  machine.host = "far";
  machine.user = "me";
  machine.line = 3;
  const auto said = [&machine](std::string_view text) { return Ssh({"ssh"}).explain(machine, text, "exit code 255"); };
  EXPECT_EQ(
      said("banner\nme@far: Permission denied (publickey).\r\n\n"),
      "no agent on host far (machine_file, line 3): me@far: Permission denied (publickey): it wants a password, or "
      "refuses the key; for a login without a password: ssh-copy-id me@far");
  EXPECT_NE(said("No ED25519 host key is known for far\nHost key verification failed.\n")
                .find("log in once by hand: ssh me@far"),
            std::string::npos);
  EXPECT_EQ(said(""),
            "no agent on host far (machine_file, line 3): ssh ended with exit code 255 and did not say why (see "
            "~/.bashrc there, or --ssh)");
  EXPECT_EQ(said(std::string(1000, 'x')).find('\n'), std::string::npos);
  EXPECT_LT(said(std::string(1000, 'x')).size(), 300u);
}

TEST(Ssh, WhatWasDeniedToAnotherProgramIsNotTakenForALogin) {
  Machine machine;
  machine.host = "far";
  for (const char* words : {"sh: 1: /tmp/x/dsmexec: Permission denied",
                            "cannot run '/etc/passwd': Permission denied (install openssh-client)"}) {
    EXPECT_EQ(Ssh({"ssh"}).explain(machine, words, "exit code 1").find("ssh-copy-id"), std::string::npos) << words;
  }
}

TEST(Ssh, ADroppedConnectionIsWorthAnotherTryAndARefusedKeyIsNot) {
  const Ssh ssh({"ssh"});
  EXPECT_TRUE(ssh.worth_another_try("kex_exchange_identification: read: Connection reset by peer\n"));
  EXPECT_FALSE(ssh.worth_another_try("me@far: Permission denied (publickey).\n"));
}

}  // namespace
}  // namespace dsm::launch
