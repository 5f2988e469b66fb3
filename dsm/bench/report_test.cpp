#include "dsm/bench/report.hpp"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace bench {
namespace {

const Figure figure{"read_miss", "one_core", "us", 30, 20, 1.25, 1000, 2};

TEST(Report, a_figure_survives_its_journey_from_the_rank) {
  const Figure back = from_json(to_json(figure));
  EXPECT_EQ(back.name, "read_miss");
  EXPECT_EQ(back.regime, "one_core");
  EXPECT_EQ(back.unit, "us");
  EXPECT_EQ(back.value, 30);
  EXPECT_EQ(back.limit, 20);
  EXPECT_EQ(back.ratio, 1.25);
  EXPECT_EQ(back.n, 1000U);
  EXPECT_EQ(back.messages, 2);
}

TEST(Report, the_file_has_every_figure_with_its_ratio) {
  const auto value = nlohmann::json::parse(file({figure, figure}));
  ASSERT_EQ(value.at("figures").size(), 2U);
  EXPECT_DOUBLE_EQ(value["figures"][0].at("ratio").get<double>(), 1.25);
  EXPECT_EQ(value["figures"][0].size(), 8U);
}

TEST(Report, what_is_no_figure_is_refused) {
  EXPECT_THROW(static_cast<void>(from_json("hello")), nlohmann::json::exception);
  EXPECT_THROW(static_cast<void>(from_json("{}")), nlohmann::json::exception);
}

TEST(Report, the_columns_stand_under_their_names) {
  EXPECT_EQ(header(), "figure       regime          value      limit  ratio  samples  messages");
  EXPECT_EQ(row(figure), "read_miss    one_core     30.00 us   20.00 us   1.25     1000      2.00");
  const Figure uncounted{"sysv_attach", "sigsegv", "us", 30, 20, 1.25, 1000, 0};
  EXPECT_EQ(row(uncounted), "sysv_attach  sigsegv      30.00 us   20.00 us   1.25     1000         -");
}

}  // namespace
}  // namespace bench
