#include "viewer/json.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "viewer/sample_test.hpp"

namespace viewer {
namespace {

using nlohmann::json;

TEST(Json, HasWhatScriptsRelyOn) {
  Snapshot s = sample_snapshot(12'000'000);
  s.pages_touched = {{3, 2, 1, 3, 9}, {4, 1, 2, 2, 0}, {7, 3, 1, 0, 5}};
  const std::string text = to_json(s);
  EXPECT_EQ(text.find('\n'), std::string::npos);
  const json j = json::parse(text);
  EXPECT_EQ(j.at("job"), "demo-4711");
  EXPECT_EQ(j.at("protocol"), "msi");
  EXPECT_EQ(j.at("ended"), false);
  ASSERT_EQ(j.at("ranks").size(), 4u);
  const json& rank = j["ranks"][1];
  EXPECT_EQ(rank.at("rank"), 1);
  EXPECT_EQ(rank.at("host"), "node1");
  EXPECT_EQ(rank.at("state"), "fault");
  EXPECT_EQ(rank.at("owned"), 11);
  EXPECT_EQ(rank.at("copies"), 3);
  EXPECT_EQ(rank.at("read_faults"), 240);
  EXPECT_EQ(rank.at("write_faults"), 240);
  EXPECT_EQ(rank.at("bytes_in"), 120 * 4096 * 2);
  EXPECT_EQ(rank.at("bytes_out"), 600000);
  const json expected = json::parse(R"([
    {"page": 3, "owner": 1, "home": 3, "state": "exclusive", "moves": 9},
    {"page": 4, "owner": 2, "home": 2, "state": "shared", "moves": 0},
    {"page": 7, "owner": null, "home": 0, "state": "moving", "moves": 5}])");
  EXPECT_EQ(j.at("pages"), expected);
}

TEST(Json, OfAnEmptyJobHasEmptyLists) {
  const json j = json::parse(to_json(Snapshot{}));
  EXPECT_TRUE(j.at("ranks").is_array() && j["ranks"].empty());
  EXPECT_TRUE(j.at("pages").is_array() && j["pages"].empty());
}

TEST(Json, OnePageAndOneRankAreStillLists) {
  Snapshot s = sample_snapshot(1, 1);
  s.pages_touched = {{3, 2, 1, 3, 9}};
  const json j = json::parse(to_json(s));
  EXPECT_EQ(j.at("pages").size(), 1u);
  EXPECT_TRUE(j["pages"][0].is_object());
  EXPECT_TRUE(j["ranks"][0].is_object());
}

TEST(Json, NamesThatAreNoUtf8AreReplaced) {
  Snapshot s = sample_snapshot(1, 1);
  s.ranks[0].host =
      "a\xff"
      "b\"";
  EXPECT_EQ(json::parse(to_json(s))["ranks"][0]["host"],
            "a\xef\xbf\xbd"
            "b\"");
}

}  // namespace
}  // namespace viewer
