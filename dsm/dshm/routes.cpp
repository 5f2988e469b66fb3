#include "dsm/dshm/routes.hpp"

#include <stdlib.h>

#include <mutex>
#include <set>
#include <string>

#include "dsm/dshm/kernel.hpp"
#include "dsm/dshm/keys.hpp"
#include "dsm/dshm/process.hpp"

namespace dsm::dshm {
namespace {

// Never destroyed.
struct Routes {
  node::FutexLock lock;
  bool read = false;  // DSHM_KEYS has been; the three are lock's
  bool well = false;
  KeyFilter filter{};
  std::set<std::int32_t> of_kernel[2];
};
Routes& routes() {
  static Routes& only = *new Routes;
  return only;
}

class RoutesLock {
 public:
  RoutesLock() : guard_(routes().lock) {}

 private:
  kernel::Quiet quiet_{kernel::Quiet::Kind::calls};
  std::scoped_lock<node::FutexLock> guard_;
};

std::set<std::int32_t>& of_kernel(sysv::Object kind) {
  return routes().of_kernel[kind == sysv::Object::segment ? 0 : 1];
}

// REQUIRES: lock. nullptr: refused.
const KeyFilter* filter() {
  Routes& all = routes();
  if (!all.read) {
    all.read = all.well = true;
    std::string why;
    if (const char* text = ::secure_getenv("DSHM_KEYS"); text != nullptr) {
      const std::optional<KeyFilter> parsed = KeyFilter::parse(text, why);
      all.well = parsed.has_value();
      if (parsed) all.filter = *parsed;
    }
    if (!all.well) say({"DSHM_KEYS: ", why, "; all, none or ranges with commas are needed: calls fail with EINVAL"});
  }
  return all.well ? &all.filter : nullptr;
}

}  // namespace

Route route_key(std::int32_t key) {
  const RoutesLock guard;
  const KeyFilter* const rule = filter();
  if (rule == nullptr) return Route::refused;
  return rule->ours(key) ? Route::ours : Route::kernel;
}

Route route_id(sysv::Object kind, std::int32_t id) {
  const RoutesLock guard;
  const KeyFilter* const rule = filter();
  if (rule == nullptr) return Route::refused;
  return rule->none() || of_kernel(kind).contains(id) ? Route::kernel : Route::ours;
}

Route route_all() {
  const RoutesLock guard;
  const KeyFilter* const rule = filter();
  if (rule == nullptr) return Route::refused;
  return rule->none() ? Route::kernel : Route::ours;
}

void note_route(sysv::Object kind, std::int32_t id, Route from) {
  const RoutesLock guard;
  if (from == Route::kernel) {
    of_kernel(kind).insert(id);
  } else {
    of_kernel(kind).erase(id);
  }
}

void lock_routes() noexcept { routes().lock.lock(); }
void unlock_routes() noexcept { routes().lock.unlock(); }

}  // namespace dsm::dshm
