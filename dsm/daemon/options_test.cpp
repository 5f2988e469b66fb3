#include "dsm/daemon/options.hpp"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>

namespace dsm::daemon {
namespace {

Options options(std::vector<std::string> arguments) {
  ipc::po::options_description all;
  describe(all);
  ipc::po::variables_map values;
  ipc::po::store(ipc::po::command_line_parser(arguments).options(all).run(), values);
  return read_options(values);
}

TEST(DaemonOptions, AreDsmexecsWhereTheyMeanTheSame) {
  const Options none = options({});
  EXPECT_EQ(none.listen, "127.0.0.1");
  EXPECT_EQ(none.port, 8080);
  EXPECT_EQ(none.members, 0);
  EXPECT_EQ(none.gather, std::chrono::seconds(600));
  EXPECT_EQ(none.size, std::uint64_t{1} << 30);
  EXPECT_EQ(none.protocol, core::Protocol::msi);
  const Options all =
      options({"--listen", "::1", "--port",  "0",      "--key", "k",           "--once", "--nproc", "3",     "--gather",
               "5",        "-p",  "migrate", "--size", "64M",   "--page-size", "8K",     "--home",  "block", "-v"});
  EXPECT_EQ(all.listen, "::1");
  EXPECT_EQ(all.port, 0);
  EXPECT_EQ(all.key, "k");
  EXPECT_EQ(all.members, 3);
  EXPECT_EQ(all.gather, std::chrono::seconds(5));
  EXPECT_EQ(all.protocol, core::Protocol::migrate);
  EXPECT_EQ(all.size, 64u << 20);
  EXPECT_EQ(all.page_size, 8192u);
  EXPECT_EQ(all.placement, core::Placement::block);
  EXPECT_TRUE(all.verbose);
}

TEST(DaemonOptions, SegmentsHaveHalfOfTheMemoryUnlessSomebodySaysHowMuch) {
  const double pages = static_cast<double>(::sysconf(_SC_PHYS_PAGES));
  ASSERT_GT(pages, 0);
  EXPECT_NEAR(static_cast<double>(options({}).shm_size), pages * static_cast<double>(::sysconf(_SC_PAGESIZE)) / 2,
              4096);
  EXPECT_EQ(options({}).shm_size % 4096, 0u);
  EXPECT_EQ(options({"--shm-size", "3G"}).shm_size, std::uint64_t{3} << 30U);
  EXPECT_EQ(options({"--shm-size", "5000"}).shm_size, 8192u) << "whole pages";
}

TEST(DaemonOptions, MisuseIsOneLine) {
  for (const std::vector<std::string>& bad : std::vector<std::vector<std::string>>{{"--port", "65536"},
                                                                                   {"--port", "-1"},
                                                                                   {"--port", "http"},
                                                                                   {"--listen", ""},
                                                                                   {"--once"},
                                                                                   {"--nproc", "3"},
                                                                                   {"--once", "--nproc", "65"},
                                                                                   {"--once", "--nproc", "0"},
                                                                                   {"--gather", "0"},
                                                                                   {"-p", "hlrc"},
                                                                                   {"--shm-size", "0"},
                                                                                   {"--size", "lots"}}) {
    try {
      (void)options(bad);
      ADD_FAILURE() << bad[0];
    } catch (const ipc::UsageError& misuse) {
      EXPECT_EQ(std::string(misuse.what()).find('\n'), std::string::npos) << misuse.what();
    }
  }
}

}  // namespace
}  // namespace dsm::daemon
