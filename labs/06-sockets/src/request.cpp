// request - 6C: has the words of a text counted by the dispatcher.
//
//   $ build/bin/watchdog --socket s &
//   $ build/bin/request --socket s 'to be or not to be'
//   words=6 bytes=18
//   $ build/bin/request --socket s -- --version      # a text that looks like an option
//
// Text and answer are frames (ipc/socket.hpp): on a SOCK_STREAM the length is ours to send and to check, so a text has
// the limit that we choose. A record of SOCK_SEQPACKET has the limit of the socket's send buffer, which is a setting of
// the machine.
// Exit code 75 (EX_TEMPFAIL, sysexits.h): nobody answered, because who was at it has died. Ask again.
// Man pages: unix(7), sysexits.h(3head).
#include <sys/socket.h>
#include <sysexits.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <span>
#include <stdexcept>
#include <string>
#include <system_error>

#include "ipc/error.hpp"
#include "ipc/program.hpp"
#include "ipc/socket.hpp"
#include "link.hpp"
#include "record.hpp"

namespace {

ipc::Fd connect_to_dispatcher(const std::string& path) {
  try {
    return ipc::connect_unix(path, SOCK_STREAM);
  } catch (const std::system_error& failure) {
    const int error = failure.code().value();
    if (error != ENOENT && error != ECONNREFUSED) throw;
    throw std::runtime_error(path + ": no server is there; start one: watchdog --socket " + path);
  }
}

// The answer; nothing at all if the dispatcher left us without one.
std::string ask(const std::string& path, const std::string& text) {
  const ipc::Fd server = connect_to_dispatcher(path);
  if (ipc::peer_uid(server.get()) != ::geteuid()) throw std::runtime_error(path + ": the server is another user's");
  //@ solution 06.request
  // It may fail because we are told why at once: the answer is there all the same.
  static_cast<void>(ipc::send_frame(server.get(), std::as_bytes(std::span(text))));
  std::array<char, 512> buffer;
  const ipc::Transfer answer = ipc::receive_frame(server.get(), std::as_writable_bytes(std::span(buffer)));
  if (answer.end || answer.error != 0) return {};
  return {buffer.data(), answer.bytes};
  //@ starter
  // TODO 06.request: send the text, receive the answer. What do you see when the dispatcher dies before it answers?
  //| static_cast<void>(text);
  //| return {};
  //@ end
}

}  // namespace

int main(int argc, char** argv) {
  std::string path;
  ipc::Program about{
      "request TEXT [options]: has the words of TEXT counted", ipc::po::options_description("options"), {"TEXT"}};
  add_socket_path(about.options, path);
  return ipc::run_program(argc, argv, about, [&](const ipc::po::variables_map& values) {
    const auto text = values["TEXT"].as<std::string>();
    if (text.size() > max_text) {
      throw ipc::UsageError("TEXT has " + std::to_string(text.size()) + " bytes, at most " + std::to_string(max_text) +
                            " are possible");
    }
    const std::string try_again = "error: try again";
    std::string answer = ask(path, text);
    if (answer.empty()) answer = try_again;
    if (answer != try_again && answer.rfind("error: ", 0) == 0) {
      throw std::runtime_error(ipc::printable(answer, answer.size()));
    }
    ipc::say(answer);
    return answer == try_again ? EX_TEMPFAIL : 0;
  });
}
