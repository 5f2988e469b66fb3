// What processes ask, and what becomes of the answers.
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <system_error>

#include "dsm/dshm_agent/agent.hpp"

namespace dsm::dshm_agent {

using sysv::Answer;
using sysv::Call;
using sysv::Question;

namespace {

// What a process may ask dsmd by itself. The rest is the agent's to say.
bool is_for_processes(Call call) {
  switch (call) {
    case Call::hello:
    case Call::beat:
    case Call::leave:
    case Call::fork:
    case Call::exec:
    case Call::exit:
    case Call::cancel:
      return false;
    default:
      return sysv::type_of(call).has_value();
  }
}

}  // namespace

bool Agent::take(Connection& connection, Letter& letter) {
  std::string why;
  std::optional<sysv::Frame> frame = sysv::decode(letter.bytes, why);
  if (!frame || !std::holds_alternative<Question>(*frame)) return false;
  Question& question = std::get<Question>(*frame);
  if (connection.role == Connection::Role::fresh) {
    const ConnectionId id = connection.id;
    if (!hello(connection, question, letter)) return false;
    fresh_.erase(id);
    return true;
  }
  if (connection.role == Connection::Role::service) return on_service(connection, question, letter);
  const auto process = processes_.find(connection.process);
  // A child of fork(2) that goes on using its parent's connection is not who it says.
  if (process == processes_.end() || letter.from.pid != process->second.caller.pid.pid) return false;
  if (question.call == Call::cancel) {
    on_cancel(connection);
    return true;
  }
  if (connection.request != 0) return false;  // one at a time
  process->second.caller = {.pid = {upstream_.host(), letter.from.pid},
                            .uid = letter.from.uid,
                            .gid = letter.from.gid,
                            .groups = groups_of(letter.from.pid)};
  question.caller = process->second.caller;
  question.process = connection.process;
  ask(connection, std::move(question), letter);
  return true;
}

void Agent::ask(Connection& connection, Question question, Letter& letter) {
  switch (question.call) {
    case Call::local_mapped:
      return on_mapped(connection, question);
    case Call::local_unmapped:
      return on_unmapped(connection, question);
    case Call::detach:
      return on_detach(connection, question);
    case Call::local_fork:
      return on_fork(connection, question, letter);
    default:
      if (!is_for_processes(question.call)) return refuse(connection, question, EINVAL);
      return forward(connection, std::move(question));
  }
}

std::uint32_t Agent::new_request() {
  while (next_request_ == 0 || pending_.contains(next_request_)) ++next_request_;  // 0: what nobody waits for
  return next_request_++;
}

void Agent::forward(Connection& connection, Question question, ProcessNumber child) {
  if (over_) return refuse(connection, question, EIDRM);
  Pending pending{.connection = connection.id,
                  .request = question.request,
                  .call = question.call,
                  .process = connection.process,
                  .child = child,
                  .segment = question.id};
  if (child != 0) {
    question.call = Call::fork;
    question.process = child;
    question.other = connection.process;
  }
  question.request = connection.request = new_request();
  pending_.emplace(question.request, pending);
  to_dsmd(question);
}

void Agent::tell(Connection& connection, Answer answer, int descriptor) {
  // Who cannot take it has gone, or has broken the rule of one question at a time: the end of the connection says so
  // next.
  const Post post = send(connection.fd.get(), sysv::encode(answer), descriptor);
  if (post != Post::done) ::shutdown(connection.fd.get(), SHUT_RDWR);
}

void Agent::refuse(Connection& connection, const Question& question, int error, const std::string& why) {
  tell(connection, {.request = question.request, .error = error, .text = why});
}

void Agent::on_cancel(const Connection& connection) {
  const auto pending = pending_.find(connection.request);
  if (pending == pending_.end() || pending->second.call != Call::operate) return;
  if (std::exchange(pending->second.cancelled, true)) return;
  Question cancel;
  cancel.call = Call::cancel;
  cancel.other = connection.request;
  to_dsmd(cancel);
}

// ---- what is between process and agent ------------------------------------------------------------------------------

void Agent::on_mapped(Connection& connection, const Question& question) {
  if (over_) return refuse(connection, question, EIDRM);
  Process& process = processes_.at(connection.process);
  const auto segment = segments_.find(question.id);
  const auto granted = std::find_if(process.attaches.begin(), process.attaches.end(),
                                    [&](const Attach& a) { return a.id() == question.id && !a.is_mapped(); });
  if (segment == segments_.end() || granted == process.attaches.end() || question.address % sysv::page_bytes != 0 ||
      question.size != segment->second->mapped_size() || question.address + question.size < question.address) {
    return refuse(connection, question, EINVAL);
  }
  granted->map(question.address, question.size);
  const int error = map_one(process, *granted);
  if (error != 0) granted->unmap(question.address, question.size);  // to be given back
  // Orders that went before this answer are not about this attach, however late they are obeyed.
  tell(connection, {.request = question.request, .error = error, .value = static_cast<std::int64_t>(next_order_)});
}

void Agent::on_unmapped(Connection& connection, const Question& question) {
  Process& process = processes_.at(connection.process);
  const auto& attaches = process.attaches;
  for (std::size_t i = 0; i < attaches.size(); ++i) {
    Attach& attach = process.attaches[i];
    if (attach.id() != question.id || !attach.unmap(question.address, question.size)) continue;
    if (process.userfault) process.userfault->wake(question.address, question.size);
    if (attach.is_mapped()) break;
    process.attaches.erase(process.attaches.begin() + static_cast<std::ptrdiff_t>(i));
    detached(process, question.id);
    Question detach = question;
    detach.call = Call::detach;
    detach.address = detach.size = 0;
    forward(connection, std::move(detach));
    return leave_closed();
  }
  refuse(connection, question, 0);
}

void Agent::on_detach(Connection& connection, const Question& question) {
  Process& process = processes_.at(connection.process);
  const auto find = [&](auto matches) {
    return std::find_if(process.attaches.begin(), process.attaches.end(),
                        [&](const Attach& a) { return a.id() == question.id && matches(a); });
  };
  auto at = find([&](const Attach& a) { return a.is_mapped() && a.address() == question.address; });
  if (at == process.attaches.end()) at = find([](const Attach& a) { return !a.is_mapped(); });
  if (at == process.attaches.end()) return refuse(connection, question, EINVAL);
  if (at->is_mapped() && process.userfault) process.userfault->wake(at->address(), at->size());
  process.attaches.erase(at);
  detached(process, question.id);
  Question detach = question;
  detach.address = 0;
  forward(connection, std::move(detach));
  leave_closed();
}

void Agent::on_fork(Connection& connection, const Question& question, Letter& letter) {
  if (!letter.descriptor) return refuse(connection, question, EINVAL, "local_fork needs a descriptor");
  if (over_) return refuse(connection, question, EIDRM);
  ask_for_senders(letter.descriptor.get());
  Process child;
  child.number = next_process_++;
  child.caller = question.caller;
  Connection service;
  service.id = next_connection_++;
  service.fd = std::move(letter.descriptor);
  service.role = Connection::Role::service;
  service.process = child.number;
  child.service = service.id;
  const ProcessNumber number = child.number;
  processes_.emplace(number, std::move(child));
  connections_.emplace(service.id, std::move(service));
  forward(connection, question, number);
}

// ---- answers of dsmd's ----------------------------------------------------------------------------------------------

void Agent::answered(Answer answer) {
  const auto node = pending_.extract(answer.request);
  if (node.empty()) return;  // what nobody waits for
  const Pending& pending = node.mapped();
  if (pending.call == Call::beat) return lease_.heard(answer.value);
  answer.request = pending.request;
  if (const auto at = connections_.find(pending.connection); at != connections_.end()) at->second.request = 0;
  if (pending.call == Call::attach) return attached(pending, answer);
  if (pending.call == Call::local_fork) return forked(pending, answer);
  if (const auto at = connections_.find(pending.connection); at != connections_.end()) tell(at->second, answer);
}

// The segment as this host has it; a fresh one, if this is its first attach here. nullptr: there is no room for it.
Segment* Agent::segment_for(const Pending& pending, const Answer& answer) {
  auto& place = segments_[pending.segment];
  if (place == nullptr) {
    const Segment::Setup setup{.id = pending.segment,
                               .size = static_cast<std::uint64_t>(answer.value),
                               .tenure = answer.tenure,
                               .slot = answer.slot};
    try {
      place = std::make_unique<Segment>(
          setup, processes_,
          Segment::Outlets{.to_dsmd = [this](sysv::PageFrame frame) { to_dsmd(frame); },
                           .to_process = [this](Process& process, const Order& one) { order(process, one); }});
    } catch (const std::exception&) {  // no memory, or no descriptor
      segments_.erase(pending.segment);
      // Others may be under way, to whom dsmd has answered, or will, with the same tenure: the last one leaves it.
      const bool last = std::none_of(pending_.begin(), pending_.end(), [&](const auto& other) {
        return other.second.call == Call::attach && other.second.segment == pending.segment;
      });
      if (last) closed_.push_back(answer.tenure);
      return nullptr;
    }
  }
  return place.get();
}

void Agent::attached(const Pending& pending, Answer& answer) {
  const auto connection = connections_.find(pending.connection);
  const auto process = processes_.find(pending.process);
  const bool granted = answer.error == 0;
  Segment* const segment = granted ? segment_for(pending, answer) : nullptr;
  if (segment != nullptr && segment->tenure() != answer.tenure) return dsmd_has_gone();  // not what dsmd says
  if (segment != nullptr && process != processes_.end() && connection != connections_.end()) {
    process->second.attaches.emplace_back(pending.segment);
    return tell(connection->second, answer, segment->memory());
  }
  if (granted) answer = {.request = pending.request, .error = ENOMEM};
  close_if_unused(pending.segment);
  if (granted) give_back(pending);
  leave_closed();
  if (connection != connections_.end()) tell(connection->second, answer);
}

// An attach that nobody can use. If the process has ended that has been said, and this attach's end with it.
void Agent::give_back(const Pending& attach) {
  const auto process = processes_.find(attach.process);
  if (process == processes_.end()) return;
  Question detach;
  detach.call = Call::detach;
  detach.id = attach.segment;
  detach.process = attach.process;
  detach.caller = process->second.caller;
  to_dsmd(detach);
}

void Agent::forked(const Pending& pending, Answer& answer) {
  const auto connection = connections_.find(pending.connection);
  const auto parent = processes_.find(pending.process);
  const auto child = processes_.find(pending.child);
  if (child == processes_.end()) return;
  const auto service = connections_.find(child->second.service);
  if (answer.error != 0 || parent == processes_.end() || service == connections_.end()) {
    exited(pending.child);
  } else {
    child->second.attaches = parent->second.attaches;
    watch(service->second.fd.get(), Source::connection, service->first);
  }
  // Whether segments are in use could not be said before.
  std::vector<std::int32_t> ids;
  for (const auto& [id, segment] : segments_) ids.push_back(id);
  for (const std::int32_t id : ids) close_if_unused(id);
  leave_closed();
  if (connection != connections_.end()) tell(connection->second, answer);
}

}  // namespace dsm::dshm_agent
