// worker - 6C: counts the words of texts, for the dispatcher.
//
// It is started by `watchdog` or `dispatcher`, which give it the end of a socketpair as descriptor 3:
//
//   $ build/bin/dispatcher --socket s &
//   $ build/bin/request --socket s 'to be or not to be'
//   words=6 bytes=18
//
// Texts come in a segment, see link.hpp. It has one thread and one loop, and beats from there, between two pieces of a
// long text too: a worker that hangs anywhere is silent. There is nothing to clean up, so the signals that say stop
// keep their default and end it at once; if its parent dies, the kernel ends it, and end of file on descriptor 3 would
// too.
// Man pages: unix(7), pipe(7), poll(2), shmat(2).
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

#include "ipc/error.hpp"
#include "ipc/program.hpp"
#include "ipc/spawn.hpp"
#include "ipc/watchdog.hpp"
#include "link.hpp"

namespace {

// Counts as `wc -w` does in the C locale, and beats on the way.
std::uint64_t count_words(std::string_view text, ipc::Heartbeat& heart) {
  std::uint64_t words = 0;
  //@ solution 06.words
  constexpr std::size_t piece = 4096;  // takes microseconds: far less than any beat
  constexpr std::string_view blanks = " \t\n\v\f\r";
  bool inside = false;
  for (; !text.empty(); text.remove_prefix(std::min(piece, text.size()))) {
    for (const char c : text.substr(0, piece)) {
      const bool was_inside = inside;
      inside = blanks.find(c) == std::string_view::npos;
      if (inside && !was_inside) ++words;
    }
    heart.beat();  // if nobody is there any more, the loop in run() finds out
  }
  //@ starter
  // TODO 06.words: count them. A long text must not make us look dead: what has to happen how often meanwhile?
  //| static_cast<void>(text), static_cast<void>(heart);
  //@ end
  return words;
}

// Takes one request and answers it. False: the dispatcher has gone, this link is over.
bool serve(Link& link, ipc::Heartbeat& heart) {
  //@ solution 06.serve
  Request request{};
  if (ipc::read_full(link.in.get(), &request, sizeof request) != sizeof request) return false;
  if (request.bytes > link.segment->size()) throw std::runtime_error("a text longer than the segment was announced");
  const std::string_view text(link.text(), request.bytes);
  const Reply reply{request.number, count_words(text, heart), request.bytes};
  return ipc::write_full(link.out.get(), &reply, sizeof reply) == sizeof reply;
  //@ starter
  // TODO 06.serve: read one Request, count the words of the text in the segment, write one Reply. What if the
  // dispatcher has died meanwhile?
  //| static_cast<void>(link), static_cast<void>(heart), static_cast<void>(count_words);
  //| return false;
  //@ end
}

int run(ipc::Milliseconds beat) {
  const ipc::Fd control = ipc::inherited_socket(ipc::Supervised::control_fd, SOCK_SEQPACKET);
  ipc::Heartbeat heart(control.get(), beat);
  Link link;
  bool is_up = false;  // the first beat says that all is in place, so it waits for the first link
  for (;;) {
    if (is_up && !heart.beat()) return 0;
    std::array<pollfd, 2> set{{{control.get(), POLLIN, 0}, {link.in.get(), POLLIN, 0}}};
    if (::poll(set.data(), set.size(), is_up ? heart.due_ms() : -1) == -1) {
      if (errno == EINTR) continue;
      ipc::throw_errno("poll");
    }
    if (set[0].revents != 0) {
      if (!receive_links(control.get(), link)) return 0;
      is_up = is_up || link;
    } else if (set[1].revents != 0 && !serve(link, heart)) {
      link = {};  // a new one will come
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::int64_t beat_ms = 200;
  ipc::Program about{"worker [options]: counts words for the dispatcher; started by dispatcher or watchdog",
                     ipc::po::options_description("options")};
  ipc::add_number<std::int64_t>(about.options, "beat-ms", beat_ms, 20, 3'600'000, "from beat to beat");
  return ipc::run_program(argc, argv, about, [&](const auto&) { return run(ipc::Milliseconds(beat_ms)); });
}
