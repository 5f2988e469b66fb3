#include "dsm/telemetry/snapshot.hpp"

#include <algorithm>
#include <array>
#include <functional>
#include <iterator>
#include <utility>

namespace dsm::telemetry {
namespace {

// Layout: magic (4), version (1), then varints (LEB128; signed ones zigzag) and strings (length, bytes), in the order of
// put_job, put_rank, put_pages below. Nothing may follow.
constexpr std::string_view magic = "DSTS";
constexpr char version = 1;
constexpr std::uint64_t max_pages = std::uint64_t{1} << 32;
constexpr std::uint32_t at_home = 256;  // in the column of owners: the page's home; no rank has this number

using Column = std::vector<std::uint32_t>;

class Writer {
 public:
  void number(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) out_.push_back(static_cast<char>(value | 0x80));
    out_.push_back(static_cast<char>(value));
  }
  void signed_number(std::int64_t value) {
    number((static_cast<std::uint64_t>(value) << 1) ^ static_cast<std::uint64_t>(value >> 63));
  }
  void text(std::string_view text) {
    text = text.substr(0, max_text_bytes);
    number(text.size());
    out_.append(text);
  }
  void raw(std::string_view bytes) { out_.append(bytes); }
  [[nodiscard]] std::string take() { return std::move(out_); }

 private:
  std::string out_;
};

// Every read says whether it went well; after the first failure all fail.
class Reader {
 public:
  explicit Reader(std::string_view in) : in_(in) {}

  [[nodiscard]] bool number(std::uint64_t& out, std::uint64_t max = UINT64_MAX) {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64 && !in_.empty(); shift += 7) {
      const auto byte = static_cast<unsigned char>(in_.front());
      in_.remove_prefix(1);
      if (shift == 63 && byte > 1) break;
      value |= std::uint64_t{byte & 0x7fu} << shift;
      if ((byte & 0x80u) == 0) {
        out = value;
        return value <= max || fail();
      }
    }
    return fail();
  }
  template <class Small>
  [[nodiscard]] bool small(Small& out, std::uint64_t max) {
    std::uint64_t value = 0;
    if (!number(value, max)) return false;
    out = static_cast<Small>(value);
    return true;
  }
  [[nodiscard]] bool signed_number(std::int64_t& out) {
    std::uint64_t value = 0;
    if (!number(value)) return false;
    out = static_cast<std::int64_t>((value >> 1) ^ (~(value & 1) + 1));
    return true;
  }
  [[nodiscard]] bool text(std::string& out) {
    std::uint64_t size = 0;
    if (!number(size, max_text_bytes) || size > in_.size()) return fail();
    out = in_.substr(0, size);
    in_.remove_prefix(size);
    return true;
  }
  [[nodiscard]] bool literal(std::string_view expected) {
    if (!in_.starts_with(expected)) return fail();
    in_.remove_prefix(expected.size());
    return true;
  }
  [[nodiscard]] bool at_end() const { return in_.empty(); }

 private:
  bool fail() {
    in_ = {};
    return false;
  }
  std::string_view in_;
};

void put_column(Writer& out, const Column& column) {
  for (std::size_t i = 0; i < column.size();) {
    std::size_t end = i + 1;
    while (end < column.size() && column[end] == column[i]) ++end;
    out.number(column[i]);
    out.number(end - i);
    i = end;
  }
}

[[nodiscard]] bool get_column(Reader& in, std::size_t count, std::uint64_t max, Column& out) {
  out.clear();
  out.reserve(count);
  while (out.size() < count) {
    std::uint64_t value = 0, length = 0;
    if (!in.number(value, max) || !in.number(length, count - out.size()) || length == 0) return false;
    out.insert(out.end(), length, static_cast<std::uint32_t>(value));
  }
  return true;
}

// Pages as arithmetic runs (gap to the last page, stride, length): cyclic homes give each rank every n-th page.
void put_page_numbers(Writer& out, const PageSample* pages, std::size_t count) {
  std::uint64_t next = 0;
  for (std::size_t i = 0; i < count;) {
    std::size_t end = i + 1;
    const std::uint64_t stride = end < count ? pages[end].page - pages[i].page : 1;
    while (end < count && pages[end].page - pages[end - 1].page == stride) ++end;
    out.number(pages[i].page - next);
    out.number(stride);
    out.number(end - i);
    next = std::uint64_t{pages[end - 1].page} + 1;
    i = end;
  }
}

[[nodiscard]] bool get_page_numbers(Reader& in, std::uint64_t pages, std::vector<PageSample>& out, std::size_t count) {
  std::uint64_t next = 0;
  while (out.size() < count) {
    std::uint64_t gap = 0, stride = 0, length = 0;
    if (!in.number(gap, pages) || !in.number(stride, pages) || !in.number(length, count - out.size())) return false;
    // All three are at most 2^32, so that nothing here overflows.
    if (length == 0 || stride == 0 || next + gap + (length - 1) * stride >= pages) return false;
    for (std::uint64_t i = 0; i < length; ++i) {
      out.push_back(PageSample{.page = static_cast<std::uint32_t>(next + gap + i * stride)});
    }
    next = std::uint64_t{out.back().page} + 1;
  }
  return true;
}

[[nodiscard]] Column column_of(const PageSample* pages, std::size_t count,
                               const std::function<std::uint32_t(const PageSample&)>& value) {
  Column column(count);
  std::transform(pages, pages + count, column.begin(), value);
  return column;
}

// The shorter of two ways to say the same column, `which` first.
void put_shorter(Writer& out, const Column& plain, const Column& relative) {
  Writer a, b;
  put_column(a, plain);
  put_column(b, relative);
  const std::string first = a.take(), second = b.take();
  const bool use_second = second.size() < first.size();
  out.number(use_second ? 1 : 0);
  out.raw(use_second ? second : first);
}

void put_pages(Writer& out, const Snapshot& s, std::size_t count) {
  const PageSample* pages = s.pages_touched.data();
  out.number(count);
  put_page_numbers(out, pages, count);
  put_column(out, column_of(pages, count, [](const PageSample& p) { return std::uint32_t{p.state}; }));
  // Homes are cyclic more often than not: then page number and home differ by a constant modulo the number of homes.
  std::uint32_t homes = 1;
  for (std::size_t i = 0; i < count; ++i) homes = std::max(homes, pages[i].home + 1u);
  out.number(homes);
  put_shorter(out, column_of(pages, count, [](const PageSample& p) { return std::uint32_t{p.home}; }),
              column_of(pages, count, [=](const PageSample& p) { return (p.home + homes - p.page % homes) % homes; }));
  put_shorter(out, column_of(pages, count, [](const PageSample& p) { return std::uint32_t{p.owner}; }),
              column_of(pages, count, [](const PageSample& p) { return p.owner == p.home ? at_home : p.owner; }));
  put_column(out, column_of(pages, count, [](const PageSample& p) { return p.moves; }));
}

[[nodiscard]] bool get_pages(Reader& in, Snapshot& s) {
  std::uint64_t count = 0, homes = 0, relative = 0;
  if (!in.number(count, std::min<std::uint64_t>(s.pages, max_pages_touched))) return false;
  s.pages_touched.reserve(count);
  if (!get_page_numbers(in, s.pages, s.pages_touched, count)) return false;
  Column column;
  if (!get_column(in, count, 3, column)) return false;
  for (std::size_t i = 0; i < count; ++i) s.pages_touched[i].state = static_cast<std::uint8_t>(column[i]);

  if (!in.number(homes, 256) || homes == 0 || !in.number(relative, 1)) return false;
  if (!get_column(in, count, homes - 1, column)) return false;
  for (std::size_t i = 0; i < count; ++i) {
    PageSample& page = s.pages_touched[i];
    page.home = static_cast<std::uint8_t>(relative == 1 ? (column[i] + page.page % homes) % homes : column[i]);
  }

  if (!in.number(relative, 1) || !get_column(in, count, relative == 1 ? at_home : 255, column)) return false;
  for (std::size_t i = 0; i < count; ++i) {
    PageSample& page = s.pages_touched[i];
    page.owner = column[i] == at_home ? page.home : static_cast<std::uint8_t>(column[i]);
  }

  if (!get_column(in, count, UINT32_MAX, column)) return false;
  for (std::size_t i = 0; i < count; ++i) s.pages_touched[i].moves = column[i];
  return true;
}

constexpr std::array<std::uint64_t RankSample::*, 11> rank_counters = {
    &RankSample::read_faults,   &RankSample::write_faults,  &RankSample::messages, &RankSample::bytes_out,
    &RankSample::bytes_in,      &RankSample::invalidations, &RankSample::recalls,  &RankSample::grants,
    &RankSample::wasted_grants, &RankSample::lock_waits,    &RankSample::barriers};

void put_rank(Writer& out, const RankSample& rank) {
  out.number(rank.rank);
  out.text(rank.host);
  out.signed_number(rank.pid);
  out.number(static_cast<std::uint32_t>(rank.state));
  out.number(rank.on_page);
  for (auto counter : rank_counters) out.number(rank.*counter);
  out.signed_number(rank.owned);
  out.signed_number(rank.copies);
}

[[nodiscard]] bool get_rank(Reader& in, RankSample& rank) {
  if (!in.small(rank.rank, UINT32_MAX) || !in.text(rank.host) || !in.signed_number(rank.pid) ||
      !in.small(rank.state, static_cast<std::uint32_t>(RankState::lost)) || !in.number(rank.on_page)) {
    return false;
  }
  for (auto counter : rank_counters) {
    if (!in.number(rank.*counter)) return false;
  }
  return in.signed_number(rank.owned) && in.signed_number(rank.copies);
}

[[nodiscard]] bool get_ranks(Reader& in, std::vector<RankSample>& ranks) {
  std::uint64_t count = 0;
  if (!in.number(count, max_rank_samples)) return false;
  ranks.resize(count);
  for (std::size_t i = 0; i < count; ++i) {
    if (!get_rank(in, ranks[i]) || (i > 0 && ranks[i].rank <= ranks[i - 1].rank)) return false;
  }
  return true;
}

}  // namespace

std::string encode(const Snapshot& s) {
  Writer out;
  out.raw(magic);
  out.raw({&version, 1});
  out.text(s.job);
  out.text(s.program);
  out.text(s.protocol);
  out.number(s.page_size);
  out.number(s.pages);
  out.number(s.elapsed_us);
  out.number(s.ended ? 1 : 0);
  const std::size_t ranks = std::min(s.ranks.size(), max_rank_samples);
  out.number(ranks);
  for (std::size_t i = 0; i < ranks; ++i) put_rank(out, s.ranks[i]);
  const std::size_t count = std::min(s.pages_touched.size(), max_pages_touched);
  out.number(s.pages_left_out + (s.pages_touched.size() - count));
  put_pages(out, s, count);
  return out.take();
}

std::optional<Snapshot> decode(std::string_view bytes) {
  Reader in(bytes);
  Snapshot s;
  if (!in.literal(magic) || !in.literal({&version, 1})) return std::nullopt;
  if (!in.text(s.job) || !in.text(s.program) || !in.text(s.protocol)) return std::nullopt;
  if (!in.number(s.page_size) || !in.number(s.pages, max_pages) || !in.number(s.elapsed_us) || !in.small(s.ended, 1)) {
    return std::nullopt;
  }
  if (!get_ranks(in, s.ranks) || !in.number(s.pages_left_out) || !get_pages(in, s)) return std::nullopt;
  if (!in.at_end()) return std::nullopt;
  return s;
}

void merge(Snapshot& into, const Snapshot& part) {
  if (into.protocol.empty()) into.protocol = part.protocol;
  if (into.page_size == 0) into.page_size = part.page_size;
  into.pages = std::max(into.pages, part.pages);
  into.pages_left_out += part.pages_left_out;

  const auto by_rank = [](const RankSample& a, std::uint32_t rank) { return a.rank < rank; };
  for (const RankSample& theirs : part.ranks) {
    auto at = std::lower_bound(into.ranks.begin(), into.ranks.end(), theirs.rank, by_rank);
    if (at == into.ranks.end() || at->rank != theirs.rank) {
      into.ranks.insert(at, theirs);
      continue;
    }
    std::string host = theirs.host.empty() ? std::move(at->host) : theirs.host;
    const std::int64_t pid = theirs.pid == 0 ? at->pid : theirs.pid;
    *at = theirs;
    at->host = std::move(host);
    at->pid = pid;
  }

  // set_union takes equal elements from its first range: the part's.
  std::vector<PageSample> united;
  united.reserve(into.pages_touched.size() + part.pages_touched.size());
  std::set_union(part.pages_touched.begin(), part.pages_touched.end(), into.pages_touched.begin(),
                 into.pages_touched.end(), std::back_inserter(united),
                 [](const PageSample& a, const PageSample& b) { return a.page < b.page; });
  into.pages_touched = std::move(united);
}

}  // namespace dsm::telemetry
