// dsm/launch/program.hpp - which file a program's name means. Called once by dsmexec, before anything is started.
#pragma once
#include <string>

namespace dsm::launch {

struct Program {
  std::string path;  // to execute; absolute, or with a '/' and relative to the ranks' working directory
  int code = 0;      // 0, or the exit code: 126 there is such a file, but it cannot be executed; 127 there is none
  std::string why;   // one line, if code is not 0
};

// A name with '/' is a path, relative to `wdir` (empty: the present directory) where the ranks start. Any other is
// looked up in `beside` (the folder of dsmexec itself), then in the folders of `search_path` (as in PATH).
[[nodiscard]] Program find_program(const std::string& name, const std::string& wdir, const std::string& beside,
                                   const std::string& search_path);

// BLAKE2b of a file's content, in hexadecimal: whether two machines have the same program. Empty if it cannot be read.
[[nodiscard]] std::string hash_of(const std::string& path);

// Of the running executable: whether another machine has the same one. Its build id and its size, so that nobody has to
// read it for that; without a build id the hash above. Hexadecimal digits and '-'.
[[nodiscard]] std::string own_identity();

// The folder of the running executable.
[[nodiscard]] std::string own_folder();

}  // namespace dsm::launch
