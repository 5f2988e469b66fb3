#include "dsm/bench/report.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace bench {
namespace {

nlohmann::ordered_json to_value(const Figure& figure) {
  return {{"name", figure.name},   {"regime", figure.regime}, {"unit", figure.unit}, {"value", figure.value},
          {"limit", figure.limit}, {"ratio", figure.ratio},   {"n", figure.n},       {"messages", figure.messages}};
}

}  // namespace

std::string to_json(const Figure& figure) { return to_value(figure).dump(); }

Figure from_json(const std::string& text) {
  const auto value = nlohmann::json::parse(text);
  Figure figure;
  value.at("name").get_to(figure.name);
  value.at("regime").get_to(figure.regime);
  value.at("unit").get_to(figure.unit);
  value.at("value").get_to(figure.value);
  value.at("limit").get_to(figure.limit);
  value.at("ratio").get_to(figure.ratio);
  value.at("n").get_to(figure.n);
  value.at("messages").get_to(figure.messages);
  return figure;
}

std::string header() {
  return fmt::format("{:<12} {:<10} {:>10} {:>10} {:>6} {:>8} {:>9}", "figure", "regime", "value", "limit", "ratio",
                     "samples", "messages");
}

std::string row(const Figure& f) {
  const std::string messages = f.messages > 0 ? fmt::format("{:.2f}", f.messages) : "-";
  return fmt::format("{:<12} {:<10} {:>7.2f} {} {:>7.2f} {} {:>6.2f} {:>8} {:>9}", f.name, f.regime, f.value, f.unit,
                     f.limit, f.unit, f.ratio, f.n, messages);
}

std::string file(const std::vector<Figure>& figures) {
  auto list = nlohmann::ordered_json::array();
  for (const Figure& figure : figures) list.push_back(to_value(figure));
  return nlohmann::ordered_json{{"figures", list}}.dump(2) + "\n";
}

}  // namespace bench
