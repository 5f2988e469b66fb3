#include "dsm/bench/report.hpp"

#include <fmt/format.h>

#include <iterator>
#include <nlohmann/json.hpp>

namespace bench {
namespace {

nlohmann::json to_value(const Figure& figure) {
  return {{"name", figure.name},   {"regime", figure.regime}, {"unit", figure.unit}, {"value", figure.value},
          {"limit", figure.limit}, {"ratio", figure.ratio()}, {"n", figure.n},       {"messages", figure.messages}};
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
  value.at("n").get_to(figure.n);
  value.at("messages").get_to(figure.messages);
  return figure;
}

std::string table(const std::vector<Figure>& figures) {
  std::string text = fmt::format("{:<12} {:<10} {:>10} {:>10} {:>6} {:>8} {:>9}\n", "figure", "regime", "value",
                                 "limit", "ratio", "samples", "messages");
  for (const Figure& f : figures) {
    fmt::format_to(std::back_inserter(text), "{:<12} {:<10} {:>7.2f} {} {:>7.2f} {} {:>6.2f} {:>8} {:>9.2f}\n", f.name,
                   f.regime, f.value, f.unit, f.limit, f.unit, f.ratio(), f.n, f.messages);
  }
  return text;
}

std::string file(const std::vector<Figure>& figures) {
  nlohmann::json list = nlohmann::json::array();
  for (const Figure& figure : figures) list.push_back(to_value(figure));
  return nlohmann::json{{"figures", list}}.dump(2) + "\n";
}

}  // namespace bench
