#include "viewer/grid.hpp"

#include <gtest/gtest.h>

namespace viewer {
namespace {

TEST(Grid, ClipsAtEveryEdge) {
  Grid grid({4, 2});
  EXPECT_EQ(grid.put(-2, 0, "abcdefgh"), 6);
  grid.put(0, -1, "xxxx");
  grid.put(0, 2, "xxxx");
  grid.restyle(-5, 0, 100, {1, true, true});
  grid.fill(7, U'x');
  EXPECT_EQ(grid.text(), "cdef\n\n");
}

TEST(Grid, WhatAJobSaysCannotSteerTheTerminal) {
  Grid grid({12, 1});
  grid.put(0, 0, "\x1b[2Ja\n\xc3\xa9\x7f\t");
  EXPECT_EQ(grid.text(), "?[2Ja?????\n");
}

TEST(Grid, StylesAreSaidOnceAndEndWithTheLine) {
  Grid grid({3, 2});
  grid.put(0, 0, "abc", {2, true, false});
  grid.put(1, 1, U'▁', {0, false, true});
  EXPECT_EQ(grid.ansi(), "\x1b[0;1;32mabc\x1b[0m\n \x1b[0;7m▁\x1b[0m \n");
}

TEST(Grid, ANegativeSizeIsEmpty) { EXPECT_EQ(Grid({-1, 5}).text(), "\n\n\n\n\n"); }

}  // namespace
}  // namespace viewer
