// shm_writer and shm_reader, from outside: two strangers who share a key.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/sem.h>

#include "labs/common/observing.hpp"

namespace {

using namespace ipc::testing;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

// This process's own. Whoever fails leaves nothing behind, either.
class ByKey : public ::testing::Test {
 protected:
  ~ByKey() override {
    if (const int id = segment(); id != -1) ::shmctl(id, IPC_RMID, nullptr);
    if (const int id = turns(); id != -1) ::semctl(id, 0, IPC_RMID);
  }
  [[nodiscard]] int segment() const { return ::shmget(key_, 0, 0); }
  [[nodiscard]] int turns() const { return ::semget(key_, 0, 0); }
  [[nodiscard]] std::string key() const { return std::to_string(key_); }
  [[nodiscard]] bool nothing_left() const { return segment() == -1 && turns() == -1; }

 private:
  const key_t key_ = static_cast<key_t>(0x47000000 + ::getpid());
};

RunOptions input(const std::string& text) {
  RunOptions options;
  options.input = text;
  return options;
}

TEST_F(ByKey, LinesArriveWhoeverComesFirst) {
  for (const bool reader_first : {true, false}) {
    std::optional<Started> reader, writer;
    const auto make_reader = [&] {
      reader.emplace(std::vector<std::string>{"shm_reader", key()});
      ASSERT_TRUE(wait_until([&] { return segment() != -1 && turns() != -1; }));
    };
    if (reader_first) make_reader();
    writer.emplace(std::vector<std::string>{"shm_writer", key()}, input("hello\n\nlast"));
    ASSERT_TRUE(wait_until([&] { return turns() != -1; }));
    if (!reader_first) make_reader();
    EXPECT_EQ(writer->wait(), 0);
    EXPECT_EQ(reader->wait(), 0);
    EXPECT_THAT(reader->lines(), ElementsAre("hello", "", "last"));
    EXPECT_THAT(writer->lines(), IsEmpty());
    EXPECT_TRUE(nothing_left());
  }
}

TEST_F(ByKey, NoneOfAThousandLinesIsLost) {
  std::string all;
  std::vector<std::string> lines;
  for (int i = 0; i < 1000; ++i) {
    lines.push_back("line " + std::to_string(i) + std::string(static_cast<std::size_t>(i % 40), '.'));
    all += lines.back() + "\n";
  }
  Started reader({"shm_reader", key()}), writer({"shm_writer", key()}, input(all));
  EXPECT_EQ(writer.wait(), 0);
  EXPECT_EQ(reader.wait(), 0);
  EXPECT_EQ(reader.lines(), lines);
  EXPECT_TRUE(nothing_left());
}

TEST_F(ByKey, WhoCannotShareSaysWhy) {
  const Outcome misuse = run({"shm_writer", "no-number"});
  EXPECT_EQ(misuse.code, 1);
  EXPECT_THAT(misuse.err, ElementsAre("shm_writer: 'no-number' is no whole number"));
  ASSERT_NE(::shmget(static_cast<key_t>(std::stol(key())), 100, IPC_CREAT | 0600), -1);  // too small for them
  const Outcome small = run({"shm_reader", key()});
  EXPECT_EQ(small.code, 1);
  EXPECT_THAT(small.err, ElementsAre("shm_reader: shmget: Invalid argument"));
}

}  // namespace
