// viewer/sample_test.hpp - made-up snapshots for the tests.
#pragma once
#include <cstdint>
#include <utility>

#include "viewer/model.hpp"

namespace viewer {

inline Snapshot sample_snapshot(std::uint64_t elapsed_us, std::uint32_t ranks = 4) {
  Snapshot s;
  s.job = "demo-4711";
  s.program = "demo";
  s.protocol = "msi";
  s.page_size = 4096;
  s.pages = 262144;
  s.elapsed_us = elapsed_us;
  const std::uint64_t t = elapsed_us / 100'000;
  for (std::uint32_t i = 0; i < ranks; ++i) {
    RankSample r;
    r.rank = i;
    r.host = "node" + std::to_string(i);
    r.pid = 4712 + i;
    r.state = static_cast<RankState>(1 + i % 4);
    r.on_page = 26 + i;
    r.read_faults = t * (i + 1);
    r.write_faults = t * 2;
    r.bytes_in = t * 4096 * (i + 1);
    r.bytes_out = t * 5000;
    r.owned = 10 + i;
    r.copies = 3;
    s.ranks.push_back(r);
  }
  return s;
}

// 64 pages, homes cyclic, owned in blocks of 16; page 0x13 goes to and fro, 0x2a is on its way, 0x30..0x33 are shared,
// 0x20 is untouched, 0x3f moved once.
inline void add_pages(Snapshot& s) {
  const std::uint64_t t = s.elapsed_us / 100'000;
  for (std::uint32_t page = 0; page < 64; ++page) {
    if (page == 0x20) continue;
    PageSample p{page, 2, static_cast<std::uint8_t>(page / 16), static_cast<std::uint8_t>(page % 4), 1};
    if (page % 4 == page / 16) p.moves = 0;
    if (page == 0x13) p.owner = static_cast<std::uint8_t>(1 + t % 2), p.moves = static_cast<std::uint32_t>(t);
    if (page == 0x2a) p.state = 3;
    if (page >= 0x30 && page < 0x34) p.state = 1, p.owner = p.home;
    s.pages_touched.push_back(p);
  }
}

// A job watched for `seconds`, ten times a second.
inline Model sample_model(std::uint32_t ranks = 4, std::uint64_t seconds = 12) {
  Model model;
  for (std::uint64_t t = 0; t <= seconds * 10; ++t) {
    Snapshot s = sample_snapshot(t * 100'000, ranks);
    add_pages(s);
    model.update(std::move(s));
  }
  return model;
}

}  // namespace viewer
