// guest ACT - see guest.hpp. Says "well" when the act went well.
#include "dsm/dshm/guest.hpp"

#include <cstring>

namespace dsm::dshm::guest {
namespace {

struct Act {
  const char* name;
  void (*act)();
};
constexpr Act acts[] = {
    {"segments", segments},
    {"mappings", mappings},
    {"read_only", read_only},
    {"sets", sets},
    {"interrupted", interrupted},
    {"undone", undone},
    {"forks_in_wait", forks_in_wait},
    {"forks", forks},
    {"forks_among_threads", forks_among_threads},
    {"spawns", spawns},
    {"users", users},
    {"closes", closes},
    {"main_leaves", main_leaves},
    {"handlers", handlers},
    {"masks", masks},
    {"transfers", transfers},
    {"filters", filters},
    {"stays_put", stays_put},
    {"has_no_key", has_no_key},
    {"has_no_key_as_owner", has_no_key_as_owner},
};

// What spawns() executes: nothing is attached by inheritance, and all can be done anew.
void attached(int id, unsigned long others) {
  shmid_ds status{};
  MUST(::shmctl(id, IPC_STAT, &status) == 0 && status.shm_nattch == others);
  auto* const where = static_cast<char*>(::shmat(id, nullptr, 0));
  MUST(where != reinterpret_cast<char*>(-1) && where[0] == 1);
}

}  // namespace
}  // namespace dsm::dshm::guest

int main(int argc, char** argv) {
  using namespace dsm::dshm::guest;
  MUST(argc >= 2);
  ::alarm(120);
  if (std::strcmp(argv[1], "attached") == 0) {
    attached(std::atoi(argv[2]), std::strtoul(argv[3], nullptr, 10));
    return 0;
  }
  if (std::strcmp(argv[1], "contend") == 0) {
    contend(std::atoi(argv[2]), std::atoi(argv[3]), std::atoi(argv[4]));
    ::dprintf(1, "well\n");
    return 0;
  }
  if (std::strcmp(argv[1], "end") == 0) {
    waits_for_the_end(argc, argv);
    ::dprintf(1, "well\n");
    return 0;
  }
  for (const Act& one : acts) {
    if (std::strcmp(argv[1], one.name) != 0) continue;
    one.act();
    ::dprintf(1, "well\n");
    return 0;
  }
  ::dprintf(2, "guest: there is no act '%s'\n", argv[1]);
  return 2;
}
