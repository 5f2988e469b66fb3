// Who may do what.
#include "dsm/sysv/permissions.hpp"

#include <gtest/gtest.h>

namespace dsm::sysv {
namespace {

// Made by user 10 of group 20, now user 11's of group 21.
Permissions object(std::uint32_t mode) { return {.uid = 11, .gid = 21, .cuid = 10, .cgid = 20, .mode = mode}; }
Caller user(std::uint32_t uid, std::uint32_t gid, std::vector<std::uint32_t> groups = {}) {
  return {.uid = uid, .gid = gid, .groups = std::move(groups)};
}

TEST(Permissions, OwnerAndCreatorHaveTheOwnersBits) {
  EXPECT_TRUE(may_access(object(0600), user(11, 0), 0600));
  EXPECT_TRUE(may_access(object(0600), user(10, 0), 0600));
  EXPECT_FALSE(may_access(object(0400), user(11, 0), 0600));
}

TEST(Permissions, OwnersBitsCountEvenIfOthersHaveMore) {
  EXPECT_FALSE(may_access(object(0077), user(11, 21), 0400));
  EXPECT_FALSE(may_access(object(0077), user(10, 21), 0400));
  EXPECT_FALSE(may_access(object(0707), user(5, 21), 0400));
  EXPECT_TRUE(may_access(object(0707), user(5, 5), 0400));
}

TEST(Permissions, GroupIsTheEffectiveOneOrASupplementaryOne) {
  EXPECT_TRUE(may_access(object(0040), user(5, 21), 0444));
  EXPECT_TRUE(may_access(object(0040), user(5, 20), 0444));
  EXPECT_TRUE(may_access(object(0040), user(5, 5, {7, 21}), 0444));
  EXPECT_FALSE(may_access(object(0040), user(5, 5, {7, 8}), 0444));
}

TEST(Permissions, ABitInAnyClasssPlaceIsAskedOfTheCallersClass) {
  for (const std::uint32_t wanted : {0400U, 0040U, 0004U, 0444U}) {
    EXPECT_TRUE(may_access(object(0004), user(5, 5), wanted)) << wanted;
    EXPECT_FALSE(may_access(object(0002), user(5, 5), wanted)) << wanted;
  }
  EXPECT_TRUE(may_access(object(0), user(5, 5), 0));
  EXPECT_TRUE(may_access(object(0), user(5, 5), 07000)) << "IPC_CREAT, IPC_EXCL are no permissions";
}

TEST(Permissions, RootMayDoEverything) {
  EXPECT_TRUE(may_access(object(0), user(0, 0), 0777));
  EXPECT_TRUE(may_control(object(0), user(0, 0)));
}

TEST(Permissions, ControlIsForOwnerAndCreator) {
  EXPECT_TRUE(may_control(object(0), user(10, 0)));
  EXPECT_TRUE(may_control(object(0), user(11, 0)));
  EXPECT_FALSE(may_control(object(0777), user(5, 21)));
}

}  // namespace
}  // namespace dsm::sysv
