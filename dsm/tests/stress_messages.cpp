// dsm_stress messages: what each operation costs, in messages; counted by libdsm, and by the kernel.
//
// tcp(7), TCP_INFO: tcpi_data_segs_out counts the segments with data that a socket has sent. On loopback a page and its
// header fit into one segment, and one thing happens at a time: so the two must agree.
#include <dirent.h>
#include <dsm/dsm.h>
#include <netinet/in.h>
#include <sys/socket.h>
// glibc's <netinet/tcp.h> lacks the field.
#include <linux/tcp.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "dsm/tests/stress.hpp"

namespace stress {

namespace {

constexpr int ranks = 4;

struct Step {
  const char* what;
  int actor;  // -1: all ranks
  std::function<bool()> act;
  Word msi, migrate;  // messages, of all ranks together
};

// The connection to the coordinator carries what is no message between ranks.
bool leads_to_the_coordinator(int fd) {
  sockaddr_storage peer{};
  socklen_t size = sizeof peer;
  if (::getpeername(fd, reinterpret_cast<sockaddr*>(&peer), &size) == -1) return false;
  const in_port_t port = peer.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6&>(peer).sin6_port
                                                    : reinterpret_cast<sockaddr_in&>(peer).sin_port;
  return std::to_string(ntohs(port)) == std::getenv("DSMEXEC_PORTNUM");
}

struct Count {
  Word messages, segments;
};

// Segments with data that this process has sent to other ranks. The kernel may send one once more though none is lost: on
// a busy machine the acknowledgement is late, and after two round trips it probes (RFC 8985, 7: tail loss probe).
Word segments_sent() {
  Word sum = 0;
  DIR* const folder = ::opendir("/proc/self/fd");
  while (const dirent* const entry = ::readdir(folder)) {
    const int fd = std::atoi(entry->d_name);
    tcp_info info{};
    socklen_t size = sizeof info;
    if (::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == -1 || leads_to_the_coordinator(fd)) continue;
    sum += info.tcpi_data_segs_out - info.tcpi_total_retrans;
  }
  ::closedir(folder);
  return sum;
}

Word messages_sent() {
  struct dsm_stats stats {};
  dsm_stats(&stats);
  return stats.messages;
}

// What this rank has sent since `begin`. A message is counted when it is put into its connection's queue, and the thread
// that put it there may be about to send it: so as long as there are fewer segments, it looks again, for a while.
Count sent_since(const Count& begin) {
  Count now{};
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  do {
    now = {messages_sent() - begin.messages, segments_sent() - begin.segments};
  } while (now.segments < now.messages && std::chrono::steady_clock::now() < deadline);
  return now;
}

std::vector<Step> steps(volatile char* page, const unsigned lock) {
  const auto read = [page] { return page[1] < 2; };
  const auto write = [page] { return page[1] = 1, true; };
  auto* const word = reinterpret_cast<std::uint64_t*>(const_cast<char*>(page)) + 1;
  const auto count = [word] { return dsm_fetch_add_u64(word, 1) < 100; };
  const auto use_lock = [lock] { return dsm_lock(lock) == 0 && dsm_unlock(lock) == 0; };
  const auto try_lock = [lock] { return dsm_trylock(lock) == 0 && dsm_unlock(lock) == 0; };
  return {
      {"a home writes its page", 0, write, 0, 0},
      {"a clean miss", 1, read, 2, 2},
      {"another reader", 2, read, 2, 4},
      {"a third", 3, read, 2, 4},
      {"an upgrade, with 2 other readers", 1, write, 2 + 2 * 2, 4},
      {"a dirty miss", 2, read, 4, 4},
      {"the home writes, with 2 readers", 0, write, 2 * 2, 2},
      {"a hit", 0, write, 0, 0},
      {"a write miss", 1, write, 2, 2},
      {"the home reads what another has written", 0, read, 2, 2},
      {"an atomic operation, with a reader", 2, count, 2 + 2 * 1, 2},
      {"an atomic operation at a home that has the page", 2, count, 2, 2},
      {"an atomic operation of that home", 0, count, 0, 0},
      {"a write miss, once more", 3, write, 2, 2},
      {"an atomic operation at another owner", 1, count, 4, 4},
      {"an atomic operation of the owner", 3, count, 0, 0},
      {"an atomic operation of the home at an owner", 0, count, 2, 2},
      {"a lock at its home", 0, use_lock, 0, 0},
      {"a lock asked of its home", 1, use_lock, 2, 2},
      {"a lock where it was last", 1, use_lock, 0, 0},
      {"a lock asked of its last holder", 2, use_lock, 3, 3},
      {"a lock the home asks for", 0, use_lock, 2, 2},
      {"a try", 3, try_lock, 2, 2},
      {"a try at its last holder's", 1, try_lock, 4, 4},
      {"a barrier", -1, [] { return dsm_barrier() == 0; }, 2 * (ranks - 1), 2 * (ranks - 1)},
  };
}

// What all ranks have sent for each step is what it must cost, and the two counts are the same.
bool are_right(const std::vector<Step>& list, const Count (*sent)[64], bool migrate) {
  constexpr Word around = 2 * 2 * (ranks - 1);  // the two barriers of a step
  bool ok = true;
  Count before{};
  for (std::size_t i = 0; i < list.size(); ++i) {
    Count all{};
    for (int rank = 0; rank < ranks; ++rank) {
      all.messages += sent[rank][i].messages;
      all.segments += sent[rank][i].segments;
    }
    const Word cost = all.messages - before.messages - around;
    std::printf("messages: %-48s %llu\n", list[i].what, static_cast<unsigned long long>(cost));
    ok = same(list[i].what, migrate ? list[i].migrate : list[i].msi, cost) && ok;
    ok = same("segments, of as many messages", all.messages, all.segments) && ok;
    before = all;
  }
  return ok;
}

}  // namespace

bool messages(const Options& o) {
  if (DSM_NODE_NUM != ranks) {
    std::fprintf(stderr, "messages: it is made for %d ranks\n", ranks);
    return false;
  }
  // Nobody is asked for anything before all have begun to count; dsm_alloc would ask. So the region is used as it is: page p
  // lives at rank p, and behind the pages of the steps is what was counted.
  const Count begin{messages_sent(), segments_sent()};
  auto* const sent = reinterpret_cast<Count(*)[64]>(o.region + ranks * dsm_page_size());
  const auto list = steps(o.region, 4);
  bool ok = true;
  std::vector<Count> mine;  // after each step
  for (const Step& step : list) {
    dsm_barrier();
    if (step.actor == -1 || step.actor == DSM_NODE_ID) ok = step.act() && ok;
    dsm_barrier();
    mine.push_back(sent_since(begin));  // before anybody gets past the next barrier
  }
  dsm_barrier();
  std::copy(mine.begin(), mine.end(), sent[DSM_NODE_ID]);
  dsm_barrier();
  return (DSM_NODE_ID != 0 || are_right(list, sent, o.migrate)) && ok;
}

}  // namespace stress
