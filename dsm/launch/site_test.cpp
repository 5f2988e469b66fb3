#include "dsm/launch/site.hpp"

#include <gtest/gtest.h>

namespace dsm::launch {
namespace {

const Self me{{"castle", "10.1.2.3"}, "me"};

// "host=ranks" for each site, fork's in brackets.
std::string text(std::string_view file, Launcher launcher = Launcher::automatic, int ranks = 0) {
  std::string out;
  for (const Site& site : sites_of(place(parse_machine_file(file, "hosts"), ranks), launcher, me, "hosts")) {
    std::string one = site.machine.user + (site.machine.user.empty() ? "" : "@") + site.machine.host + "=";
    for (const int rank : site.ranks) one += std::to_string(rank);
    out += (out.empty() ? "" : " ") + (site.local ? "[" + one + "]" : one);
  }
  return out;
}

TEST(Sites, OneForEachMachineInTheOrderOfTheFirstRanks) {
  EXPECT_EQ(text("b\nlocalhost\na slots=2\nb\n"), "b=04 [localhost=1] a=23");
  EXPECT_EQ(text("a\nb\n", Launcher::automatic, 5), "a=024 b=13");
}

TEST(Sites, AllNamesOfThisMachineAreOneSite) {
  EXPECT_EQ(text("localhost\nCASTLE\n127.0.0.5\n10.1.2.3\nme@castle:22\n::1\n"), "[localhost=012345]");
}

TEST(Sites, AnotherUserOrPortIsAnotherSite) {
  EXPECT_EQ(text("you@castle\na\nyou@a\na:2222\na\n"), "you@castle=0 a=14 you@a=2 a=3");
}

TEST(Sites, TheLauncherIsObeyed) {
  EXPECT_EQ(text("localhost\n", Launcher::ssh), "localhost=0");
  EXPECT_EQ(text("localhost\n", Launcher::local), "[localhost=0]");
  for (const char* file : {"localhost\nelsewhere\n", "localhost\nyou@localhost\n"}) {
    try {
      (void)text(file, Launcher::local);
      ADD_FAILURE() << file;
    } catch (const MachineFileError& error) {
      EXPECT_EQ(std::string(error.what()).rfind("hosts:2: ", 0), 0u) << error.what();
    }
  }
}

TEST(Sites, SlurmStartsAllAndKnowsNoUserAndNoPort) {
  EXPECT_EQ(text("castle slots=2\na\n", Launcher::slurm), "castle=01 a=2");
  for (const char* file : {"a\nme@a\n", "a\na:22\n"}) {
    try {
      (void)text(file, Launcher::slurm);
      ADD_FAILURE() << file;
    } catch (const MachineFileError& error) {
      EXPECT_EQ(std::string(error.what()).rfind("hosts:2: ", 0), 0u) << error.what();
    }
  }
}

TEST(Launcher, NamesAreParsed) {
  Launcher launcher = Launcher::ssh;
  EXPECT_TRUE(parse("auto", launcher) && launcher == Launcher::automatic);
  EXPECT_TRUE(parse("ssh", launcher) && launcher == Launcher::ssh);
  EXPECT_TRUE(parse("slurm", launcher) && launcher == Launcher::slurm);
  EXPECT_TRUE(parse("local", launcher) && launcher == Launcher::local);
  EXPECT_FALSE(parse("rsh", launcher));
  EXPECT_EQ(launcher, Launcher::local);
}

TEST(Site, ThisMachineHasItsAddressesAmongItsNamesAndNoLongNameThatIsNoneOfThem) {
  const auto names = own_names({});
  EXPECT_TRUE(std::any_of(names.begin(), names.end(), [](const std::string& name) { return name == "127.0.0.1"; }));
  const std::string foreign = names.front().substr(0, names.front().find('.')) + ".invalid";  // RFC 2606: no address
  EXPECT_FALSE(is_this_machine(foreign, own_names(parse_machine_file(foreign + "\n", "hosts"))));
}

}  // namespace
}  // namespace dsm::launch
