#include "dsm/launch/options.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <sstream>

namespace dsm::launch {
namespace {

using Words = std::vector<std::string>;

std::string refusal(const Words& arguments) {
  try {
    (void)parse_options(arguments);
  } catch (const UsageError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(Options, EverythingAfterTheProgramIsTheProgramsOwn) {
  const Options options =
      parse_options({"-n", "2", "-v", "hosts", "prog", "-n", "3", "--help", "-x", "--", "", "--size=0"});
  EXPECT_EQ(options.ranks, 2);
  EXPECT_TRUE(options.verbose);
  EXPECT_FALSE(options.help);
  EXPECT_EQ(options.machine_file, "hosts");
  EXPECT_EQ(options.program, "prog");
  EXPECT_EQ(options.arguments, (Words{"-n", "3", "--help", "-x", "--", "", "--size=0"}));
}

TEST(Options, OptionsEndAtMachineFileEvenBeforeTheProgram) {
  const Options options = parse_options({"hosts", "-n", "x"});
  EXPECT_EQ(options.program, "-n");
  EXPECT_EQ(options.ranks, 0);
}

TEST(Options, DoubleDashMayStandBeforeMachineFile) {
  const Options options = parse_options({"-n", "2", "--", "hosts", "prog", "--", "-v"});
  EXPECT_EQ(options.machine_file, "hosts");
  EXPECT_EQ(options.arguments, (Words{"--", "-v"}));
}

TEST(Options, ValuesMayLookLikeAnything) {
  const Options options = parse_options({"--output", "size", "--wdir=output", "-pmigrate", "hosts", "prog"});
  EXPECT_EQ(options.output, "size");
  EXPECT_EQ(options.wdir, "output");
  EXPECT_EQ(options.protocol, core::Protocol::migrate);
  EXPECT_EQ(parse_options({"--pager", "uffd", "hosts", "prog"}).pager, pager::Kind::uffd);
}

TEST(Options, WhoRunsUnderADebugger) {
  EXPECT_EQ(parse_options({"hosts", "prog"}).debugger, Debugger::none);
  EXPECT_EQ(parse_options({"--debug", "valgrind", "hosts", "prog"}).debugged, Options::everybody);
  EXPECT_EQ(parse_options({"--debug", "strace", "--debug-rank", "2", "hosts", "prog"}).debugged, 2);
  const Options gdb = parse_options({"--debug", "gdb", "--debug-rank", "1", "hosts", "prog"});
  EXPECT_EQ(gdb.debugger, Debugger::gdb);
  EXPECT_EQ(gdb.debugged, 1);
  EXPECT_EQ(gdb.input, 1) << "gdb's commands";
  EXPECT_EQ(parse_options({"--debug", "gdb", "hosts", "prog"}).debugged, 0);
  EXPECT_EQ(refusal({"--debug", "lldb", "hosts", "prog"}),
            "--debug lldb: gdb, valgrind or strace is needed (see dsmexec --help)");
  EXPECT_EQ(refusal({"--debug-rank", "1", "hosts", "prog"}),
            "--debug-rank needs --debug gdb, valgrind or strace (see dsmexec --help)");
  EXPECT_EQ(refusal({"--debug", "gdb", "--debug-rank", "x", "hosts", "prog"}),
            "--debug-rank x: a rank is needed (see dsmexec --help)");
  EXPECT_EQ(refusal({"--debug", "gdb", "--stdin", "1", "hosts", "prog"}),
            "--debug gdb: rank 0 reads gdb's commands from standard input, so --stdin cannot name another (see dsmexec "
            "--help)");
}

TEST(Options, AllAddressesAreNoInterface) {
  EXPECT_EQ(parse_options({"--iface", "10.0.0.1", "hosts", "prog"}).interface, "10.0.0.1");
  for (const char* text : {"0.0.0.0", "::"}) {
    EXPECT_EQ(refusal({std::string("--iface=") + text, "hosts", "prog"}),
              std::string("--iface ") + text + ": one address of this machine is needed (see dsmexec --help)");
  }
}

TEST(Options, WhoReadsStandardInput) {
  EXPECT_EQ(parse_options({"hosts", "prog"}).input, 0);
  EXPECT_EQ(parse_options({"--stdin", "3", "hosts", "prog"}).input, 3);
  EXPECT_EQ(parse_options({"--stdin", "all", "hosts", "prog"}).input, Options::everybody);
  EXPECT_EQ(parse_options({"--stdin=none", "hosts", "prog"}).input, Options::nobody);
  for (const char* text : {"-1", "2x", "some"}) {
    EXPECT_EQ(refusal({std::string("--stdin=") + text, "hosts", "prog"}),
              std::string("--stdin ") + text + ": a rank, all or none is needed (see dsmexec --help)");
  }
}

TEST(Options, PortsAreARange) {
  const Options options = parse_options({"--port-range", "4000-4099", "hosts", "prog"});
  EXPECT_EQ(options.ports.first, 4000);
  EXPECT_EQ(options.ports.last, 4099);
  EXPECT_EQ(refusal({"--port-range", "4099-4000", "hosts", "prog"}),
            "--port-range 4099-4000: two ports from 1 to 65535 are needed, as 4000-4099 (see dsmexec --help)");
}

TEST(Options, WhatIsOnOnlyWhenItIsSaid) {
  const Options off = parse_options({"hosts", "prog"});
  EXPECT_FALSE(off.keep_going || off.timestamp || off.dry_run || off.encrypt);
  EXPECT_TRUE(off.control.empty());
  const Options on = parse_options(
      {"--keep-going", "--timestamp", "--dry-run", "--encrypt", "--control", "/tmp/fifo", "hosts", "prog"});
  EXPECT_TRUE(on.keep_going && on.timestamp && on.dry_run && on.encrypt);
  EXPECT_EQ(on.control, "/tmp/fifo");
}

TEST(Options, Defaults) {
  const Options options = parse_options({"hosts", "prog"});
  EXPECT_EQ(options.ranks, 0);
  EXPECT_EQ(options.protocol, core::Protocol::msi);
  EXPECT_EQ(options.pager, pager::Kind::sigsegv);
  EXPECT_EQ(options.size, 1u << 30);
  EXPECT_EQ(options.output, "tag");
  EXPECT_FALSE(options.timeout.has_value());
  EXPECT_TRUE(options.arguments.empty());
}

TEST(Options, HelpAndVersionNeedNothingElse) {
  EXPECT_TRUE(parse_options({"--help"}).help);
  EXPECT_TRUE(parse_options({"-h"}).help);
  EXPECT_TRUE(parse_options({"--help-all"}).help_all);
  EXPECT_TRUE(parse_options({"--version"}).version);
  std::istringstream lines(help_text(false));
  int options = 0;
  for (std::string line; std::getline(lines, line);) options += line.rfind("  -", 0) == 0 ? 1 : 0;
  EXPECT_EQ(options, 10 + 1) << "the ten that matter, and where the others are";
  EXPECT_EQ(help_text(false).find("--pager"), std::string::npos);
  for (const char* option : {"--open-rendezvous", "--home", "--pager"}) {
    EXPECT_NE(help_text(true).find(option), std::string::npos) << option;
  }
}

TEST(Options, MisuseIsOneLine) {
  const std::vector<std::pair<Words, std::string>> cases = {
      {{}, "no machine_file"},
      {{"hosts"}, "no program"},
      {{"--frobnicate", "hosts", "prog"}, "unknown option '--frobnicate'"},
      {{"--siz", "1G", "hosts", "prog"}, "unknown option"},
      {{"-n", "0", "hosts", "prog"}, "-n 0"},
      {{"-n", "-1", "hosts", "prog"}, ""},
      {{"-n", "257", "hosts", "prog"}, "-n 257"},
      {{"-n", "2x", "hosts", "prog"}, "-n 2x"},
      {{"-n", "2", "-n", "3", "hosts", "prog"}, "twice"},
      {{"-n"}, ""},
      {{"-p", "mesi", "hosts", "prog"}, "--protocol mesi"},
      {{"--pager", "none", "hosts", "prog"}, "--pager none"},
      {{"--home", "first_touch", "hosts", "prog"}, "--home first_touch"},
      {{"--launcher", "rsh", "hosts", "prog"}, "--launcher rsh"},
      {{"--ssh", "", "hosts", "prog"}, "--ssh"},
      {{"--ssh", "ssh 'x", "hosts", "prog"}, "--ssh ssh 'x: a quote or brace is not closed"},
      {{"--ssh", "ssh \"x'", "hosts", "prog"}, "a quote or brace is not closed"},
      {{"--ssh", "ssh $(id)", "hosts", "prog"}, "a command inside"},
      {{"--ssh", "ssh a|b", "hosts", "prog"}, "must be quoted"},
      {{"-x", "=1", "hosts", "prog"}, "-x =1"},
      {{"-x", "DSMEXEC_RANKID=7", "hosts", "prog"}, "-x DSMEXEC_RANKID"},
      {{"--timeout", "0", "hosts", "prog"}, "--timeout 0"},
      {{"--timeout", "nan", "hosts", "prog"}, "--timeout nan"},
      {{"--timeout", "5m", "hosts", "prog"}, "--timeout 5m"},
      {{"--output", "", "hosts", "prog"}, ""},
      {{"--verbose=3", "hosts", "prog"}, ""},
  };
  for (const auto& [arguments, part] : cases) {
    const std::string why = refusal(arguments);
    EXPECT_NE(why, "accepted") << part;
    EXPECT_NE(why.find(part), std::string::npos) << why;
    EXPECT_EQ(why.find('\n'), std::string::npos) << why;
  }
}

TEST(Options, OtherMachines) {
  ::setenv("DSM_TEST_HERE", "a b", 1);
  ::unsetenv("DSM_TEST_NOWHERE");
  const Options options =
      parse_options({"--launcher", "ssh", "--ssh", "ssh -F 'my file' -v", "-x", "A=1=2", "-x", "DSM_TEST_HERE", "-x",
                     "DSM_TEST_NOWHERE", "--export=B=", "--iface", "10.0.0.1", "--send", "hosts", "prog", "-x", "C"});
  EXPECT_EQ(options.launcher, Launcher::ssh);
  EXPECT_EQ(options.ssh, (Words{"ssh", "-F", "my file", "-v"}));
  EXPECT_EQ(options.exported, (Words{"A=1=2", "DSM_TEST_HERE=a b", "B="}));
  EXPECT_EQ(options.interface, "10.0.0.1");
  EXPECT_TRUE(options.send);
  EXPECT_EQ(options.arguments, (Words{"-x", "C"}));
  EXPECT_EQ(parse_options({"hosts", "prog"}).ssh, (Words{"ssh"}));
}

TEST(Options, TheListOfASlurmJobIsForSrunUnlessSaidOtherwise) {
  EXPECT_EQ(parse_options({"-", "prog"}).launcher, Launcher::slurm);
  EXPECT_EQ(parse_options({"-n", "2", "-", "prog", "-"}).machine_file, "-");
  EXPECT_EQ(parse_options({"--launcher", "ssh", "-", "prog"}).launcher, Launcher::ssh);
  EXPECT_EQ(parse_options({"--launcher", "auto", "-", "prog"}).launcher, Launcher::automatic);
  EXPECT_EQ(parse_options({"--launcher", "slurm", "hosts", "prog"}).launcher, Launcher::slurm);
  EXPECT_EQ(parse_options({"hosts", "-"}).launcher, Launcher::automatic);
}

TEST(Options, SizesAreChecked) {
  EXPECT_EQ(parse_size("4096", 4096), 4096u);
  EXPECT_EQ(parse_size("1", 4096), 4096u);
  EXPECT_EQ(parse_size("5K", 4096), 8192u);
  EXPECT_EQ(parse_size("64m", 4096), 64u << 20);
  EXPECT_EQ(parse_size("1T", 4096), std::uint64_t{1} << 40);
  for (const char* bad : {"", "0", "0G", "1P", "abc", "-1", "1.5G", "1025G", "2T", "99999999999999999999",
                          "18446744073709551615T", "1GB", "G"}) {
    EXPECT_THROW((void)parse_size(bad, 4096), UsageError) << bad;
  }
}

TEST(Options, APageIsAPowerOfTwoAndTheRegionWholePages) {
  for (const auto& [text, bytes] : std::vector<std::pair<std::string, std::uint32_t>>{
           {"4K", 4096}, {"4096", 4096}, {"64k", 65536}, {"1M", 1u << 20}, {"1024K", 1u << 20}}) {
    EXPECT_EQ(parse_page_size(text), bytes) << text;
  }
  for (const char* bad : {"", "0", "1", "2K", "5K", "4097", "2M", "1G", "4KB", "-4096"}) {
    EXPECT_THROW((void)parse_page_size(bad), UsageError) << bad;
  }
  const Options options = parse_options({"--size", "100K", "--page-size", "64K", "hosts", "prog"});
  EXPECT_EQ(options.page_size, 65536u);
  EXPECT_EQ(options.size, 131072u);
  EXPECT_EQ(parse_options({"hosts", "prog"}).page_size, 4096u);
}

TEST(Options, TimeoutsMayBeFractions) {
  EXPECT_EQ(parse_options({"--timeout", "0.25", "hosts", "prog"}).timeout, std::chrono::milliseconds(250));
}

}  // namespace
}  // namespace dsm::launch
