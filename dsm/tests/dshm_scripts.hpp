// dsm/tests/dshm_scripts.hpp - programs in Perl, PHP and Python that share by a key, as anybody would write them.
//
// Each takes ROLE KEY COUNT: role 0 makes what role 1 finds, prints "ready" then, and removes it in the end.
//   rounds  COUNT records go to and fro, with checksums. All use one layout: at 0 the round's number (8 digits), at 8 the
//           MD5 of the rest, in hexadecimal digits, at 40 a thousand random bytes. Role 0 writes the odd rounds.
//   adding  COUNT increments by each of a number (8 digits, at 0), under a System V semaphore. At 8: how many are done.
#pragma once
#include <string>
#include <vector>

namespace dsm::dshm::testing {

// The command line without ROLE KEY COUNT.
struct Script {
  const char* name;
  std::vector<std::string> line;
};

Script perl_rounds();         // shmget, shmread, shmwrite
Script perl_object_rounds();  // IPC::SharedMem
Script php_rounds();          // shmop
Script python_rounds();       // sysv_ipc

Script perl_adding();    // semop
Script php_adding();     // sem_acquire, which is a set of three: for two PHPs only
Script python_adding();  // sysv_ipc.Semaphore

}  // namespace dsm::dshm::testing
