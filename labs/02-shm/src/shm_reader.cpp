// shm_reader - prints the lines that shm_writer lays into the segment of the same key, and clears up in the end.
//
//     $ build/bin/shm_reader 4711 & printf 'one\ntwo\n' | build/bin/shm_writer 4711; wait
//     one
//     two
//
// Read: shmget(2), semget(2), semop(2), sysvipc(7).
#include <sys/sem.h>
#include <sys/shm.h>

#include "ipc/program.hpp"

namespace {

int read_lines(key_t key) {
  const int segment = ipc::check(::shmget(key, 4096, IPC_CREAT | 0600), "shmget");
  const int turns = ipc::check(::semget(key, 2, IPC_CREAT | 0600), "semget");
  const char* const line = static_cast<const char*>(::shmat(segment, nullptr, SHM_RDONLY));
  ipc::check(reinterpret_cast<std::intptr_t>(line), "shmat");
  sembuf laid = {0, -1, 0}, taken = {1, 1, 0};
  for (;;) {
    ipc::check(::semop(turns, &laid, 1), "semop");  // sleeps until there is one
    if (line[0] == '\0') break;
    ipc::say(std::string(line, std::string(line).find_last_not_of('\n') + 1));
    ipc::check(::semop(turns, &taken, 1), "semop");
  }
  ipc::check(::shmctl(segment, IPC_RMID, nullptr), "IPC_RMID");
  return ipc::check(::semctl(turns, 0, IPC_RMID), "IPC_RMID");
}

}  // namespace

int main(int argc, char** argv) {
  ipc::Program about{"shm_reader KEY\nPrints the lines that shm_writer gives.", {}, {"KEY"}};
  return ipc::run_program(argc, argv, about, [](const ipc::po::variables_map& values) {
    return read_lines(static_cast<key_t>(ipc::whole_number(values["KEY"].as<std::string>())));
  });
}
