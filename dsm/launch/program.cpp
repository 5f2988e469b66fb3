#include "dsm/launch/program.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <link.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <vector>

#include "dsm/launch/job.hpp"
#include "ipc/fd.hpp"
#include "ipc/spawn.hpp"

namespace dsm::launch {
namespace {

// 0, or the errno that execve would give.
int executable(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) return errno;
  if (S_ISDIR(status.st_mode)) return EISDIR;
  return ::access(path.c_str(), X_OK) == 0 ? 0 : errno;
}

bool is_missing(int error) { return error == ENOENT || error == ENOTDIR; }

Program refused(const std::string& name, int error) {
  if (is_missing(error)) return {{}, exit_not_found, fmt::format("program '{}' not found", name)};
  return {{}, exit_not_executable, fmt::format("cannot execute '{}': {}", name, std::strerror(error))};
}

}  // namespace

Program find_program(const std::string& name, const std::string& wdir, const std::string& beside,
                     const std::string& search_path) {
  if (name.find('/') != std::string::npos) {
    const int error = executable(name.front() == '/' || wdir.empty() ? name : wdir + "/" + name);
    return error == 0 ? Program{name, 0, {}} : refused(name, error);
  }
  int first_error = ENOENT;
  const auto look = [&](const std::string& folder) {
    if (name.empty()) return std::string();
    const std::string path = (std::filesystem::absolute(folder.empty() ? "." : folder) / name).string();
    const int error = executable(path);
    if (error != 0 && !is_missing(error) && first_error == ENOENT) first_error = error;
    return error == 0 ? path : std::string();
  };
  if (const std::string path = look(beside); !path.empty()) return {path, 0, {}};
  for (std::size_t begin = 0; begin <= search_path.size();) {
    const std::size_t end = std::min(search_path.find(':', begin), search_path.size());
    if (const std::string path = look(search_path.substr(begin, end - begin)); !path.empty()) return {path, 0, {}};
    begin = end + 1;
  }
  // A folder of that name on the way is no program that somebody meant.
  if (first_error == EISDIR) first_error = ENOENT;
  Program none = refused(name, first_error);
  if (first_error == ENOENT) none.why += " (looked beside dsmexec and on PATH)";
  return none;
}

std::string hash_of(const std::string& path) {
  const ipc::Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return {};
  crypto_generichash_state state;
  crypto_generichash_init(&state, nullptr, 0, crypto_generichash_BYTES);
  std::vector<unsigned char> buffer(1u << 18);
  for (;;) {
    const ssize_t got = ipc::read_full(file.get(), buffer.data(), buffer.size());
    if (got < 0) return {};
    crypto_generichash_update(&state, buffer.data(), static_cast<unsigned long long>(got));
    if (static_cast<std::size_t>(got) < buffer.size()) break;
  }
  std::array<unsigned char, crypto_generichash_BYTES> hash{};
  crypto_generichash_final(&state, hash.data(), hash.size());
  std::array<char, 2 * crypto_generichash_BYTES + 1> text{};
  return sodium_bin2hex(text.data(), text.size(), hash.data(), hash.size());
}

namespace {

// The note that the linker leaves in an executable, elf(5); empty if there is none.
std::string build_id_in(const dl_phdr_info& object) {
  for (int i = 0; i < object.dlpi_phnum; ++i) {
    const ElfW(Phdr)& segment = object.dlpi_phdr[i];
    if (segment.p_type != PT_NOTE) continue;
    const auto* at = reinterpret_cast<const char*>(object.dlpi_addr + segment.p_vaddr);
    const auto padded = [](std::size_t size) { return (size + 3) & ~std::size_t{3}; };
    for (const char* const end = at + segment.p_memsz; at + sizeof(ElfW(Nhdr)) <= end;) {
      ElfW(Nhdr) note{};
      std::memcpy(&note, at, sizeof note);
      const char* const name = at + sizeof note;
      const char* const value = name + padded(note.n_namesz);
      if (note.n_type == NT_GNU_BUILD_ID && std::string_view(name, note.n_namesz) == std::string_view("GNU", 4)) {
        return {value, note.n_descsz};
      }
      at = value + padded(note.n_descsz);
    }
  }
  return {};
}

}  // namespace

std::string own_identity() {
  std::string id;
  const auto first = [](dl_phdr_info* object, std::size_t, void* out) {
    *static_cast<std::string*>(out) = build_id_in(*object);
    return 1;  // the executable comes first, and no more is needed
  };
  ::dl_iterate_phdr(first, &id);
  if (id.empty()) return hash_of("/proc/self/exe");
  std::string text(2 * id.size() + 1, '\0');
  sodium_bin2hex(text.data(), text.size(), reinterpret_cast<const unsigned char*>(id.data()), id.size());
  text.pop_back();
  return fmt::format("{}-{}", text, std::filesystem::file_size("/proc/self/exe"));
}

std::string own_folder() { return std::filesystem::read_symlink("/proc/self/exe").parent_path().string(); }

}  // namespace dsm::launch
