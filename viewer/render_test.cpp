// Golden pictures: viewer/golden/*.txt. After a wanted change, `DSM_WRITE_GOLDEN=1 .../viewer_test` writes them anew;
// look at the difference before keeping it. Run from the top of the repository.
#include "viewer/render.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "viewer/layout.hpp"
#include "viewer/sample_test.hpp"
#include "viewer/text.hpp"

namespace viewer {
namespace {

void expect_golden(const std::string& name, const Grid& grid) {
  const std::string path = "viewer/golden/" + name + ".txt", text = grid.text();
  if (std::getenv("DSM_WRITE_GOLDEN") != nullptr) std::ofstream(path) << text;
  std::ifstream file(path);
  ASSERT_TRUE(file) << path << " cannot be read; run from the top of the repository";
  std::ostringstream expected;
  expected << file.rdbuf();
  EXPECT_EQ(text, expected.str()) << path;
}

View cursor_at(std::uint64_t page) {
  View view;
  view.cursor = page;
  return view;
}

std::string line(const Grid& grid, int y) {
  std::istringstream lines(grid.text());
  std::string out;
  for (int i = 0; i <= y; ++i) std::getline(lines, out);
  return out;
}

TEST(Golden, FirstScreen80x24) { expect_golden("first-80x24", render(sample_model(), cursor_at(0x13), {80, 24})); }

TEST(Golden, FirstScreen40x10) { expect_golden("first-40x10", render(sample_model(), cursor_at(0x13), {40, 10})); }

TEST(Golden, FirstScreenUtf8) {
  View view = cursor_at(0x2a);
  view.utf8 = true;
  expect_golden("first-80x24-utf8", render(sample_model(), view, {80, 24}));
}

TEST(Golden, WideScreen160x48) { expect_golden("first-160x48", render(sample_model(), cursor_at(0x31), {160, 48})); }

TEST(Golden, ManyRanks) {
  View view = cursor_at(0);
  view.first_rank = 24;
  expect_golden("ranks-80x24", render(sample_model(40), view, {80, 24}));
}

TEST(Golden, ManyPages) {
  Model model;
  for (const std::uint64_t t : {0u, 500u}) {
    Snapshot s = sample_snapshot(t * 1000);
    for (std::uint32_t page = 0; page < 16384; page += page % 512 == 511 ? 17 : 1) {
      s.pages_touched.push_back({page, static_cast<std::uint8_t>(page % 4096 < 512 ? 1 : 2),
                                 static_cast<std::uint8_t>(page / 4100), static_cast<std::uint8_t>(page / 4096),
                                 page % 1000 == 7 ? static_cast<std::uint32_t>(t) : 1});
    }
    model.update(std::move(s));
  }
  expect_golden("pages-80x24", render(model, cursor_at(7), {80, 24}));
}

TEST(Golden, Help) {
  View view;
  view.help = true;
  expect_golden("help-80x24", render(sample_model(), view, {80, 24}));
  expect_golden("help-40x10", render(sample_model(), view, {40, 10}));
}

TEST(Golden, Waiting) {
  View view;
  view.notice = "No job of yours is running on this host. Waiting for one to be started with dsmexec ...";
  expect_golden("waiting-40x10", render(Model(), view, {40, 10}));
}

TEST(Golden, BeforeAnyRankJoined) {
  Model model;
  Snapshot s = sample_snapshot(0);
  s.protocol.clear();
  s.page_size = s.pages = 0;
  for (RankSample& rank : s.ranks) {
    rank = RankSample{.rank = rank.rank, .host = rank.host, .pid = rank.pid};
  }
  model.update(std::move(s));
  expect_golden("starting-80x24", render(model, {}, {80, 24}));
}

TEST(Render, SaysSoWhenTheTerminalIsTooSmall) {
  for (const Size size : {Size{39, 10}, Size{40, 9}, Size{1, 1}, Size{0, 0}, Size{39, 1}}) {
    const Grid grid = render(sample_model(), {}, size);
    EXPECT_EQ(grid.size(), size);
    const std::string said = line(grid, 0), whole = "terminal too small";
    EXPECT_TRUE(said.starts_with(whole.substr(0, static_cast<std::size_t>(size.width)))) << said;
  }
}

TEST(Render, IsTotalOverSizesRanksAndCursors) {
  for (const std::uint32_t ranks : {0u, 1u, 7u, 64u}) {
    const Model model = sample_model(ranks, 2);
    for (int width = 1; width < 200; width += 13) {
      for (int height = 1; height < 60; height += 7) {
        for (const std::uint64_t cursor : {std::uint64_t{0}, std::uint64_t{63}, UINT64_MAX}) {
          View view = cursor_at(cursor);
          view.first_rank = 60;
          EXPECT_EQ(render(model, view, {width, height}).size(), (Size{width, height}));
          EXPECT_EQ(render(Model(), view, {width, height}).size(), (Size{width, height}));
        }
      }
    }
  }
}

TEST(Render, TheStatusIsLivePausedOrEnded) {
  Model model = sample_model();
  const auto header = [&](const View& view) { return line(render(model, view, {80, 24}), 0); };
  View view;
  EXPECT_NE(header(view).find("LIVE 00:12.0"), std::string::npos);
  view.paused = true;
  EXPECT_NE(header(view).find("PAUSED 00:12.0"), std::string::npos);
  view.gone = true;
  EXPECT_NE(header(view).find("ENDED"), std::string::npos);
  Snapshot last = sample_snapshot(13'000'000);
  last.ended = true;
  model.update(last);
  EXPECT_NE(header({}).find("ENDED 00:13.0"), std::string::npos);
}

TEST(Render, WithoutUtf8EverythingIsAscii) {
  const Grid grid = render(sample_model(), cursor_at(1), {160, 48});
  for (const char c : grid.text()) ASSERT_GE(c, '\n') << "a byte beyond ASCII";
}

TEST(Render, AllPagesUpToTheHighestTouchedFit) {
  for (const std::uint32_t highest : {0u, 1u, 511u, 512u, 4095u, 65535u, 262143u, UINT32_MAX - 1}) {
    Model model;
    Snapshot s = sample_snapshot(1);
    s.pages = std::uint64_t{1} << 32;
    s.pages_touched = {{highest, 2, 3, 0, 0}};
    model.update(std::move(s));
    for (const Size size : {Size{80, 24}, Size{40, 10}}) {
      const Layout layout = lay_out(model, size);
      EXPECT_LE(layout.cells(), static_cast<std::uint64_t>(layout.cells_per_row * layout.map_rows)) << highest;
      EXPECT_EQ(layout.pages, std::uint64_t{highest} + 1);
      const std::string text = render(model, cursor_at(highest), size).text();
      EXPECT_NE(text.find("exclusive D, home A"), std::string::npos) << text;
    }
  }
}

TEST(Render, CaseTellsExclusiveFromSharedAlsoBeyondZ) {
  EXPECT_EQ(rank_letter(0, true), 'A');
  EXPECT_EQ(rank_letter(25, false), 'z');
  EXPECT_EQ(rank_letter(26, true), '#');
  EXPECT_EQ(rank_letter(63, false), '+');
  EXPECT_EQ(rank_name(26), "#26");
}

TEST(Text, NumbersFitTheirColumns) {
  EXPECT_EQ(count_text(1234567, 7), "1234567");
  EXPECT_EQ(count_text(12345678, 7), " 12346k");
  EXPECT_EQ(count_text(12345678, 0), "12345678");
  for (double value = 1; value < 1e19; value *= 9.99) EXPECT_EQ(count_text(value, 5).size(), 5u) << value;
  EXPECT_EQ(rate_text(std::nullopt, 4), "   -");
  EXPECT_EQ(rate_text(0, 4), "   0");
  EXPECT_EQ(rate_text(0.25, 4), " 0.2");
  EXPECT_EQ(rate_text(9.96, 4), "  10");
  EXPECT_EQ(elapsed_text(12'480'000), "00:12.4");
  EXPECT_EQ(elapsed_text(3'723'000'000), "1:02:03");
  EXPECT_EQ(size_text(4096), "4K");
  EXPECT_EQ(size_text(2u << 20), "2M");
  EXPECT_EQ(size_text(1000), "1000");
}

}  // namespace
}  // namespace viewer
