#include "ipc/child.hpp"

#include <gtest/gtest.h>

#include "ipc/signals.hpp"
#include "labs/common/observing.hpp"

namespace {

using ipc::Child;
using ipc::testing::exists;
using ipc::testing::has_ended;
using ipc::testing::is_alive;
using ipc::testing::state_of;
using ipc::testing::status_field;
using ipc::testing::wait_until;

int sleep_for_ever() {
  for (;;) ::pause();
}

// Reaps it, behind the object's back, and says how it ended.
std::string end_of(Child& child) {
  EXPECT_TRUE(wait_until([&] { return has_ended(child.pid()); }));
  for (const ipc::ChildExit& gone : ipc::reap_children()) {
    if (gone.pid != child.pid()) continue;
    child.forget();
    return ipc::how_it_ended(gone.status);
  }
  return "not at all";
}

TEST(Child, RunsItsBodyAndExitsWithWhatItReturns) {
  Child child([parent = ::getpid()] { return ::getppid() == parent ? 7 : 8; });
  EXPECT_EQ(end_of(child), "exited with code 7");
}

TEST(Child, ExitsWithOneAfterAnException) {
  ::testing::internal::CaptureStderr();
  Child child([]() -> int { throw std::runtime_error("no reason"); });
  const std::string pid = std::to_string(child.pid());
  EXPECT_EQ(end_of(child), "exited with code 1");
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "ipc01_test: child " + pid + ": no reason\n");
}

TEST(Child, DestroysNothingOfOurs) {
  struct Says {
    int code;
    ~Says() {
      if (code != 0) ::_exit(code);
    }
  };
  Says says{0};
  Child child([&says] {
    says.code = 9;
    return 3;
  });
  EXPECT_EQ(end_of(child), "exited with code 3");
}

TEST(Child, IsKilledAndReapedAtTheEnd) {
  pid_t pid = 0;
  {
    const Child child(sleep_for_ever);
    pid = child.pid();
    EXPECT_TRUE(is_alive(pid));
  }
  EXPECT_FALSE(exists(pid));
}

TEST(Child, TakesSignals) {
  Child child(sleep_for_ever);
  child.signal(SIGTERM);
  EXPECT_EQ(end_of(child), "was killed by SIGTERM");
  child.signal(SIGTERM);  // forgotten: to nobody, certainly not to -1
}

TEST(Child, CanBeMovedAndStaysOneChild) {
  Child first(sleep_for_ever), second(sleep_for_ever);
  const pid_t kept = second.pid(), replaced = first.pid();
  first = std::move(second);
  EXPECT_EQ(first.pid(), kept);
  EXPECT_FALSE(exists(replaced));
  const Child third(std::move(first));
  EXPECT_EQ(third.pid(), kept);
  EXPECT_TRUE(is_alive(kept));
}

TEST(Child, EndsWithAKilledParent) {
  int numbers[2];
  ASSERT_EQ(::pipe(numbers), 0);
  ipc::testing::Child parent([&] {
    const Child child(sleep_for_ever);
    const pid_t pid = child.pid();
    if (::write(numbers[1], &pid, sizeof pid) != sizeof pid) return 1;
    return sleep_for_ever();
  });
  pid_t grandchild = 0;
  ASSERT_EQ(::read(numbers[0], &grandchild, sizeof grandchild), static_cast<ssize_t>(sizeof grandchild));
  EXPECT_TRUE(is_alive(grandchild));
  ipc::testing::kill_child(parent.pid(), SIGKILL);
  EXPECT_TRUE(wait_until([&] { return !is_alive(grandchild); }));
  ::close(numbers[0]), ::close(numbers[1]);
}

}  // namespace
