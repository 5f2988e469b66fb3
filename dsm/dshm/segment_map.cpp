#include "dsm/dshm/segment_map.hpp"

#include <errno.h>
#include <sys/shm.h>

#include <array>
#include <span>

#include "dsm/dshm/connections.hpp"
#include "dsm/dshm/faults.hpp"
#include "dsm/dshm/process.hpp"

namespace dsm::dshm {
namespace {

using sysv::Call;
using sysv::Question;

// What the agent is told of, and cannot refuse.
void tell(Call call, std::int32_t id, Address address, std::size_t size, int flags = 0) {
  if (process().state.load() != State::live) return;
  Question question{.call = call};
  question.id = id;
  question.address = address;
  question.size = size;
  question.flags = flags;
  (void)ask(question);
}

void tell(const Loss& loss) {
  if (loss.all) {
    tell(Call::detach, loss.id, loss.base, 0);
  } else {
    tell(Call::local_unmapped, loss.id, loss.from, loss.to - loss.from);
  }
}

class Losses {
 public:
  // REQUIRES: table. False if there is no room for more.
  bool take(Address from, Address to, const Attach* but) noexcept {
    while (count_ < all_.size()) {
      if (!process().attaches.take(from, to, all_[count_], but)) return true;
      ++count_;
    }
    return false;
  }
  // REQUIRES: not table.
  void tell_all() {
    for (const Loss& one : std::span(all_).first(count_)) tell(one);
    count_ = 0;
  }

 private:
  std::array<Loss, 16> all_{};
  std::size_t count_ = 0;
};

// What was in [from, to) has been replaced: the agent hears of it, piece by piece. REQUIRES: shape, not table.
void lose_rest(Losses& losses, Address from, Address to, const Attach* but) {
  for (bool all = false; !all;) {
    losses.tell_all();
    const TableLock guard;
    all = losses.take(from, to, but);
  }
  losses.tell_all();
  process().turn();
}

int protection_of(int flags) {
  return PROT_READ | ((flags & SHM_RDONLY) != 0 ? 0 : PROT_WRITE) | ((flags & SHM_EXEC) != 0 ? PROT_EXEC : 0);
}

// Maps it, closed, and enters it into the table. The same step says what it was put over.
int map_closed(int memory, std::int32_t id, std::size_t length, Address at, bool fixed, int flags, Attach*& made,
               Losses& losses) {
  Process& own = process();
  int how = MAP_SHARED | MAP_NORESERVE;
  if (fixed) how |= (flags & SHM_REMAP) != 0 || at == 0 ? MAP_FIXED : MAP_FIXED_NOREPLACE;
  const TableLock guard;
  void* const place = kernel::map(reinterpret_cast<void*>(at), length, PROT_NONE, how, memory, 0);
  if (place == MAP_FAILED) return errno == EEXIST ? EINVAL : errno;
  const auto base = reinterpret_cast<Address>(place);
  int error = fixed && base != at ? EINVAL : 0;  // before Linux 4.17 an occupied place was none of NOREPLACE's business
  if (error == 0) {
    made = own.attaches.add(id, base, length / Attaches::page_size(), protection_of(flags), (flags & SHM_RDONLY) != 0);
    if (made == nullptr) error = ENOMEM;
  }
  if (error != 0) {
    kernel::unmap(place, length);
  } else {
    losses.take(base, base + length, made);
  }
  return error;
}

// The agent learns where it is; then the program may use it.
int open_attach(Attach& attach, int flags) {
  Question mapped{.call = Call::local_mapped};
  mapped.id = attach.id;
  mapped.address = attach.base;
  mapped.size = attach.end() - attach.base;
  mapped.flags = flags;
  sysv::Answer answer;
  int error = ask(mapped, answer);
  const TableLock guard;
  attach.since = static_cast<std::uint64_t>(answer.value);
  attach.ready = true;
  kernel::let_inherit(reinterpret_cast<void*>(attach.base), attach.end() - attach.base, false);  // see fork.cpp
  if (error == 0 && process().state.load() == State::live) error = apply(attach, 0, attach.pages);
  if (error == 0) return 0;
  kernel::unmap(reinterpret_cast<void*>(attach.base), attach.end() - attach.base);
  process().attaches.drop(&attach);
  return error;
}

}  // namespace

int attach_segment(std::int32_t id, Address at, bool fixed, int flags, Address& where) {
  const ShapeLock shape;
  if (const int error = begin_locked(); error != 0) return error;
  if (!process().asked.load()) {
    if (const int error = prepare_faults(); error != 0) return error;
  }
  Question question{.call = Call::attach};
  question.id = id;
  question.flags = flags;
  sysv::Answer answer;
  int memory = -1;
  if (const int error = ask(question, answer, &memory); error != 0) {
    if (memory != -1) kernel::close(memory);
    return error;
  }
  const std::size_t page = Attaches::page_size();
  const std::size_t length = (static_cast<std::size_t>(answer.value) + page - 1) / page * page;
  Attach* made = nullptr;
  Losses losses;
  int error = memory == -1 ? ENFILE : fixed && at + length < at ? EINVAL : 0;
  if (error == 0) error = map_closed(memory, id, length, at, fixed, flags, made, losses);
  if (memory != -1) kernel::close(memory);
  if (error != 0) {
    tell(Call::detach, id, 0, 0);
    return error;
  }
  where = made->base;
  if ((flags & SHM_REMAP) != 0) lose_rest(losses, made->base, made->end(), made);
  error = open_attach(*made, flags);
  if (error != 0) tell(Call::detach, id, where, 0);
  return error;
}

int detach_segment(Address base, bool& ours) {
  const ShapeLock shape;
  disown_if_foreign();
  Loss loss;
  {
    const TableLock guard;
    Attach* const attach = process().attaches.begins(base);
    ours = attach != nullptr;
    if (!ours) return EINVAL;
    loss = {attach->id, attach->base, attach->base, attach->end(), true};
    for (std::size_t page = 0; page < attach->pages;) {
      const std::size_t from = page;
      while (page < attach->pages && !attach->gone(page)) ++page;
      if (page != from) kernel::unmap(reinterpret_cast<void*>(attach->at(from)), (page - from) * Attaches::page_size());
      while (page < attach->pages && attach->gone(page)) ++page;
    }
    process().attaches.drop(attach);
  }
  process().turn();
  tell(loss);
  return 0;
}

bool lose(Address from, Address to, const std::function<bool()>& change) {
  const ShapeLock shape;
  disown_if_foreign();
  Losses losses;
  {
    const TableLock guard;
    if (!change()) return false;
    losses.take(from, to, nullptr);
  }
  lose_rest(losses, from, to, nullptr);
  return true;
}

}  // namespace dsm::dshm
