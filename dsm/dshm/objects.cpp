#include "dsm/dshm/objects.hpp"

#include "dsm/dshm/connections.hpp"
#include "dsm/dshm/process.hpp"
#include "dsm/dshm/routes.hpp"

namespace dsm::dshm {

int ask_quietly(sysv::Question& question, sysv::Answer& answer) {
  if (const int error = begin(); error != 0) return error;
  const kernel::Quiet quiet(kernel::Quiet::Kind::calls);
  return ask(question, answer);
}

int result_of(sysv::Question& question) {
  sysv::Answer answer;
  const int error = ask_quietly(question, answer);
  return error == 0 ? 0 : fail(error);
}

int get_object(sysv::Object kind, std::int32_t key, std::uint64_t size, int flags) {
  sysv::Question question{.call = sysv::Call::get};
  question.kind = kind;
  question.key = key;
  question.size = size;
  question.flags = flags;
  sysv::Answer answer;
  if (const int error = ask_quietly(question, answer); error != 0) return fail(error);
  const auto id = static_cast<std::int32_t>(answer.value);
  note_route(kind, id, Route::ours);
  return id;
}

int note_kernel(sysv::Object kind, long result) {
  if (result >= 0) note_route(kind, static_cast<std::int32_t>(result), Route::kernel);
  return static_cast<int>(result);
}

ipc_perm layout_of(const sysv::Permissions& perm) {
  ipc_perm out{};
  out.__key = perm.key;
  out.uid = perm.uid;
  out.gid = perm.gid;
  out.cuid = perm.cuid;
  out.cgid = perm.cgid;
  out.mode = static_cast<decltype(out.mode)>(perm.mode);
  out.__seq = perm.seq;
  return out;
}

}  // namespace dsm::dshm
