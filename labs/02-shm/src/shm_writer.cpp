// shm_writer - lays lines into a segment, one after the other, where shm_reader finds them by the key.
//
//     $ build/bin/shm_reader 4711 & printf 'one\ntwo\n' | build/bin/shm_writer 4711; wait
//     one
//     two
//
// Whose turn it is say two semaphores of the same key: 0 counts lines that were laid down, 1 lines that were taken. No
// signal, no process number: the reader may be anywhere, also on another machine.
//
// Read: shmget(2), semget(2), semop(2), sysvipc(7).
#include <sys/sem.h>
#include <sys/shm.h>

#include "ipc/program.hpp"

namespace {

int write_lines(key_t key) {
  const int segment = ipc::check(::shmget(key, 4096, IPC_CREAT | 0600), "shmget");  // who comes first makes it
  const int turns = ipc::check(::semget(key, 2, IPC_CREAT | 0600), "semget");       // all are 0 then
  char* const line = static_cast<char*>(::shmat(segment, nullptr, 0));
  ipc::check(reinterpret_cast<std::intptr_t>(line), "shmat");
  sembuf laid = {0, 1, 0}, taken = {1, -1, 0};
  while (std::fgets(line, 4096, stdin) != nullptr) {
    ipc::check(::semop(turns, &laid, 1), "semop");
    ipc::check(::semop(turns, &taken, 1), "semop");  // sleeps until it can take one off
  }
  line[0] = '\0';  // no line: the end
  ipc::check(::semop(turns, &laid, 1), "semop");
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  ipc::Program about{"shm_writer KEY\nGives the lines of its standard input to shm_reader.", {}, {"KEY"}};
  return ipc::run_program(argc, argv, about, [](const ipc::po::variables_map& values) {
    return write_lines(static_cast<key_t>(ipc::whole_number(values["KEY"].as<std::string>())));
  });
}
