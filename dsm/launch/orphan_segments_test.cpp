#include "dsm/launch/orphan_segments.hpp"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <sys/wait.h>
#include <unistd.h>

#include "dsm/telemetry/segment.hpp"
#include "ipc/sysv_segment.hpp"

namespace dsm::launch {
namespace {

bool exists(int id) {
  struct shmid_ds stat {};
  return ::shmctl(id, IPC_STAT, &stat) == 0;
}

int make(int mode) { return ::shmget(IPC_PRIVATE, 4096, IPC_CREAT | IPC_EXCL | mode); }

// By a child that is dead, and a zombie until it is waited for.
struct MadeByADeadChild {
  explicit MadeByADeadChild(int mode) {
    int ends[2];
    EXPECT_EQ(::pipe(ends), 0);
    child = ::fork();
    if (child == 0) {
      const int made = make(mode);
      if (::write(ends[1], &made, sizeof made) == sizeof made) ::raise(SIGKILL);
      ::_exit(1);
    }
    EXPECT_EQ(::read(ends[0], &id, sizeof id), static_cast<ssize_t>(sizeof id));
    for (const int fd : ends) ::close(fd);
    siginfo_t info{};
    EXPECT_EQ(::waitid(P_PID, static_cast<id_t>(child), &info, WEXITED | WNOWAIT), 0);
  }
  MadeByADeadChild(const MadeByADeadChild&) = delete;
  ~MadeByADeadChild() {
    bury();
    if (exists(id)) ::shmctl(id, IPC_RMID, nullptr);
  }
  void bury() {
    if (child != 0) ::waitpid(child, nullptr, 0);
    child = 0;
  }
  int id = -1;
  pid_t child = 0;
};

// It stayed for ever: the segment of a rank that is killed before it can mark it for removal.
TEST(OrphanSegments, OfADeadRankAreRemovedAndNoOthers) {
  const MadeByADeadChild orphan(telemetry::segment_mode), of_the_program(0600);
  MadeByADeadChild buried(telemetry::segment_mode);
  buried.bury();
  const MadeByADeadChild attached(telemetry::segment_mode);
  const auto attachment = ipc::SysvSegment::attach(attached.id);
  const int of_the_living = make(telemetry::segment_mode);

  EXPECT_GE(remove_orphan_segments(), 2);
  EXPECT_FALSE(exists(orphan.id));
  EXPECT_FALSE(exists(buried.id));
  EXPECT_TRUE(exists(of_the_program.id));
  EXPECT_TRUE(exists(attached.id));
  EXPECT_TRUE(exists(of_the_living));
  ::shmctl(of_the_living, IPC_RMID, nullptr);
}

}  // namespace
}  // namespace dsm::launch
