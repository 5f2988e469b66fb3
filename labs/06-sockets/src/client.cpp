// client - 6B: sends a number to the server, and prints the sum of it and another client's.
//
//   $ build/bin/server &
//   $ build/bin/client 40 & build/bin/client 2
//   Result = 42
//   Result = 42
//
// Whether it is a number the server decides: it must, since anybody may connect, and one judge is enough. It answers
// everybody within its --timeout-ms, so there is no limit of time here; a server that is stopped (SIGSTOP), or whose
// output nobody reads, makes us wait until it goes on, or until SIGINT ends us.
// Man pages: unix(7), connect(2), send(2), recv(2).
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>

#include "ipc/error.hpp"
#include "ipc/fd.hpp"
#include "ipc/program.hpp"
#include "ipc/socket.hpp"
#include "record.hpp"

namespace {

ipc::Fd connect_to_server(const std::string& path) {
  ipc::Fd server;
  try {
    server = ipc::connect_unix(path, SOCK_SEQPACKET);
  } catch (const std::system_error& failure) {
    const int error = failure.code().value();
    if (error != ENOENT && error != ECONNREFUSED) throw;
    throw std::runtime_error(path + ": no server is there; start one: server --socket " + path);
  }
  // In /tmp anybody may listen at any path that is free.
  if (ipc::peer_uid(server.get()) != ::geteuid()) throw std::runtime_error(path + ": the server is another user's");
  return server;
}

// Sends the text, waits and returns the answer.
std::string ask(int server, std::string_view text) {
  //@ solution 06.ask
  // A server that has closed already may have said before why: that can still be received (see below).
  const ipc::Transfer sent = send_record(server, text);
  if (sent.error != 0 && sent.error != EPIPE && sent.error != ECONNRESET) {
    throw std::system_error(sent.error, std::generic_category(), "send");
  }
  std::array<char, 512> answer;
  for (;;) {
    const ipc::Transfer got = receive_record(server, answer);
    if (got.end) throw std::runtime_error("the server left without an answer");
    if (got.error == 0) return {answer.data(), got.bytes};
    if (got.error == ECONNRESET) continue;  // told once, and before what was said last
    if (got.error != EAGAIN) throw std::system_error(got.error, std::generic_category(), "receive");
    pollfd wait{server, POLLIN, 0};
    if (::poll(&wait, 1, -1) == -1 && errno != EINTR) ipc::throw_errno("poll");
  }
  //@ starter
  // TODO 06.ask: send the text as one record, and return the record that comes back. receive_record() never waits: what
  // does it say when nothing is there, and what waits? What does it say when the server has died?
  //| static_cast<void>(server), static_cast<void>(text);
  //| return {};
  //@ end
}

}  // namespace

int main(int argc, char** argv) {
  std::string path;
  ipc::Program about{"client N [options]: sends the number N, prints the sum of it and another client's",
                     ipc::po::options_description("options"),
                     {"N"}};
  add_socket_path(about.options, path);
  return ipc::run_program(argc, argv, about, [&](const ipc::po::variables_map& values) {
    const std::string number = values["N"].as<std::string>();
    if (number.empty()) throw ipc::UsageError("N is empty");
    const std::string answer = ask(connect_to_server(path).get(), number);
    if (answer.rfind("error: ", 0) == 0) throw std::runtime_error(ipc::printable(answer, answer.size()));
    ipc::say("Result = " + std::to_string(ipc::whole_number(answer)));
    return 0;
  });
}
