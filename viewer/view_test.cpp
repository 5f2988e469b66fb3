#include "viewer/view.hpp"

#include <gtest/gtest.h>

#include "viewer/layout.hpp"
#include "viewer/sample_test.hpp"

namespace viewer {
namespace {

constexpr Size screen{80, 24};

TEST(Keys, QuitLeavesFromEveryScreen) {
  View view;
  EXPECT_FALSE(apply(Key::quit, view, Model(), screen));
  view.help = true;
  EXPECT_FALSE(apply(Key::quit, view, Model(), {1, 1}));
}

TEST(Keys, AnyOtherKeyLeavesTheHelp) {
  for (const Key key : {Key::help, Key::other, Key::pause, Key::down}) {
    View view;
    EXPECT_TRUE(apply(Key::help, view, Model(), screen));
    EXPECT_TRUE(view.help);
    EXPECT_TRUE(apply(key, view, sample_model(), screen));
    EXPECT_FALSE(view.help);
    EXPECT_FALSE(view.paused);
    EXPECT_EQ(view.cursor, 0u);
  }
}

TEST(Keys, SpacePausesAndGoesOn) {
  View view;
  EXPECT_TRUE(apply(Key::pause, view, Model(), screen));
  EXPECT_TRUE(view.paused);
  EXPECT_TRUE(apply(Key::pause, view, Model(), screen));
  EXPECT_FALSE(view.paused);
}

TEST(Keys, ArrowsMoveTheCursorAndStayOnTheMap) {
  const Model model = sample_model();  // 64 pages: one row of 64 cells, two rows on a narrow screen
  View view;
  const auto press = [&](Key key, Size size) {
    EXPECT_TRUE(apply(key, view, model, size));
    return view.cursor;
  };
  EXPECT_EQ(press(Key::left, screen), 0u);
  EXPECT_EQ(press(Key::up, screen), 0u);
  EXPECT_EQ(press(Key::down, screen), 0u);
  EXPECT_EQ(press(Key::right, screen), 1u);
  EXPECT_EQ(press(Key::down, {40, 10}), 33u);
  EXPECT_EQ(press(Key::down, {40, 10}), 33u);
  EXPECT_EQ(press(Key::up, {40, 10}), 1u);
  view.cursor = 63;
  EXPECT_EQ(press(Key::right, screen), 63u);
  view.cursor = UINT64_MAX;  // the region shown has become smaller
  EXPECT_EQ(press(Key::left, screen), 62u);
}

TEST(Keys, ArrowsStepOverCells) {
  Model model;
  Snapshot s = sample_snapshot(1);
  s.pages_touched = {{100'000, 2, 0, 0, 0}};
  model.update(std::move(s));
  const Layout layout = lay_out(model, screen);
  ASSERT_GT(layout.pages_per_cell, 1u);
  View view;
  view.cursor = 1;  // within the first cell
  EXPECT_TRUE(apply(Key::right, view, model, screen));
  EXPECT_EQ(view.cursor, layout.pages_per_cell);
  EXPECT_TRUE(apply(Key::down, view, model, screen));
  EXPECT_EQ(view.cursor, layout.pages_per_cell * 65);
}

TEST(Keys, PagesScrollTheRanksToTheEndAndBack) {
  const Model model = sample_model(16, 1);
  const std::size_t rows = lay_out(model, screen).table_rows;
  ASSERT_LT(rows, 16u);
  View view;
  for (int i = 0; i < 9; ++i) EXPECT_TRUE(apply(Key::page_down, view, model, screen));
  EXPECT_EQ(view.first_rank, 16 - rows);
  for (int i = 0; i < 9; ++i) EXPECT_TRUE(apply(Key::page_up, view, model, screen));
  EXPECT_EQ(view.first_rank, 0u);
}

TEST(Keys, NothingToMoveOnDoesNoHarm) {
  for (const Key key : {Key::left, Key::right, Key::up, Key::down, Key::page_up, Key::page_down, Key::other}) {
    View view;
    Model untouched;
    untouched.update(sample_snapshot(1, 0));
    EXPECT_TRUE(apply(key, view, Model(), screen));
    EXPECT_TRUE(apply(key, view, untouched, screen));
    EXPECT_TRUE(apply(key, view, sample_model(), {3, 3}));
    EXPECT_EQ(view.cursor, 0u);
  }
}

}  // namespace
}  // namespace viewer
