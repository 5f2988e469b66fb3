// dsm/net/key_file.hpp - the key that lets a host in to dsmd: a file of yours that nobody else can read.
//
// 64 hexadecimal digits. dsmd makes it when it first starts; where members run on other machines, it is copied there.
// Used by dsmd and libdsm. What is thrown is std::runtime_error with one line: what is wrong, and what to do.
// Thread-safety: functions without state. Not async-signal-safe.
#pragma once
#include <string>

#include "dsm/net/job_key.hpp"

namespace dsm::net {

inline constexpr const char* key_file_variable = "DSM_KEY_FILE";

// What that variable says; else ~/.config/dsm/key. In a set-user-id program neither the variable nor HOME counts: then
// it is in the folder that the list of users (getpwuid) has for the effective user.
[[nodiscard]] std::string usual_key_file();
// Throws if there is none, if others may read or change it, or if it holds no key.
[[nodiscard]] JobKey read_key_file(const std::string& path);
// Makes it, if it is not there; of two who do so at one time both get the same key. The usual one's folders are made, too.
[[nodiscard]] JobKey read_or_make_key_file(const std::string& path);

}  // namespace dsm::net
