#include "viewer/options.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace viewer {
namespace {

Options parse(std::vector<const char*> arguments) {
  arguments.insert(arguments.begin(), "dsmtop");
  return parse_options(static_cast<int>(arguments.size()), arguments.data());
}

TEST(Options, SayWhatToDo) {
  EXPECT_EQ(parse({}).what, Options::What::watch);
  EXPECT_EQ(parse({"demo-7"}).job, "demo-7");
  EXPECT_EQ(parse({"--list"}).what, Options::What::list);
  EXPECT_EQ(parse({"--once", "demo"}).what, Options::What::once);
  EXPECT_EQ(parse({"demo", "--once", "--json"}).what, Options::What::json);
  EXPECT_EQ(parse({"--json", "--once"}).what, Options::What::json);
  EXPECT_EQ(parse({"--batch", "3"}).frames, 3);
  EXPECT_EQ(parse({"--batch=3"}).what, Options::What::batch);
  EXPECT_TRUE(parse({"--ascii"}).ascii);
  EXPECT_EQ(parse({"--color", "never"}).color, Options::Color::never);
  EXPECT_EQ(parse({"-h"}).what, Options::What::help);
  EXPECT_NE(parse({"--help"}).help.find("--once"), std::string::npos);
  EXPECT_EQ(parse({"--version"}).what, Options::What::version);
}

TEST(Options, MisuseIsOneClearLine) {
  const std::vector<std::vector<const char*>> wrong = {{"--nonsense"},
                                                       {"--js"},
                                                       {"-x"},
                                                       {"a", "b"},
                                                       {"--json"},
                                                       {"--color"},
                                                       {"--color", "sometimes"},
                                                       {"--list", "--once"},
                                                       {"--list", "demo"},
                                                       {"--batch"},
                                                       {"--batch", "0"},
                                                       {"--batch", "-1"},
                                                       {"--batch", "many"},
                                                       {"--once", "--batch", "2"}};
  for (const auto& arguments : wrong) {
    try {
      (void)parse(arguments);
      ADD_FAILURE() << arguments[0] << " was taken";
    } catch (const Misuse& misuse) {
      EXPECT_EQ(std::string(misuse.what()).find('\n'), std::string::npos);
      EXPECT_GT(std::string(misuse.what()).size(), 10u);
    }
  }
}

}  // namespace
}  // namespace viewer
