#include "dsm/net/key_file.hpp"

#include <fcntl.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <stdexcept>
#include <system_error>
#include <vector>

#include "ipc/fd.hpp"
#include "ipc/spawn.hpp"

namespace dsm::net {
namespace {

constexpr std::string_view hex_digits = "0123456789abcdef";
constexpr std::size_t digits = 2 * key_size;

[[noreturn]] void refuse(const std::string& path, const std::string& why) {
  throw std::runtime_error("key file " + path + ": " + why);
}

[[noreturn]] void refuse_errno(const std::string& path, const std::string& what) {
  refuse(path, what + ": " + std::generic_category().message(errno));
}

// A program with rights that who runs it has not (set-user-id) takes no name of a file from him: secure_getenv(3).
std::string home_folder() {
  const char* const home = ::secure_getenv("HOME");
  if (home != nullptr && *home != '\0') return home;
  const passwd* const entry = ::getpwuid(::geteuid());
  return entry != nullptr ? entry->pw_dir : "/";
}

// Who can read the key can join every session; who can change it can keep everybody out, or let somebody in.
void check_owner(const std::string& path, int fd) {
  struct stat file {};
  if (::fstat(fd, &file) != 0) refuse_errno(path, "fstat");
  if (!S_ISREG(file.st_mode)) refuse(path, "it is no regular file; name another one");
  if (file.st_uid != ::geteuid()) refuse(path, "it belongs to another user; make a copy of your own");
  if ((file.st_mode & 077) == 0) return;
  std::array<char, 8> mode{};
  std::snprintf(mode.data(), mode.size(), "%04o", static_cast<unsigned>(file.st_mode & 07777));
  refuse(path, "others may use it (mode " + std::string(mode.data()) + "); chmod 600 " + path);
}

JobKey parse_key(const std::string& path, std::string_view text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.remove_suffix(1);
  if (text.size() != digits || text.find_first_not_of(hex_digits) != std::string_view::npos) {
    refuse(path, "it does not hold 64 hexadecimal digits; copy it anew from where dsmd runs");
  }
  JobKey key{};
  for (std::size_t i = 0; i < key.size(); ++i) {
    key[i] = static_cast<std::uint8_t>(hex_digits.find(text[2 * i]) * 16 + hex_digits.find(text[2 * i + 1]));
  }
  return key;
}

JobKey read_from(const std::string& path, const ipc::Fd& file) {
  check_owner(path, file.get());
  std::array<char, digits + 8> text{};
  const ssize_t got = ipc::read_full(file.get(), text.data(), text.size());
  if (got < 0) refuse_errno(path, "cannot be read");
  return parse_key(path, {text.data(), static_cast<std::size_t>(got)});
}

// O_NONBLOCK: should it be a FIFO, it is refused, and not waited for.
ipc::Fd open_file(const std::string& path) {
  return ipc::Fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
}

// The folders that a path goes through, from the first one on: "/a/b/c" -> "/a", "/a/b".
std::vector<std::string> folders_of(const std::string& path) {
  std::vector<std::string> out;
  for (std::size_t at = path.find('/', 1); at != std::string::npos; at = path.find('/', at + 1)) {
    out.push_back(path.substr(0, at));
  }
  return out;
}

void make_folders(const std::string& path) {
  for (const std::string& folder : folders_of(path)) {
    if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) refuse_errno(path, "cannot make the folder " + folder);
  }
}

struct Unlinked {  // whatever happens
  const std::string& path;
  ~Unlinked() { ::unlink(path.c_str()); }
};

// Under a name of its own first, and then linked: whoever opens the file sees all of it, and nobody overwrites another's.
void make_file(const std::string& path) {
  std::string draft = path + ".XXXXXX";
  const ipc::Fd file(::mkostemp(draft.data(), O_CLOEXEC));  // mode 0600
  if (!file) refuse_errno(path, "cannot be made");
  const Unlinked unlinked{draft};
  std::string text;
  for (const unsigned byte : random_key()) (text += hex_digits[byte / 16]) += hex_digits[byte % 16];
  text += '\n';
  if (ipc::write_full(file.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    refuse_errno(path, "cannot be written");
  }
  if (::link(draft.c_str(), path.c_str()) != 0 && errno != EEXIST) refuse_errno(path, "cannot be made");
}

}  // namespace

std::string usual_key_file() {
  const char* const named = ::secure_getenv(key_file_variable);
  return named != nullptr && *named != '\0' ? named : home_folder() + "/.config/dsm/key";
}

JobKey read_key_file(const std::string& path) {
  const ipc::Fd file = open_file(path);
  if (!file && errno == ENOENT) {
    refuse(path, "it is not there; dsmd makes it where it runs: copy it from there (chmod 600), or name it by " +
                     std::string(key_file_variable));
  }
  if (!file) refuse_errno(path, "cannot be opened");
  return read_from(path, file);
}

JobKey read_or_make_key_file(const std::string& path) {
  ipc::Fd file = open_file(path);
  if (!file && errno == ENOENT) {
    if (path == home_folder() + "/.config/dsm/key") make_folders(path);
    make_file(path);
    file = open_file(path);
  }
  if (!file) refuse_errno(path, "cannot be opened");
  return read_from(path, file);
}

}  // namespace dsm::net
