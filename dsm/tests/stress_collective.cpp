// dsm_stress collective: broadcast and reduce, of all sizes, from and to every rank, against what each rank can work out
// alone.
#include <dsm/dsm.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <random>
#include <vector>

#include "dsm/tests/stress.hpp"

namespace stress {

namespace {

using Bytes = std::vector<unsigned char>;
using Draw = std::minstd_rand;  // the same in every rank

Bytes pattern(std::size_t n, std::uint64_t turn) {
  Bytes bytes(n);
  for (std::size_t i = 0; i < n; ++i) bytes[i] = static_cast<unsigned char>(turn * 31 + i * 7 + i / 251);
  return bytes;
}

bool broadcast(Draw& draw, std::uint64_t turn) {
  const int root = static_cast<int>(draw() % static_cast<unsigned>(DSM_NODE_NUM));
  const std::size_t n = draw() % (3 * dsm_page_size() * static_cast<unsigned>(DSM_NODE_NUM));
  const Bytes expected = pattern(n, turn);
  Bytes bytes = DSM_NODE_ID == root ? expected : Bytes(n);
  if (dsm_broadcast(root, bytes.data(), n) != 0) return (std::perror("dsm_broadcast"), false);
  return same("collective: a broadcast came as it was sent", 1, bytes == expected ? 1 : 0);
}

std::int64_t integer_of(int rank, std::size_t i) {
  return static_cast<std::int64_t>(i % 100 + 1) * (rank % 2 == 0 ? 3 : -5) + rank;
}
double real_of(int rank, std::size_t i) { return 1.0 / static_cast<double>(i + 3 + static_cast<std::size_t>(rank)); }

template <class T>
T combined(dsm_op op, T (*of)(int, std::size_t), std::size_t i) {
  T sum = of(0, i);
  for (int r = 1; r < DSM_NODE_NUM; ++r) {
    const T next = of(r, i);
    if (op == DSM_SUM) sum += next;
    if (op == DSM_PROD) sum *= next;
    if (op == DSM_MIN && next < sum) sum = next;
    if (op == DSM_MAX && next > sum) sum = next;
  }
  return sum;
}

template <class T>
bool reduce(Draw& draw, T (*of)(int, std::size_t), int (*call)(int, const T*, T*, std::size_t, dsm_op)) {
  const int root = static_cast<int>(draw() % static_cast<unsigned>(DSM_NODE_NUM));
  const auto op = static_cast<dsm_op>(draw() % 4);
  const std::size_t n = draw() % (3 * dsm_page_size() / sizeof(T));
  std::vector<T> in(n), out(n, T{-1});
  for (std::size_t i = 0; i < n; ++i) in[i] = of(DSM_NODE_ID, i);
  const bool in_place = draw() % 2 == 0;
  if (call(root, in.data(), in_place ? in.data() : out.data(), n, op) != 0) return (std::perror("dsm_reduce"), false);
  Word wrong = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const T untouched = in_place ? of(DSM_NODE_ID, i) : T{-1};
    const T found = in_place ? in[i] : out[i];
    if (found != (DSM_NODE_ID == root ? combined(op, of, i) : untouched)) ++wrong;
  }
  return same("collective: wrong results of a reduction", 0, wrong);
}

bool refuses() {
  double x = 0;
  errno = 0;
  bool ok = dsm_broadcast(DSM_NODE_NUM, &x, 1) == -1 && errno == EINVAL;
  ok = ok && dsm_broadcast(-1, &x, 1) == -1 && errno == EINVAL && dsm_broadcast(0, nullptr, 1) == -1 && errno == EINVAL;
  ok = ok && dsm_reduce_f64(0, nullptr, &x, 1, DSM_SUM) == -1 && errno == EINVAL;
  ok = ok && dsm_broadcast(0, nullptr, 0) == 0;
  return same("collective: what cannot be is EINVAL", 1, ok ? 1 : 0);
}

}  // namespace

bool collective(const Options& o) {
  Draw draw(o.seed);
  bool ok = refuses();
  for (std::uint64_t turn = 0; turn < o.rounds; ++turn) {
    ok = broadcast(draw, turn) && ok;
    ok = reduce<double>(draw, real_of, dsm_reduce_f64) && ok;
    ok = reduce<std::int64_t>(draw, integer_of, dsm_reduce_i64) && ok;
  }
  if (DSM_NODE_ID == 0) std::printf("collective: %llu rounds\n", static_cast<unsigned long long>(o.rounds));
  return ok;
}

}  // namespace stress
