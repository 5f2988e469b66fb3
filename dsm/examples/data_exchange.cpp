// data_exchange - how strangers find each other: the classroom handshake, without any shared memory.
//
// Ranks that know nothing but the address of one meeting point tell each other something (in practice: where they can
// be reached). Each sends its rank (4-byte int), a size (8-byte size_t) and so many bytes; when all have, each receives
// the bytes of all, in rank order. The sizes are not repeated, so all must know them: here every blob is 64 bytes of
// text.
//
//   $ build/bin/dsmexec --open-rendezvous machine_file data_exchange
//   [Proc 0 : localhost : stdout] rank 0 received from rank 0: rank 0 of 4, pid 4711
//   [Proc 0 : localhost : stdout] rank 0 received from rank 1: rank 1 of 4, pid 4712
//   ...
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <charconv>
#include <cstdint>
#include <stdexcept>
#include <system_error>
#include <vector>

#include "dsm/examples/example.hpp"
#include "ipc/socket.hpp"

namespace {

using Blob = std::array<char, 64>;
constexpr int connect_timeout_ms = 10'000;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr) {
    throw std::runtime_error(std::string(name) +
                             " is not set; start it with dsmexec --open-rendezvous machine_file data_exchange");
  }
  return value;
}

int number(const char* name, int least, int most) {
  const std::string text = environment(name);
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < least || value > most) {
    throw std::runtime_error(std::string(name) + "=" + text + " is not a number from " + std::to_string(least) +
                             " to " + std::to_string(most));
  }
  return value;
}

std::string beginning(int rank, int ranks) {
  return "rank " + std::to_string(rank) + " of " + std::to_string(ranks) + ", pid ";
}

void expect_whole(const ipc::Transfer& transfer) {
  if (transfer.end || transfer.error == EPIPE || transfer.error == ECONNRESET) {
    throw std::runtime_error("the meeting point hung up; start it with dsmexec --open-rendezvous");
  }
  if (transfer.error != 0) throw std::system_error(transfer.error, std::generic_category(), "the meeting point");
}

// Sends `mine`, and waits for everybody's.
std::vector<Blob> exchange(int rank, int ranks, Blob mine) {
  const auto port = static_cast<std::uint16_t>(number("DSMEXEC_PORTNUM", 1, 65535));
  const ipc::Fd connection = ipc::connect_tcp(environment("DSMEXEC_HOSTNAME"), port, connect_timeout_ms);
  std::int32_t sent_rank = rank;
  std::size_t size = mine.size();
  const iovec out[] = {{&sent_rank, sizeof sent_rank}, {&size, sizeof size}, {mine.data(), mine.size()}};
  expect_whole(ipc::send_all(connection.get(), out));
  std::vector<Blob> all(static_cast<std::size_t>(ranks));
  const iovec in[] = {{all.data(), all.size() * sizeof(Blob)}};
  expect_whole(ipc::receive_all(connection.get(), in));
  return all;
}

// Prints what came. False, and one line, if it is not what the ranks have sent.
bool show(int rank, const std::vector<Blob>& all) {
  bool good = true;
  for (std::size_t from = 0; from < all.size(); ++from) {
    const std::string text(all[from].data(), strnlen(all[from].data(), all[from].size()));
    std::printf("rank %d received from rank %zu: %s\n", rank, from, text.c_str());
    if (text.rfind(beginning(static_cast<int>(from), static_cast<int>(all.size())), 0) != 0) {
      std::fprintf(stderr, "data_exchange: this is not what rank %zu has sent\n", from);
      good = false;
    }
  }
  return good;
}

}  // namespace

int main(int argc, char** argv) {
  example::command_line(argc, argv,
                        "every rank tells all others a line, by the classroom handshake (needs --open-rendezvous)",
                        example::po::options_description("Options"));
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  try {
    const int ranks = number("DSMEXEC_RANKNUM", 1, 1 << 20);
    const int rank = number("DSMEXEC_RANKID", 0, ranks - 1);
    Blob mine{};
    std::snprintf(mine.data(), mine.size(), "%s%d", beginning(rank, ranks).c_str(), static_cast<int>(getpid()));
    return show(rank, exchange(rank, ranks, mine)) ? 0 : 1;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "data_exchange: %s\n", e.what());
    return 1;
  }
}
