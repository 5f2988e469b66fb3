#include "dsm/launch/control_fifo.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <system_error>

#include "ipc/fifo.hpp"

namespace dsm::launch {
namespace {

class ControlFifoTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder = ::testing::TempDir() + "dsmexec-control-XXXXXX";
    ASSERT_NE(::mkdtemp(folder.data()), nullptr);
    path = folder + "/fifo";
  }
  void TearDown() override { std::filesystem::remove_all(folder); }
  void write(const std::string& text) const {
    const ipc::Fd fd = ipc::open_fifo_for_writing(path);
    ipc::write_record(fd.get(), text);
  }
  // All that can be read now, in words.
  static std::string serve(ControlFifo& fifo) {
    std::string out;
    std::vector<pollfd> set;
    fifo.add_to(set);
    while (::poll(set.data(), 1, 0) == 1) {
      fifo.serve([&](ControlFifo::Order order) { out += order == ControlFifo::Order::abort ? "abort " : "status "; },
                 [&](std::string_view line) { out += "unknown:" + std::string(line.substr(0, 20)) + " "; });
    }
    return out;
  }
  std::string folder, path;
};

TEST_F(ControlFifoTest, EachLineIsAnOrder) {
  ControlFifo fifo(path);
  EXPECT_EQ(serve(fifo), "");
  write("status\nabort\n");
  write("sta");
  EXPECT_EQ(serve(fifo), "status abort ");
  write("tus\nstatus now\n\n");
  EXPECT_EQ(serve(fifo), "status unknown:status now unknown: ");
}

TEST_F(ControlFifoTest, OneInWhichOthersMayWriteIsRefused) {
  ASSERT_EQ(::mkfifo(path.c_str(), 0600), 0);
  ASSERT_EQ(::chmod(path.c_str(), 0622), 0);
  try {
    ControlFifo fifo(path);
    ADD_FAILURE() << "taken";
  } catch (const std::system_error& error) {
    EXPECT_EQ(std::string(error.what()), "others may write into " + path + " (chmod 600 it): Operation not permitted");
  }
  EXPECT_TRUE(std::filesystem::exists(path)) << "it is not ours to remove";
}

TEST_F(ControlFifoTest, ALineWithoutAnEndIsNotKept) {
  ControlFifo fifo(path);
  for (int i = 0; i < 3; ++i) write(std::string(ipc::max_record - 100, 'x'));
  const std::string served = serve(fifo);
  EXPECT_NE(served.find("unknown:xxxx"), std::string::npos);
  write("\nstatus\n");
  EXPECT_NE(serve(fifo).find("status "), std::string::npos);
}

TEST_F(ControlFifoTest, IsRemovedIfItWasMadeHereAndForThisUserOnly) {
  {
    const ControlFifo fifo(path);
    struct stat status {};
    ASSERT_EQ(::stat(path.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777, 0600U);
  }
  EXPECT_FALSE(std::filesystem::exists(path));
  ipc::make_fifo(path);
  { const ControlFifo fifo(path); }
  EXPECT_TRUE(std::filesystem::exists(path));
}

TEST_F(ControlFifoTest, TwoJobsCannotShareOne) {
  ControlFifo fifo(path);
  try {
    const ControlFifo other(path);
    FAIL() << "accepted";
  } catch (const std::system_error& error) {
    EXPECT_EQ(error.code().value(), EBUSY);
  }
  EXPECT_TRUE(std::filesystem::exists(path)) << "of the one who has it";
}

TEST_F(ControlFifoTest, WhatIsNoFifoIsLeftAlone) {
  std::ofstream(path) << "text";
  EXPECT_THROW(const ControlFifo fifo(path), std::system_error);
  EXPECT_EQ(std::filesystem::file_size(path), 4U);
}

}  // namespace
}  // namespace dsm::launch
