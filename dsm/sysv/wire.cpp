#include "dsm/sysv/wire.hpp"

#include <boost/endian/conversion.hpp>
#include <concepts>
#include <stdexcept>
#include <type_traits>

namespace dsm::sysv {
namespace {

namespace endian = boost::endian;
using core::Message;

// The second byte.
enum class Form : std::uint8_t { question = 1, answer, page };

constexpr std::uint8_t local_type = 0;  // what dsmd never sees
constexpr std::uint8_t bit_segment = 1, bit_set = 2, bit_segment_totals = 4, bit_set_totals = 8;  // of an answer
constexpr std::uint8_t bit_carries_page = 1, bit_have = 2, bit_prefetch = 4, bit_last = 8;        // of a page frame

std::uint8_t type_byte(Call call) {
  const std::optional<Type> type = type_of(call);
  return type ? static_cast<std::uint8_t>(*type) : local_type;
}

bool is_local(Call call) { return call >= Call::local_hello && call <= Call::local_lowered; }

// A page that goes to who asked for it is read; what comes back, or is given up, is written. Nothing: agents and dsmd do
// not say that.
std::optional<Type> type_of(Message::Kind kind) {
  using Kind = Message::Kind;
  switch (kind) {
    case Kind::want:
    case Kind::grant:
      return Type::read;
    case Kind::recall:
    case Kind::recalled:
    case Kind::invalidate:
    case Kind::invalidated:
    case Kind::write_back:
      return Type::write;
    default:
      return {};
  }
}

template <class T>
concept Number = std::integral<T> && !std::same_as<T, bool>;

class Writer {
 public:
  template <class... T>
  void operator()(const T&... fields) {
    (put(fields), ...);
  }
  void append(const std::vector<std::uint8_t>& bytes) { bytes_.insert(bytes_.end(), bytes.begin(), bytes.end()); }
  std::vector<std::uint8_t> take() { return std::move(bytes_); }

 private:
  template <Number T>
  void put(T value) {
    bytes_.resize(bytes_.size() + sizeof value);
    endian::endian_store<T, sizeof value, endian::order::big>(bytes_.data() + bytes_.size() - sizeof value, value);
  }
  template <class T>
  requires std::is_enum_v<T>
  void put(T value) { put(static_cast<std::underlying_type_t<T>>(value)); }
  template <class T>
  void put(const std::vector<T>& list) {
    put(static_cast<std::uint32_t>(list.size()));
    for (const T& one : list) put(one);
  }
  template <Number T>
  void put(const std::vector<T>& list) {  // there may be 32,000
    put(static_cast<std::uint32_t>(list.size()));
    bytes_.resize(bytes_.size() + list.size() * sizeof(T));
    std::uint8_t* at = bytes_.data() + bytes_.size() - list.size() * sizeof(T);
    for (const T one : list) {
      endian::endian_store<T, sizeof(T), endian::order::big>(at, one);
      at += sizeof(T);
    }
  }
  void put(const std::string& text) {
    put(static_cast<std::uint32_t>(text.size()));
    bytes_.insert(bytes_.end(), text.begin(), text.end());
  }
  template <class T>
  requires std::is_class_v<T>
  void put(const T& value) { fields(*this, value); }

  std::vector<std::uint8_t> bytes_;
};

// After the first mistake it reads nothing any more.
class Reader {
 public:
  explicit Reader(std::span<const std::uint8_t> bytes) : left_(bytes) {}
  template <class... T>
  void operator()(T&... fields) {
    (get(fields), ...);
  }
  template <class T>
  T next() {
    T value{};
    get(value);
    return value;
  }
  void take(std::vector<std::uint8_t>& to, std::size_t size) {
    if (!has(size)) return;
    to.assign(left_.begin(), left_.begin() + static_cast<std::ptrdiff_t>(size));
    left_ = left_.subspan(size);
  }
  void fail(const char* why) {
    if (why_ == nullptr) why_ = why;
  }
  void end() {
    if (!left_.empty()) fail("there is more than one frame");
  }
  [[nodiscard]] const char* why() const { return why_; }

 private:
  [[nodiscard]] bool has(std::size_t size) {
    if (left_.size() < size) fail("it ends too early");
    return why_ == nullptr;
  }
  template <Number T>
  void get(T& value) {
    if (!has(sizeof value)) return;
    value = endian::endian_load<T, sizeof value, endian::order::big>(left_.data());
    left_ = left_.subspan(sizeof value);
  }
  void get(Object& kind) {
    const auto value = next<std::uint8_t>();
    if (value > static_cast<std::uint8_t>(Object::set)) fail("an unknown kind of object");
    kind = static_cast<Object>(value);
  }
  void get(Call& call) {
    call = static_cast<Call>(next<std::uint8_t>());
    if (!type_of(call) && !is_local(call)) fail("an unknown call");
  }
  // Each element takes at least `least` bytes of the frame: so nothing is allocated that has not been sent.
  template <class List>
  void get_list(List& list, std::size_t least) {
    const auto count = next<std::uint32_t>();
    if (count > left_.size() / least) fail("a list longer than the frame");
    if (why_ != nullptr) return;
    list.resize(count);
    for (auto& one : list) get(one);
  }
  void get(std::vector<std::uint16_t>& list) { get_list(list, 2); }
  void get(std::vector<std::uint32_t>& list) { get_list(list, 4); }
  void get(std::vector<SemOp>& list) { get_list(list, 6); }
  void get(std::string& text) { get_list(text, 1); }
  template <class T>
  requires std::is_class_v<T>
  void get(T& value) { fields(*this, value); }

  std::span<const std::uint8_t> left_;
  const char* why_ = nullptr;
};

// ---- what each structure is made of, in the order of the wire: said once, for both directions -------------------------

template <class T, class What>
concept Is = std::same_as<std::remove_const_t<T>, What>;

void fields(auto& wire, Is<Pid> auto& pid) { wire(pid.host, pid.pid); }

void fields(auto& wire, Is<Caller> auto& caller) { wire(caller.pid, caller.uid, caller.gid, caller.groups); }

void fields(auto& wire, Is<SemOp> auto& op) { wire(op.number, op.change, op.flags); }

void fields(auto& wire, Is<Permissions> auto& perm) {
  wire(perm.key, perm.uid, perm.gid, perm.cuid, perm.cgid, perm.mode, perm.seq);
}

void fields(auto& wire, Is<SegmentStat> auto& stat) {
  wire(stat.id, stat.perm, stat.size, stat.atime, stat.dtime, stat.ctime, stat.cpid, stat.lpid, stat.nattch);
}

void fields(auto& wire, Is<SetStat> auto& stat) { wire(stat.id, stat.perm, stat.otime, stat.ctime, stat.count); }

void fields(auto& wire, Is<SegmentTotals> auto& totals) {
  wire(totals.limits.max_size, totals.limits.max_pages, totals.limits.max_count, totals.used, totals.highest_index,
       totals.pages);
}

void fields(auto& wire, Is<SetTotals> auto& totals) {
  wire(totals.limits.per_set, totals.limits.all, totals.limits.per_call, totals.limits.sets, totals.limits.max_value,
       totals.sets, totals.semaphores, totals.highest_index);
}

void fields(auto& wire, Is<Question> auto& q) {
  wire(q.call, q.request, q.kind, q.caller, q.process, q.other, q.id, q.key, q.flags, q.number, q.size, q.address,
       q.timeout_ns, q.uid, q.gid, q.mode, q.tenure, q.ops, q.values, q.text);
}

void fields(auto& wire, Is<Answer> auto& a) { wire(a.request, a.error, a.value, a.tenure, a.slot, a.values, a.text); }

// ---- frames -----------------------------------------------------------------------------------------------------------

void write(Writer& to, const Question& question) { to(type_byte(question.call), Form::question, question); }

void write(Writer& to, const Answer& answer) {
  const int parts = (answer.segment ? bit_segment : 0) | (answer.set ? bit_set : 0) |
                    (answer.segment_totals ? bit_segment_totals : 0) | (answer.set_totals ? bit_set_totals : 0);
  to(Type::control, Form::answer, answer, static_cast<std::uint8_t>(parts));
  if (answer.segment) to(*answer.segment);
  if (answer.set) to(*answer.set);
  if (answer.segment_totals) to(*answer.segment_totals);
  if (answer.set_totals) to(*answer.set_totals);
}

void write(Writer& to, const PageFrame& frame) {
  const Message message = frame.last ? Message{.page = frame.message.page} : frame.message;
  const Type type = frame.last ? Type::write : type_of(message.kind).value();
  const int flags = (message.carries_page ? bit_carries_page : 0) | (message.have ? bit_have : 0) |
                    (message.prefetch ? bit_prefetch : 0) | (frame.last ? bit_last : 0);
  to(type, Form::page, frame.tenure, message.kind, message.access, static_cast<std::uint8_t>(flags), message.page,
     message.seq);
  if (frame.bytes.size() != (message.carries_page || frame.last ? page_bytes : 0)) {
    throw std::logic_error("a page frame with too many or too few bytes");
  }
  to.append(frame.bytes);
}

template <class T>
std::optional<T> read_part(Reader& from, int parts, std::uint8_t bit) {
  if ((parts & bit) == 0) return {};
  return from.next<T>();
}

Frame read_question(Reader& from, std::uint8_t type) {
  auto question = from.next<Question>();
  if (type != type_byte(question.call)) from.fail("a call in a frame of another type");
  return question;
}

Frame read_answer(Reader& from, std::uint8_t type) {
  if (type != static_cast<std::uint8_t>(Type::control)) from.fail("an answer that is no control frame");
  auto answer = from.next<Answer>();
  const auto parts = from.next<std::uint8_t>();
  if ((parts & ~(bit_segment | bit_set | bit_segment_totals | bit_set_totals)) != 0) from.fail("an unknown part");
  answer.segment = read_part<SegmentStat>(from, parts, bit_segment);
  answer.set = read_part<SetStat>(from, parts, bit_set);
  answer.segment_totals = read_part<SegmentTotals>(from, parts, bit_segment_totals);
  answer.set_totals = read_part<SetTotals>(from, parts, bit_set_totals);
  return answer;
}

Frame read_page(Reader& from, std::uint8_t type) {
  PageFrame frame;
  Message& message = frame.message;
  from(frame.tenure);
  const auto kind = from.next<std::uint8_t>(), access = from.next<std::uint8_t>(), flags = from.next<std::uint8_t>();
  from(message.page, message.seq);
  message.kind = static_cast<Message::Kind>(kind);
  message.access = static_cast<core::Access>(access);
  message.carries_page = (flags & bit_carries_page) != 0;
  message.have = (flags & bit_have) != 0;
  message.prefetch = (flags & bit_prefetch) != 0;
  frame.last = (flags & bit_last) != 0;
  if (access > static_cast<std::uint8_t>(core::Access::write)) from.fail("an unknown access");
  if ((flags & ~(bit_carries_page | bit_have | bit_prefetch | bit_last)) != 0) from.fail("an unknown flag");
  if (frame.last && message != Message{.page = message.page}) from.fail("a last page that says more than its bytes");
  const std::optional<Type> expected = frame.last ? Type::write : type_of(message.kind);
  if (!expected) from.fail("an unknown message about a page");
  if (expected && type != static_cast<std::uint8_t>(*expected)) from.fail("a message in a frame of another type");
  if (frame.last || message.carries_page) from.take(frame.bytes, page_bytes);
  return frame;
}

}  // namespace

std::optional<Type> type_of(Call call) {
  switch (call) {
    case Call::get:
      return Type::create;
    case Call::attach:
    case Call::fork:
      return Type::attach;
    case Call::detach:
    case Call::exec:
    case Call::exit:
      return Type::detach;
    case Call::remove:
      return Type::remove;
    default:
      return call >= Call::hello && call <= Call::report ? std::optional(Type::control) : std::nullopt;
  }
}

std::vector<std::uint8_t> encode(const Frame& frame) {
  Writer to;
  std::visit([&](const auto& one) { write(to, one); }, frame);
  std::vector<std::uint8_t> bytes = to.take();
  if (bytes.size() > max_frame) throw std::length_error("a System V frame longer than frames may be");
  return bytes;
}

std::optional<Frame> decode(std::span<const std::uint8_t> bytes, std::string& why) {
  Reader from(bytes);
  if (bytes.size() > max_frame) from.fail("it is longer than frames may be");
  const auto type = from.next<std::uint8_t>();
  Frame frame;
  switch (static_cast<Form>(from.next<std::uint8_t>())) {
    case Form::question:
      frame = read_question(from, type);
      break;
    case Form::answer:
      frame = read_answer(from, type);
      break;
    case Form::page:
      frame = read_page(from, type);
      break;
    default:
      from.fail("it is neither question nor answer nor page");
  }
  from.end();
  if (from.why() == nullptr) return frame;
  why = from.why();
  return {};
}

}  // namespace dsm::sysv
