#include "viewer/json.hpp"

#include <nlohmann/json.hpp>

#include "dsm/core/coherence.hpp"
#include "viewer/text.hpp"

namespace viewer {

std::string to_json(const dsm::telemetry::Snapshot& s) {
  using nlohmann::ordered_json;
  using State = dsm::core::View::State;
  ordered_json ranks = ordered_json::array(), pages = ordered_json::array();
  for (const RankSample& r : s.ranks) {
    ranks.push_back({{"rank", r.rank},
                     {"host", r.host},
                     {"pid", r.pid},
                     {"state", rank_state(r.state)},
                     {"owned", r.owned},
                     {"copies", r.copies},
                     {"read_faults", r.read_faults},
                     {"write_faults", r.write_faults},
                     {"bytes_in", r.bytes_in},
                     {"bytes_out", r.bytes_out},
                     {"messages", r.messages},
                     {"invalidations", r.invalidations},
                     {"recalls", r.recalls},
                     {"grants", r.grants},
                     {"wasted_grants", r.wasted_grants},
                     {"lock_waits", r.lock_waits},
                     {"barriers", r.barriers}});
  }
  for (const PageSample& p : s.pages_touched) {
    const auto state = static_cast<State>(p.state);
    ordered_json owner;  // null
    if (state == State::exclusive) owner = p.owner;
    if (state == State::shared) owner = p.home;
    pages.push_back(
        {{"page", p.page}, {"owner", owner}, {"home", p.home}, {"state", page_state(p.state)}, {"moves", p.moves}});
  }
  const ordered_json whole = {{"job", s.job},
                              {"program", s.program},
                              {"protocol", s.protocol},
                              {"elapsed_us", s.elapsed_us},
                              {"ended", s.ended},
                              {"page_size", s.page_size},
                              {"region_pages", s.pages},
                              {"pages_left_out", s.pages_left_out},
                              {"ranks", std::move(ranks)},
                              {"pages", std::move(pages)}};
  return whole.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

}  // namespace viewer
